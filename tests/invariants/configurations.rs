//! Every quorum of a configuration meets every quorum of the one after it (Raft paper, section 6).

use std::collections::{BTreeMap, BTreeSet};

use quorate_raft::{Configuration, Index, LogId, MemberId};

use super::committed::quorum;

#[derive(Debug, Default)]
pub(crate) struct Configurations {
    seen: BTreeMap<LogId, Configuration>,
}

impl Configurations {
    /// A new configuration came into a log whose configurations are `history`, itself the last.
    pub(crate) fn appended(
        &mut self,
        id: LogId,
        configuration: &Configuration,
        history: &[(LogId, Configuration)],
    ) {
        self.seen.insert(id, configuration.clone());
        let [.., (before, earlier), _] = history else { return };
        let meet = overlap(earlier, configuration);
        assert!(
            meet,
            "CONFIGURATIONS: quorums of {before:?} and {id:?} need not meet:\n  {earlier:?}\n  {configuration:?}"
        );
    }

    /// Those that are committed at or before `index`, in the order of the log.
    pub(crate) fn until(
        &self,
        index: Index,
        is_committed: impl Fn(LogId) -> bool,
    ) -> Vec<(LogId, Configuration)> {
        let seen = self.seen.iter().filter(|(id, _)| id.index <= index && is_committed(**id));
        let mut found: Vec<_> = seen.map(|(id, configuration)| (*id, configuration.clone())).collect();
        found.sort_by_key(|(id, _)| id.index);
        found
    }

    pub(crate) fn knows(&self, id: LogId) -> bool {
        self.seen.contains_key(&id)
    }

    /// The newest committed one, and all with a higher index.
    pub(crate) fn in_force(
        &self,
        committed: Index,
        is_committed: impl Fn(LogId) -> bool,
    ) -> impl Iterator<Item = &Configuration> {
        let newest = self.seen.keys().filter(|id| id.index <= committed && is_committed(**id));
        let newest = newest.max_by_key(|id| id.index).copied().unwrap_or_default();
        self.seen.iter().filter(move |(id, _)| **id == newest || id.index > newest.index).map(|(_, c)| c)
    }
}

/// Whether no two quorums are disjoint: tries every division of the members in two.
fn overlap(one: &Configuration, other: &Configuration) -> bool {
    let voters = [&one.voters, &one.outgoing, &other.voters, &other.outgoing];
    let all: Vec<MemberId> =
        voters.into_iter().flatten().copied().collect::<BTreeSet<_>>().into_iter().collect();
    (0u32..1 << all.len()).all(|half| {
        let inside = |id: &MemberId| all.iter().position(|m| m == id).is_some_and(|at| half >> at & 1 == 1);
        !(quorum(one, inside) && quorum(other, |id| !inside(id)))
    })
}
