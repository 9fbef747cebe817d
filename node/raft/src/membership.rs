//! Which configuration counts: derived from the log, and rolled back with it.

use crate::{Configuration, Entry, Index, LogId, MemberId, Payload, Snapshot};

/// The configurations in the log, in its order; before them, the one that a compacted log began with.
///
/// The newest one counts from the moment that it is appended, committed or not (Raft paper, section 6; failures 17, 20 and
/// 21). Cutting the log back brings the one before it back.
///
/// Invariants: as the log's; only the newest two can be uncommitted, as a leader starts no change before the last is committed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Membership {
    /// What counts while the log holds no configuration: nobody.
    empty: Configuration,
    history: Vec<(LogId, Configuration)>,
}

impl Membership {
    /// From a snapshot, if there is one, and the entries that follow it.
    pub(crate) fn new(snapshot: Option<&Snapshot>, entries: &[Entry]) -> Self {
        let first = snapshot.map(|snapshot| (snapshot.configuration_id, snapshot.configuration.clone()));
        let mut membership = Self { empty: Configuration::default(), history: first.into_iter().collect() };
        for entry in entries {
            membership.appended(entry);
        }
        membership
    }

    /// The one that counted at `index`, if it is still known.
    pub(crate) fn at(&self, index: Index) -> Option<&(LogId, Configuration)> {
        self.history.iter().rfind(|(id, _)| id.index <= index)
    }

    /// The log was compacted up to `index`: of the configurations until there only the newest is needed.
    pub(crate) fn compacted(&mut self, index: Index) {
        let older = self.history.iter().filter(|(id, _)| id.index <= index).count().saturating_sub(1);
        self.history.drain(..older);
    }

    /// The configuration that counts.
    pub(crate) fn current(&self) -> &Configuration {
        self.history.last().map_or(&self.empty, |(_, configuration)| configuration)
    }

    /// Where it stands in the log: its ID.
    pub(crate) fn id(&self) -> LogId {
        self.history.last().map_or_else(LogId::default, |(id, _)| *id)
    }

    /// Whether the configuration that counts is committed.
    pub(crate) fn is_committed(&self, commit: Index) -> bool {
        self.id().index <= commit
    }

    /// Those that may count: the newest one and, until that is known to be committed, the one before.
    fn may_count(&self, commit: Index) -> impl Iterator<Item = &Configuration> {
        let newest_first = self.history.iter().rev();
        let uncommitted = newest_first.clone().take_while(|(at, _)| at.index > commit).count();
        newest_first.take(uncommitted + 1).map(|(_, configuration)| configuration)
    }

    /// Whether `id` may have a vote. A leader that has appended its own removal may have the only log that can win
    /// (dissertation, 4.2.2).
    pub(crate) fn may_vote(&self, id: MemberId, commit: Index) -> bool {
        self.may_count(commit).any(|configuration| configuration.is_voter(id))
    }

    /// Whether `id` may belong to the cluster.
    pub(crate) fn may_belong(&self, id: MemberId, commit: Index) -> bool {
        self.may_count(commit).any(|configuration| configuration.is_member(id))
    }

    /// An entry was appended.
    pub(crate) fn appended(&mut self, entry: &Entry) {
        if let Payload::Configuration(configuration) = &entry.payload {
            self.history.push((entry.id(), (**configuration).clone()));
        }
    }

    /// The log was cut back to before `from`.
    pub(crate) fn truncated(&mut self, from: Index) {
        while self.history.pop_if(|(id, _)| id.index >= from).is_some() {}
    }
}
