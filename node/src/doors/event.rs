//! Everything that can happen to a node.

use quorate_raft::{ChangeError, Configuration, Index, LogId, MemberId, Term, TransferError, WriteId};
use tokio::sync::oneshot;

use crate::level::{Level, Unsupported};
use crate::replica::{Applied, Client, Command, Message, Question, RaiseError, Room};
use crate::snapshots::Report;

/// What the replica's loop acts upon. Nothing reaches the replica in any other way, but for time.
#[derive(Debug)]
pub(crate) enum Event {
    /// Requests that arrived together at one client runtime.
    Requests {
        /// Which runtime.
        client: Client,
        /// What is to be done.
        writes: Vec<Command>,
        /// The runtime's number for the reads among them.
        read: Option<u64>,
        /// What is asked of leases.
        questions: Vec<Question>,
    },
    /// Messages that came together from one peer.
    Messages(Vec<Message>),
    /// Commands on their way to other members that never left this process. At most what one link holds at a time.
    Undelivered(Vec<Message>),
    /// Another member remembers more of this one than its disk holds: the disk went back in time.
    WentBack {
        /// The number of the latest start that is remembered.
        start: u64,
        /// The number of groups of writes that were durable.
        durable: u64,
        /// The latest term.
        term: Term,
    },
    /// Two processes run as one member.
    Conflict {
        /// Which, and how it was found out.
        what: String,
        /// This process is one of the two, and the one to go.
        ends: bool,
    },
    /// A peer's connection ended without a goodbye.
    Disconnected(MemberId),
    /// A peer of cluster `cluster_id` speaks to this node, which belongs to none.
    Adopt {
        /// The peer's cluster.
        cluster_id: u64,
        /// Told when this node has made it its own, durably.
        reply: oneshot::Sender<Result<(), ClusterError>>,
    },
    /// This node, which belongs to no cluster, takes the ID that a client has registered for it, and starts anew as that member.
    TakeId {
        /// That ID.
        member: MemberId,
        /// Told if it does not.
        reply: oneshot::Sender<ClusterError>,
    },
    /// Found the cluster `cluster_id`, with this node as its one member.
    Bootstrap {
        /// The cluster to be.
        cluster_id: u64,
        /// Told when it is durable.
        reply: oneshot::Sender<Result<(), ClusterError>>,
    },
    /// Start a change of membership.
    ChangeMembership {
        /// What the change starts from.
        expected: LogId,
        /// What is wanted.
        wanted: Configuration,
        /// Told what was appended.
        reply: oneshot::Sender<Result<LogId, ChangeError>>,
    },
    /// Hand leadership over.
    Transfer {
        /// To whom; none for whoever is furthest.
        target: Option<MemberId>,
        /// Told to whom it is being handed.
        reply: oneshot::Sender<Result<MemberId, TransferError>>,
    },
    /// Raise the level of the cluster.
    RaiseLevel {
        /// To this one; none for the newest that this member supports.
        to: Option<Level>,
        /// Told what was proposed, or that the cluster has already.
        reply: oneshot::Sender<Result<Level, RaiseError>>,
    },
    /// Everything up to this write is durable.
    Persisted(WriteId),
    /// Everything before this write is durable, and of that one what it has up to this entry.
    PersistedPart(WriteId, Index),
    /// The state has come this far.
    Applied(Applied),
    /// Something has come of a job on snapshots.
    Snapshot(Report),
    /// The disk has more room than before, or less.
    Room(Room),
    /// What has come from another member needs a level that is not supported: the end of this process.
    Unsupported(Unsupported),
    /// The log cannot be written: the end of this process.
    DiskFailed(String),
    /// The node is going away: say so.
    Stopping,
    /// End.
    Stop,
}

/// Why a node does not become a member of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClusterError {
    /// It belongs to another one.
    #[error("this node belongs to cluster {mine:016x}, not to {asked:016x}")]
    Other {
        /// Its own.
        mine: u64,
        /// The one meant.
        asked: u64,
    },
    /// It was added to the cluster that it is to found.
    #[error("this node has joined cluster {0:016x}; it did not found it")]
    NotFounder(u64),
    /// Zero names no cluster.
    #[error("0 is not the ID of a cluster")]
    NoId,
    /// Another attempt is under way.
    #[error("the cluster is being founded already")]
    InProgress,
    /// An earlier attempt to found one was cut short.
    #[error(
        "this node began to found a cluster and did not finish: bootstrap it again, or start it with an empty data directory"
    )]
    HalfFounded,
    /// The identity could not be stored.
    #[error("{0}")]
    Storage(String),
}
