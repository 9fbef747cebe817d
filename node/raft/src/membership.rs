//! Which configuration counts: derived from the log, and rolled back with it.

use crate::{Configuration, Entry, Index, LogId, MemberId, Payload};

/// The configurations in the log, in its order.
///
/// The newest one counts from the moment that it is appended, committed or not (Raft paper, section 6; failures 17, 20 and
/// 21). Cutting the log back brings the one before it back.
///
/// Invariants: as the log's; only the newest two can be uncommitted, as a leader starts no change before the last is committed.
#[derive(Debug)]
pub(crate) struct Membership {
    /// What counts while the log holds no configuration: nobody.
    empty: Configuration,
    history: Vec<(LogId, Configuration)>,
}

impl Membership {
    /// From the whole log.
    pub(crate) fn new(entries: &[Entry]) -> Self {
        let mut membership = Self { empty: Configuration::default(), history: Vec::new() };
        for entry in entries {
            membership.appended(entry);
        }
        membership
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

    /// Whether `id` may campaign: a voter in the configuration that counts or, until that is known to be committed, in the
    /// one before. A leader that has appended its own removal may have the only log that can win (dissertation, 4.2.2).
    pub(crate) fn may_campaign(&self, id: MemberId, commit: Index) -> bool {
        let newest_first = self.history.iter().rev();
        let uncommitted = newest_first.clone().take_while(|(at, _)| at.index > commit).count();
        newest_first.take(uncommitted + 1).any(|(_, configuration)| configuration.is_voter(id))
    }

    /// Whether `id` is the only voter.
    pub(crate) fn is_alone(&self, id: MemberId) -> bool {
        let current = self.current();
        current.voters.len() == 1 && current.voters.contains(&id) && !current.is_joint()
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
