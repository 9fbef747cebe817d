//! Entries of the log, and the configurations that stand in it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use bytes::Bytes;

/// A term of leadership. Term 0 is before the first election.
pub type Term = u64;

/// A place in the log. The first entry has index 1; index 0 is the empty log.
pub type Index = u64;

/// The identity of a member: random, made with its data directory, never used again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberId(pub u64);

impl fmt::Display for MemberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for MemberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// An entry's name: two logs that hold the same one agree on everything before it (Raft paper, 5.3).
/// Ordered as elections compare logs: by term, then by index (5.4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct LogId {
    /// The term in which a leader appended the entry.
    pub term: Term,
    /// Its place.
    pub index: Index,
}

/// One entry of the log.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Entry {
    /// The term in which a leader appended it.
    pub term: Term,
    /// Its place.
    pub index: Index,
    /// What it does.
    pub payload: Payload,
}

/// What an entry does when it is applied.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Payload {
    /// Nothing: what a new leader appends first (Raft paper, section 8).
    Noop,
    /// A command of the state machine above, opaque here.
    Command(Bytes),
    /// A configuration. It counts from the moment that it is appended (dissertation, 4.1).
    /// Boxed: entries are many and configurations few.
    Configuration(Box<Configuration>),
}

/// Who belongs to the cluster. Joint (`C_old,new`) while `outgoing` is not empty (Raft paper, section 6).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Configuration {
    /// The voters; while joint, those of `C_new`.
    pub voters: BTreeSet<MemberId>,
    /// While joint, the voters of `C_old`.
    pub outgoing: BTreeSet<MemberId>,
    /// Members that receive the log and do not vote. Disjoint from both sets of voters.
    pub learners: BTreeSet<MemberId>,
    /// How to reach each member; opaque to the protocol.
    pub addresses: BTreeMap<MemberId, Bytes>,
}

impl Entry {
    /// What an entry weighs beside its payload, in bytes: the limits hold for many small entries too.
    const OVERHEAD: usize = 32;

    /// Its name.
    pub fn id(&self) -> LogId {
        LogId { term: self.term, index: self.index }
    }

    /// What it counts for against limits in bytes: its payload, and a fixed overhead.
    pub fn weight(&self) -> usize {
        let payload = match &self.payload {
            Payload::Noop => 0,
            Payload::Command(command) => command.len(),
            Payload::Configuration(configuration) => {
                configuration.addresses.values().map(|address| address.len() + Self::OVERHEAD).sum()
            }
        };
        payload + Self::OVERHEAD
    }
}

impl Configuration {
    /// Whether this is `C_old,new`.
    pub fn is_joint(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Whether `id` votes, in either set.
    pub fn is_voter(&self, id: MemberId) -> bool {
        self.voters.contains(&id) || self.outgoing.contains(&id)
    }

    /// Whether `id` belongs to the cluster, and votes or not.
    pub fn is_member(&self, id: MemberId) -> bool {
        self.is_voter(id) || self.learners.contains(&id)
    }

    /// Whether `id` is the only voter.
    pub(crate) fn is_alone(&self, id: MemberId) -> bool {
        self.voters.len() == 1 && self.voters.contains(&id) && !self.is_joint()
    }

    /// All members, voters or not, each once, in order.
    pub fn members(&self) -> BTreeSet<MemberId> {
        self.all_voters().chain(self.learners.iter().copied()).collect()
    }

    /// The voters of both sets, each once.
    pub(crate) fn all_voters(&self) -> impl Iterator<Item = MemberId> {
        self.voters.union(&self.outgoing).copied()
    }
}
