//! What is measured.

use clap::ValueEnum;
use serde::Serialize;

use crate::load::VALUE;

/// Bytes of a large value.
const LARGE: usize = 1 << 20;

/// One row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Row {
    /// Puts, one client.
    Put1,
    /// Puts, 1000 clients.
    Put1000,
    /// Linearizable reads of one key, one client.
    Range1,
    /// Linearizable reads of one key, 1000 clients.
    Range1000,
    /// Serializable reads of one key, one client.
    Serializable1,
    /// Serializable reads of one key, 1000 clients.
    Serializable1000,
    /// The leader is killed with kill -9: until the next write is acknowledged.
    Failover,
    /// The leader's disk stands still: for how long no write is acknowledged.
    Stall,
    /// All nodes are stopped and started, with a million keys.
    Restart,
    /// A fourth node joins, with a gigabyte of data, while clients write.
    Join,
    /// Large puts on slow disks.
    PutLarge,
    /// Puts, while one client asks for read-only transactions of many compares over all keys.
    Compares,
    /// Puts, while one client asks for writing transactions that read all keys.
    Ranges,
    /// Puts, while one client deletes many keys and puts them again.
    Deletions,
    /// Puts, while one client reads the past of keys with many versions.
    Versions,
    /// Memory with connections that do nothing.
    Idle,
}

/// What a client asks again and again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Request {
    Put,
    Range { serializable: bool },
}

/// Clients that each send a request when the one before is answered.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    pub(crate) request: Request,
    pub(crate) clients: usize,
    /// One connection goes to the leader, more are spread over the nodes.
    pub(crate) connections: usize,
    /// Bytes of each value.
    pub(crate) value: usize,
}

impl Row {
    pub(crate) const ALL: [Self; 16] = [
        Self::Put1,
        Self::Put1000,
        Self::Range1,
        Self::Range1000,
        Self::Serializable1,
        Self::Serializable1000,
        Self::Failover,
        Self::Stall,
        Self::Restart,
        Self::Join,
        Self::PutLarge,
        Self::Compares,
        Self::Ranges,
        Self::Deletions,
        Self::Versions,
        Self::Idle,
    ];

    pub(crate) const fn title(self) -> &'static str {
        match self {
            Self::Put1 => "put, 1 client",
            Self::Put1000 => "put, 1000 clients on 100 connections",
            Self::Range1 => "linearizable range, 1 client",
            Self::Range1000 => "linearizable range, 1000 clients on 100 connections",
            Self::Serializable1 => "serializable range, 1 client",
            Self::Serializable1000 => "serializable range, 1000 clients on 100 connections",
            Self::Failover => "kill -9 of the leader until the next acknowledged write",
            Self::Stall => {
                "the leader's disk stands still: longest time without an acknowledged write in the next 5 s (through FUSE)"
            }
            Self::Restart => {
                "restart of all nodes with 1 M keys of 256 B until each answers a linearizable read"
            }
            Self::PutLarge => "put of 1 MiB, 64 clients, disks of 50 MB/s (through FUSE)",
            Self::Compares => "put, 16 clients, beside transactions of 128 compares of 200,000 keys each",
            Self::Ranges => "put, 16 clients, beside transactions that put and read 200,000 keys",
            Self::Deletions => "put, 16 clients, beside deletions of 200,000 keys",
            Self::Versions => "put, 16 clients, beside reads of the past of 64 keys of 3,125 versions each",
            Self::Idle => "10,000 connections that do nothing",
            Self::Join => "a new member with 1 GiB of data until it votes and answers, while 16 clients put",
        }
    }

    /// Whether it takes minutes, most of them to load the data.
    pub(crate) const fn is_long(self) -> bool {
        matches!(self, Self::Restart | Self::Join)
    }

    /// Whether its nodes have disks that are slow.
    pub(crate) const fn is_on_slow_disks(self) -> bool {
        matches!(self, Self::PutLarge)
    }

    /// The load of the row; none for those that are about something else.
    pub(crate) const fn load(self) -> Option<Load> {
        let (request, clients, connections) = match self {
            Self::Put1 => (Request::Put, 1, 1),
            Self::Put1000 => (Request::Put, 1000, 100),
            Self::Range1 => (Request::Range { serializable: false }, 1, 1),
            Self::Range1000 => (Request::Range { serializable: false }, 1000, 100),
            Self::Serializable1 => (Request::Range { serializable: true }, 1, 1),
            Self::Serializable1000 => (Request::Range { serializable: true }, 1000, 100),
            Self::PutLarge => {
                return Some(Load { request: Request::Put, clients: 64, connections: 4, value: LARGE });
            }
            Self::Failover
            | Self::Stall
            | Self::Restart
            | Self::Join
            | Self::Compares
            | Self::Ranges
            | Self::Deletions
            | Self::Versions
            | Self::Idle => return None,
        };
        Some(Load { request, clients, connections, value: VALUE })
    }
}
