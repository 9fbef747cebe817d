//! State Machine Safety: no two members apply different entries at an index (Raft paper, figure 3), none applies what its own
//! disk lacks, and the state that comes of it is the same: its revision, its accounted size, and
//! all that it is beside its versions.

use std::collections::HashMap;

use quorate_raft::{Index, MemberId};

use super::member::Member;

/// What a state shows of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shown {
    pub(crate) revision: i64,
    /// A fingerprint of what it is beside its versions; none of a state that has come to differ by a fault.
    pub(crate) summary: Option<u64>,
    /// The accounted size; none of such a state, and while the next entry is applied in part.
    pub(crate) size: Option<u64>,
}

#[derive(Debug, Default)]
pub(crate) struct StateMachineSafety {
    states: HashMap<Index, Shown>,
}

impl StateMachineSafety {
    /// A member has applied everything up to `applied`. That these entries are committed is known already.
    pub(crate) fn applied(&mut self, id: MemberId, member: &Member, applied: Index, shown: Shown) {
        assert!(
            (member.applied + 1..=applied).all(|index| member.has_durably(index)),
            "STATE MACHINE SAFETY: {id} has applied entries up to {applied} that are not on its disk"
        );
        let known = self.states.entry(applied).or_insert(shown);
        let agree = |one: Option<u64>, other: Option<u64>| one == other || one.is_none() || other.is_none();
        let same = known.revision == shown.revision
            && agree(known.summary, shown.summary)
            && agree(known.size, shown.size);
        assert!(
            same,
            "STATE MACHINE SAFETY: the states after entry {applied} differ, at {id}: {shown:?}, elsewhere {known:?}"
        );
        known.summary = known.summary.or(shown.summary);
        known.size = known.size.or(shown.size);
    }
}
