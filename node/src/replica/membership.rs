//! Whether this node belongs to its cluster, as the configurations in its log tell.

use quorate_raft::{Configuration, Index, MemberId, Payload, Restored};

/// A node's standing in its cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// No configuration has named it yet.
    Outsider,
    /// The newest configuration names it, or one that removes it is not committed yet.
    Member,
    /// It was named once; the newest committed configuration, and none after it, does.
    Removed,
}

/// What the committed configurations have said of this node so far.
#[derive(Debug)]
pub(super) struct Membership {
    id: MemberId,
    /// A committed configuration has named it.
    was_named: bool,
    /// The newest committed configuration names it.
    is_named: bool,
    /// The entry that has removed it; 0 for none. What stands before it in the log says nothing any more, in a later life.
    removed: Index,
}

impl Membership {
    /// Of a node that is known to have been removed by entry `removed`, if that is not 0.
    pub(super) fn new(id: MemberId, removed: Index) -> Self {
        Membership { id, was_named: removed > 0, is_named: false, removed }
    }

    /// The log tells of configurations until entry `covered`.
    pub(super) fn told(&mut self, restored: &Restored, covered: Index) {
        let end = covered.min(restored.hard_state.commit);
        for entry in restored.entries.iter().filter(|entry| entry.index <= end) {
            if let Payload::Configuration(configuration) = &entry.payload {
                self.committed(entry.index, configuration);
            }
        }
    }

    /// The configuration in entry `index` is committed; they come in the order of the log.
    pub(super) fn committed(&mut self, index: Index, configuration: &Configuration) {
        if index < self.removed {
            return;
        }
        let was_named = std::mem::replace(&mut self.is_named, names(configuration, self.id));
        if was_named && !self.is_named {
            self.removed = index;
        }
        self.was_named |= self.is_named;
    }

    /// The entry that has removed it; 0 while it is a member, or never was one.
    pub(super) fn removed(&self) -> Index {
        if self.is_named || !self.was_named { 0 } else { self.removed }
    }

    /// The standing, with the newest configuration in the log, that of entry `index`, committed or not.
    pub(super) fn standing(&self, index: Index, newest: &Configuration) -> Standing {
        if self.is_named || (index > self.removed && names(newest, self.id)) {
            Standing::Member
        } else if self.was_named {
            Standing::Removed
        } else {
            Standing::Outsider
        }
    }
}

/// How much of the log is known to be committed on a node that was removed by entry `removed`, if that is not 0: at least that entry, if the
/// log holds it. Without that the node would campaign until it hears so again, and nobody tells one who was removed.
pub(super) fn known_commit(restored: &Restored, removed: Index) -> Index {
    let is_held = restored.entries.last().is_some_and(|last| last.index >= removed);
    restored.hard_state.commit.max(if is_held { removed } else { 0 })
}

fn names(configuration: &Configuration, id: MemberId) -> bool {
    configuration.voters.contains(&id)
        || configuration.outgoing.contains(&id)
        || configuration.learners.contains(&id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(voters: &[u64]) -> Configuration {
        Configuration { voters: voters.iter().map(|id| MemberId(*id)).collect(), ..Configuration::default() }
    }

    #[test]
    fn one_that_catches_up_is_not_removed() {
        let mut membership = Membership::new(MemberId(2), 0);
        membership.committed(1, &of(&[1]));
        assert_eq!(membership.standing(1, &of(&[1])), Standing::Outsider);
        assert_eq!(membership.standing(2, &of(&[1, 2])), Standing::Member);
    }

    /// Its log is behind a snapshot that does not name it, or ends with what came before: it heard of the rest and did not write it.
    #[test]
    fn one_that_was_removed_in_an_earlier_life_stays_removed() {
        let mut membership = Membership::new(MemberId(2), 7);
        assert_eq!(membership.standing(5, &of(&[1, 2])), Standing::Removed);
        membership.committed(5, &of(&[1, 2]));
        assert_eq!(membership.standing(7, &of(&[1])), Standing::Removed);
        assert_eq!(membership.removed(), 7);
        assert_eq!(membership.standing(9, &of(&[1, 2])), Standing::Member, "it was let in again");
        membership.committed(9, &of(&[1, 2]));
        assert_eq!(membership.removed(), 0);
    }

    #[test]
    fn a_removal_counts_when_it_is_committed() {
        let mut membership = Membership::new(MemberId(2), 0);
        membership.committed(1, &of(&[1, 2]));
        assert_eq!(membership.standing(2, &of(&[1])), Standing::Member);
        membership.committed(2, &of(&[1]));
        assert_eq!((membership.standing(2, &of(&[1])), membership.removed()), (Standing::Removed, 2));
        assert_eq!(membership.standing(3, &of(&[1, 2])), Standing::Member);
    }
}
