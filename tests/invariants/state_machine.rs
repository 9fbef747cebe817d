//! State Machine Safety: no two members apply different entries at an index (Raft paper, figure 3), none applies what its own
//! disk lacks, and the state that comes of it is the same.

use std::collections::HashMap;

use quorate_raft::{Index, MemberId};

use super::member::Member;

#[derive(Debug, Default)]
pub(crate) struct StateMachineSafety {
    revisions: HashMap<Index, i64>,
}

impl StateMachineSafety {
    /// A member has applied everything up to `applied`. That these entries are committed is known already.
    pub(crate) fn applied(&mut self, id: MemberId, member: &Member, applied: Index, revision: i64) {
        assert!(
            (member.applied + 1..=applied).all(|index| member.has_durably(index)),
            "STATE MACHINE SAFETY: {id} has applied entries up to {applied} that are not on its disk"
        );
        let known = *self.revisions.entry(applied).or_insert(revision);
        assert_eq!(known, revision, "STATE MACHINE SAFETY: the states after entry {applied} differ, at {id}");
    }
}
