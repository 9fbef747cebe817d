//! Where a node listens: addresses as people write them, and sockets that take both families.
//!
//! A name has the addresses of both families, as `localhost` does: all of them are taken that this machine has.
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

/// How often a port is looked for that is free at all addresses of a name.
const TRIES: usize = 8;

/// Sockets that are bound to one port, at one address or more, and do not listen yet.
#[derive(Debug)]
pub(crate) struct Bound {
    sockets: Vec<OwnedFd>,
    address: SocketAddr,
}

/// A port that is listened on.
#[derive(Debug)]
pub(crate) struct Listeners(Vec<TcpListener>);

impl Listeners {
    /// One for each address.
    pub(crate) fn all(self) -> Vec<TcpListener> {
        self.0
    }
}

impl From<TcpListener> for Listeners {
    fn from(listener: TcpListener) -> Self {
        Listeners(vec![listener])
    }
}

impl Bound {
    /// Binds `host:port`. `[::]`, `*` and no host at all mean every address of the machine, of both families where it has IPv6.
    pub(crate) fn bind(host: &str, port: u16) -> io::Result<Self> {
        let any = matches!(host, "" | "*" | "::");
        if any {
            return match Self::bind_to(SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port)) {
                Err(error) if lacks_address(&error) => {
                    Self::bind_to(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port))
                }
                bound => bound,
            };
        }
        let addresses: Vec<SocketAddr> = (host, port).to_socket_addrs()?.collect();
        for _ in 1..TRIES {
            match Self::bind_all(&addresses) {
                // The system has chosen one that is free at the first address.
                Err(error) if port == 0 && error.kind() == io::ErrorKind::AddrInUse => {}
                bound => return bound,
            }
        }
        Self::bind_all(&addresses)
    }

    /// Binds all of these that this machine has, to the same port.
    fn bind_all(addresses: &[SocketAddr]) -> io::Result<Self> {
        let mut bound: Option<Bound> = None;
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for (number, address) in addresses.iter().enumerate() {
            // The resolver may name one more than once.
            if addresses[..number].contains(address) {
                continue;
            }
            let port = bound.as_ref().map_or(address.port(), |bound| bound.address.port());
            match Self::bind_to(SocketAddr::new(address.ip(), port)) {
                Ok(one) => match &mut bound {
                    Some(bound) => bound.sockets.extend(one.sockets),
                    None => bound = Some(one),
                },
                Err(error) if lacks_address(&error) => last = error,
                Err(error) => return Err(error),
            }
        }
        bound.ok_or(last)
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
        Ok(Bound { sockets: vec![socket], address })
    }

    /// The first address, with the port that the system chose if none was given.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Begins to listen.
    pub(crate) fn listen(self) -> io::Result<Listeners> {
        let listen = |socket: OwnedFd| {
            net::listen(&socket, BACKLOG)?;
            Ok(TcpListener::from(socket))
        };
        self.sockets.into_iter().map(listen).collect::<io::Result<_>>().map(Listeners)
    }
}

/// The machine has no such address, or not the family.
fn lacks_address(error: &io::Error) -> bool {
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

    /// A client that takes the other of its addresses would be refused.
    #[test]
    fn name_means_all_addresses_that_it_has_here() {
        let bound = Bound::bind("localhost", 0).unwrap();
        let port = bound.address().port();
        let addresses: Vec<SocketAddr> = ("localhost", port).to_socket_addrs().unwrap().collect();
        let here = addresses.iter().filter(|address| TcpListener::bind((address.ip(), 0)).is_ok());
        let here: Vec<_> = here.collect();
        assert!(!here.is_empty());
        let _listeners = bound.listen().unwrap();
        for address in here {
            TcpStream::connect(address).unwrap();
        }
        assert_eq!(Bound::bind("localhost", port).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn both_families_take_the_same_port() {
        let addresses = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
        let addresses = addresses.map(|address| SocketAddr::new(address, 0));
        let twice = [addresses[0], addresses[0], addresses[1]];
        let bound = Bound::bind_all(&twice).unwrap();
        let port = bound.address().port();
        let has_ipv6 = TcpListener::bind(addresses[1]).is_ok();
        assert_eq!(bound.sockets.len(), if has_ipv6 { 2 } else { 1 });
        let _listeners = bound.listen().unwrap();
        TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        if has_ipv6 {
            TcpStream::connect((Ipv6Addr::LOCALHOST, port)).unwrap();
        }
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
