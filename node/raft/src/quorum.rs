//! Majorities: of one set of voters, and of both while a configuration is joint (Raft paper, section 6).

use std::collections::{BTreeMap, BTreeSet};

use crate::{Configuration, MemberId};

/// How an election stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tally {
    /// A quorum said yes.
    Won,
    /// A quorum cannot be had any more.
    Lost,
    /// Not decided yet.
    Open,
}

/// The greatest value that a majority of `set` has reached; 0 for the empty set, which has no majority.
///
/// Quadratic in the number of voters, which is a handful: no allocation, no sorting.
fn majority(set: &BTreeSet<MemberId>, value: impl Fn(MemberId) -> u64) -> u64 {
    let needed = set.len() / 2 + 1;
    let reached_by = |v: u64| set.iter().filter(|id| value(**id) >= v).count();
    set.iter().map(|id| value(*id)).filter(|v| reached_by(*v) >= needed).max().unwrap_or(0)
}

impl Configuration {
    /// The greatest value that a quorum has reached: a majority, and while joint a majority of each set. Members that do
    /// not vote count for nothing, whoever they are.
    pub(crate) fn reached(&self, value: impl Fn(MemberId) -> u64) -> u64 {
        let incoming = majority(&self.voters, &value);
        if self.is_joint() { incoming.min(majority(&self.outgoing, &value)) } else { incoming }
    }

    /// Whether those for whom `holds` is true are a quorum.
    pub fn quorum(&self, holds: impl Fn(MemberId) -> bool) -> bool {
        self.reached(|id| u64::from(holds(id))) == 1
    }

    /// How an election with these votes stands.
    pub(crate) fn tally(&self, votes: &BTreeMap<MemberId, bool>) -> Tally {
        if self.quorum(|id| votes.get(&id) == Some(&true)) {
            Tally::Won
        } else if self.quorum(|id| votes.get(&id) != Some(&false)) {
            Tally::Open
        } else {
            Tally::Lost
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn set(ids: &[u64]) -> BTreeSet<MemberId> {
        ids.iter().copied().map(MemberId).collect()
    }

    #[test]
    fn no_voters_have_no_majority() {
        let nobody = Configuration::default();
        assert_eq!(nobody.reached(|_| 7), 0);
        assert!(!nobody.quorum(|_| true));
        assert_eq!(nobody.tally(&BTreeMap::new()), Tally::Lost);
    }

    #[test]
    fn while_joint_both_majorities_are_needed() {
        let joint =
            Configuration { voters: set(&[3, 4, 5]), outgoing: set(&[1, 2, 3]), ..Configuration::default() };
        assert!(!joint.quorum(|id| id.0 >= 3));
        assert!(!joint.quorum(|id| id.0 <= 3));
        assert!(joint.quorum(|id| (2..=4).contains(&id.0)));
        assert_eq!(joint.reached(|id| id.0), 2);
    }

    #[test]
    fn learners_count_for_nothing() {
        let c = Configuration { voters: set(&[1, 2, 3]), learners: set(&[4, 5]), ..Configuration::default() };
        assert!(!c.quorum(|id| id.0 >= 3));
    }

    proptest! {
        /// Failure 16: the scan never finds a value that fewer than a majority have reached, and never misses a greater one.
        #[test]
        fn a_majority_has_reached_what_is_found(values in prop::collection::vec(0u64..20, 1..10)) {
            let voters: BTreeSet<MemberId> = (0..values.len() as u64).map(MemberId).collect();
            let found = majority(&voters, |id| values[id.0 as usize]);
            let reached = |v: u64| values.iter().filter(|x| **x >= v).count() * 2 > values.len();
            prop_assert!(reached(found));
            prop_assert!(!reached(found + 1));
        }
    }
}
