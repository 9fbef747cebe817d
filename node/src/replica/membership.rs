//! Whether this node belongs to its cluster, as the configurations in its log tell.

use quorate_raft::{Configuration, MemberId};

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
}

impl Membership {
    /// Of a node that may be known to have been a member before.
    pub(super) fn new(id: MemberId, was_named: bool) -> Self {
        Membership { id, was_named, is_named: false }
    }

    /// A configuration is committed; they come in the order of the log.
    pub(super) fn committed(&mut self, configuration: &Configuration) {
        self.is_named = names(configuration, self.id);
        self.was_named |= self.is_named;
    }

    /// The standing, with the newest configuration in the log, committed or not.
    pub(super) fn standing(&self, newest: &Configuration) -> Standing {
        if self.is_named || names(newest, self.id) {
            Standing::Member
        } else if self.was_named {
            Standing::Removed
        } else {
            Standing::Outsider
        }
    }
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
        let mut membership = Membership::new(MemberId(2), false);
        membership.committed(&of(&[1]));
        assert_eq!(membership.standing(&of(&[1])), Standing::Outsider);
        assert_eq!(membership.standing(&of(&[1, 2])), Standing::Member);
    }

    /// Its log is behind a snapshot that does not name it.
    #[test]
    fn one_that_was_removed_in_an_earlier_life_stays_removed() {
        let mut membership = Membership::new(MemberId(2), true);
        membership.committed(&of(&[1]));
        assert_eq!(membership.standing(&of(&[1])), Standing::Removed);
        assert_eq!(membership.standing(&of(&[1, 2])), Standing::Member);
    }

    #[test]
    fn a_removal_counts_when_it_is_committed() {
        let mut membership = Membership::new(MemberId(2), false);
        membership.committed(&of(&[1, 2]));
        assert_eq!(membership.standing(&of(&[1])), Standing::Member);
        membership.committed(&of(&[1]));
        assert_eq!(membership.standing(&of(&[1])), Standing::Removed);
        assert_eq!(membership.standing(&of(&[1, 2])), Standing::Member);
    }
}
