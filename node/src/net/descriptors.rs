//! File descriptors: how many this process may have, and which part of them each port gets.
//!
//! Container runtimes and login shells give a soft limit of 1024, whatever the hard one is; a fleet of clients needs more. The log, the
//! snapshots and the other members must never lack one because clients have taken them all.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::table::LEAVING;

/// What this process has open for itself, and the connections that have been told to go ([`LEAVING`]).
const OWN: usize = STANDARD + RUNTIMES + LISTENERS + LOCK + LOG + SNAPSHOTS + COPY + PASSING + LEAVING;

/// stdin, stdout and stderr.
const STANDARD: usize = 3;

/// Six runtimes (the node's, that of the ports, and four for clients at most), each with its way to wait for the kernel (two, and one for
/// signals), and the two ends of the way of signals.
const RUNTIMES: usize = 6 * 3 + 2;

/// Three ports, each at two addresses.
const LISTENERS: usize = 6;

/// Of the data directory.
const LOCK: usize = 1;

/// Of the log, however long it is: `storage::wal` closes what it only keeps.
pub(crate) const LOG: usize = 7;

/// The directory; one that is taken and one that is received; the newest, the one before, and three that other members still fetch.
const SNAPSHOTS: usize = 8;

/// sled has one file, and some more while it starts and makes a snapshot of itself.
const COPY: usize = 4;

/// What is open for a moment: certificates that are read again, the kernel's own files, a name that is looked up.
const PASSING: usize = 7;

/// Connections of other members and of operators. Those that this node makes to members come on top: [`OUTGOING`].
pub(crate) const PEERS: usize = 48;

/// Connections that this node makes: one to each member, and a few for what it asks of them.
const OUTGOING: usize = 16;

/// Connections to the HTTP port: each lasts for one request.
pub(crate) const HTTP: usize = 24;

/// What clients do not get.
const RESERVE: usize = OWN + PEERS + OUTGOING + HTTP;

/// The most connections of clients unless a flag says otherwise.
pub(crate) const MOST_CLIENTS: usize = 1 << 15;

/// What a connection takes of the memory, measured by what a thousand of them add to a process: 17 KiB in the clear and 25 KiB over TLS when
/// it is idle, 31 KiB after its first request, and 70 KiB with eight requests under way. What requests and answers hold is counted elsewhere.
const CONNECTION_BYTES: u64 = 64 << 10;

/// Unless a flag says otherwise connections may take one part in so many of the memory.
const MEMORY_PART: u64 = 8;

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

/// How many clients may be connected at a time with `limit` descriptors and `memory` bytes, as far as that is known, when the flag `wanted`
/// asks for so many: a flag is believed as to memory.
pub(crate) fn clients(limit: usize, memory: Option<u64>, wanted: Option<u32>) -> usize {
    let room = limit.saturating_sub(RESERVE).max(LEAST_CLIENTS);
    let bearable = memory.map_or(u64::MAX, |memory| memory / MEMORY_PART / CONNECTION_BYTES);
    let most = MOST_CLIENTS.min(usize::try_from(bearable).unwrap_or(usize::MAX)).max(LEAST_CLIENTS);
    wanted.map_or(most, |wanted| wanted as usize).clamp(1, room)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_never_get_the_reserve() {
        assert_eq!(RESERVE, 160, "the help of --max-client-connections says so");
        let of = |limit, wanted| clients(limit, None, wanted);
        assert_eq!(of(256, None), 256 - RESERVE);
        assert_eq!(of(1024, None), 1024 - RESERVE);
        assert_eq!(of(1024, Some(100)), 100);
        assert_eq!(of(1024, Some(10_000)), 1024 - RESERVE);
        assert_eq!(of(1 << 20, None), MOST_CLIENTS);
        assert_eq!(of(usize::MAX, Some(1 << 20)), 1 << 20);
        assert_eq!(of(100, None), LEAST_CLIENTS);
    }

    /// Thousands of connections with their buffers are more than a small container has.
    #[test]
    fn clients_take_an_eighth_of_the_memory_unless_a_flag_says_otherwise() {
        let of = |memory: u64, wanted| clients(1 << 20, Some(memory), wanted);
        assert_eq!(of(512 << 20, None), 1024);
        assert_eq!(of(4 << 30, None), 8192);
        assert_eq!(of(1 << 40, None), MOST_CLIENTS);
        assert_eq!(of(1 << 20, None), LEAST_CLIENTS);
        assert_eq!(of(512 << 20, Some(5000)), 5000);
    }
}
