//! Tells systemd how the start goes: units of `Type=notify`, as those made for etcd are.
//!
//! Without `NOTIFY_SOCKET` in the environment there is nobody to tell. What cannot be told is not worth ending for.

use std::env;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// How often a start that goes on asks for more time.
const INTERVAL: Duration = Duration::from_secs(10);

/// How much it asks for: some intervals, for a machine that is busy.
const MORE_TIME: Duration = Duration::from_mins(1);

/// The way to systemd, if it is there. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Notify {
    socket: Option<OsString>,
}

impl Notify {
    pub(super) fn from_environment() -> Self {
        Notify { socket: env::var_os("NOTIFY_SOCKET").filter(|path| !path.is_empty()) }
    }

    /// Asks for more time again and again, for a start that reads a long log.
    pub(super) async fn more_time(self) {
        while self.socket.is_some() {
            self.say(&format!("EXTEND_TIMEOUT_USEC={}\nSTATUS=reading the log", MORE_TIME.as_micros()));
            tokio::time::sleep(INTERVAL).await;
        }
    }

    /// The ports are open.
    pub(super) fn ready(&self) {
        self.say("READY=1\nSTATUS=serving");
    }

    /// The end has begun.
    pub(super) fn stopping(&self) {
        self.say("STOPPING=1\nSTATUS=stopping");
    }

    fn say(&self, message: &str) {
        let Some(socket) = &self.socket else { return };
        if let Err(error) = send(socket, message) {
            tracing::debug!(%error, "cannot notify systemd");
        }
    }
}

fn send(socket: &OsStr, message: &str) -> io::Result<()> {
    let address = match socket.as_bytes().split_first() {
        Some((b'@', name)) => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(socket)?,
    };
    let datagram = UnixDatagram::unbound()?;
    // A full queue must not hold up a start.
    datagram.set_nonblocking(true)?;
    datagram.send_to_addr(message.as_bytes(), &address).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_arrive_by_path_and_by_abstract_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let name = format!("quorate-test-{}", std::process::id());
        let by_path = UnixDatagram::bind(&path).unwrap();
        let by_name = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        for (receiver, socket) in [(by_path, path.into_os_string()), (by_name, format!("@{name}").into())] {
            Notify { socket: Some(socket) }.ready();
            let mut word = [0; 64];
            let length = receiver.recv(&mut word).unwrap();
            assert_eq!(&word[..length], b"READY=1\nSTATUS=serving");
        }
    }

    #[test]
    fn nobody_to_tell_is_no_error() {
        Notify { socket: None }.ready();
        Notify { socket: Some("/nowhere/at/all".into()) }.stopping();
    }
}
