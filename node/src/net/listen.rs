//! Where a node listens: addresses as people write them, and sockets that take both families.
//!
//! A port is bound when the process starts, so that an address that cannot be had is said at once, and listened on when there is something to
//! serve: until then the kernel refuses connections, and clients go on to another member.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, ToSocketAddrs as _};

use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{self, AddressFamily, SocketFlags, SocketType, sockopt};

/// How many connections wait to be accepted: a thousand clients that come back at once after a change of leader must not meet a full
/// queue, whose dropped SYNs are repeated a second later. The kernel takes no more than `net.core.somaxconn`, by default as many.
const BACKLOG: i32 = 4096;

/// A socket that is bound, and does not listen yet.
#[derive(Debug)]
pub(crate) struct Bound {
    socket: OwnedFd,
    address: SocketAddr,
}

impl Bound {
    /// Binds `host:port`. `[::]`, `*` and no host at all mean every address of the machine, of both families where it has IPv6.
    pub(crate) fn bind(host: &str, port: u16) -> io::Result<Self> {
        let any = matches!(host, "" | "*" | "::");
        if any {
            return match Self::bind_to(SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port)) {
                Err(error) if lacks_ipv6(&error) => {
                    Self::bind_to(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port))
                }
                bound => bound,
            };
        }
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in (host, port).to_socket_addrs()? {
            match Self::bind_to(address) {
                Ok(bound) => return Ok(bound),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn bind_to(address: SocketAddr) -> io::Result<Self> {
        let family = if address.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = net::socket_with(family, SocketType::STREAM, flags, None)?;
        // A process that starts again at once gets its port back, though connections of the last one linger.
        sockopt::set_socket_reuseaddr(&socket, true)?;
        if address.is_ipv6() {
            sockopt::set_ipv6_v6only(&socket, !address.ip().is_unspecified())?;
        }
        net::bind(&socket, &address)?;
        let address = SocketAddr::try_from(net::getsockname(&socket)?).map_err(|_| Errno::AFNOSUPPORT)?;
        Ok(Bound { socket, address })
    }

    /// The address, with the port that the system chose if none was given.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Begins to listen.
    pub(crate) fn listen(self) -> io::Result<TcpListener> {
        net::listen(&self.socket, BACKLOG)?;
        Ok(TcpListener::from(self.socket))
    }
}

fn lacks_ipv6(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL))
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;
    use std::time::Duration;

    use super::*;

    #[test]
    fn every_address_means_both_families() {
        for host in ["", "*", "::"] {
            let bound = Bound::bind(host, 0).unwrap();
            let port = bound.address().port();
            let has_ipv6 = bound.address().is_ipv6();
            let _listener = bound.listen().unwrap();
            TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
            if has_ipv6 {
                TcpStream::connect((Ipv6Addr::LOCALHOST, port)).unwrap();
            }
        }
    }

    /// All clients of a member that has gone come at once, and none is to find the queue full: its next attempt would be a second later.
    #[test]
    fn many_connections_wait_to_be_accepted() {
        let most = std::fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap();
        let many = 500.min(most.trim().parse().unwrap());
        let bound = Bound::bind("127.0.0.1", 0).unwrap();
        let address = bound.address();
        let _listener = bound.listen().unwrap();
        let connect = |_| TcpStream::connect_timeout(&address, Duration::from_secs(10));
        let waiting: Vec<_> = (0..many).map(connect).collect::<Result<_, _>>().unwrap();
        assert_eq!(waiting.len(), many);
    }

    #[test]
    fn a_bound_port_refuses_until_it_listens() {
        let bound = Bound::bind("127.0.0.1", 0).unwrap();
        let address = bound.address();
        assert_eq!(TcpStream::connect(address).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        let _listener = bound.listen().unwrap();
        TcpStream::connect(address).unwrap();
        assert_eq!(Bound::bind("127.0.0.1", address.port()).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }
}
