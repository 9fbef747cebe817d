//! File descriptors: how many this process may have, and which part of them each port gets.
//!
//! Container runtimes and login shells give a soft limit of 1024, whatever the hard one is; a fleet of clients needs more. The log, the
//! snapshots and the other members must never lack one because clients have taken them all.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What the log, the snapshots, the copy of the state, the runtimes and the listeners need, some forty in all, and the connections that
/// have been told to go ([`super::table::LEAVING`]).
const OWN: usize = 72;

/// Connections of other members and of operators. Those that this node makes to members come on top: [`OUTGOING`].
pub(crate) const PEERS: usize = 48;

/// Connections that this node makes: one to each member, and a few for what it asks of them.
const OUTGOING: usize = 16;

/// Connections to the HTTP port: each lasts for one request.
pub(crate) const HTTP: usize = 24;

/// The most connections of clients unless a flag says otherwise: idle, so many take some 500 MiB.
pub(crate) const MOST_CLIENTS: usize = 1 << 15;

/// A node serves at least so many clients, also where there are so few descriptors that the reserve is a hope.
const LEAST_CLIENTS: usize = 16;

/// Raises the limit of this process as far as it may be raised. The limit that holds from now on.
pub(crate) fn raise_limit() -> io::Result<usize> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum {
        setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?;
    }
    Ok(limit())
}

/// The limit as it is. Where there is none, more than is ever used.
pub(crate) fn limit() -> usize {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    usize::try_from(limit).unwrap_or(usize::MAX)
}

/// How many clients may be connected at a time with `limit` descriptors, when the flag `wanted` asks for so many.
pub(crate) fn clients(limit: usize, wanted: Option<u32>) -> usize {
    let room = limit.saturating_sub(OWN + PEERS + OUTGOING + HTTP).max(LEAST_CLIENTS);
    wanted.map_or(MOST_CLIENTS, |wanted| wanted as usize).clamp(1, room)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_never_get_the_reserve() {
        assert_eq!(clients(256, None), 96);
        assert_eq!(clients(1024, None), 864);
        assert_eq!(clients(1024, Some(100)), 100);
        assert_eq!(clients(1024, Some(10_000)), 864);
        assert_eq!(clients(1 << 20, None), MOST_CLIENTS);
        assert_eq!(clients(usize::MAX, Some(1 << 20)), 1 << 20);
        assert_eq!(clients(100, None), LEAST_CLIENTS);
    }
}
