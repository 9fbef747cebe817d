//! An applier that makes no step though entries wait for it: it waits for a lock, or a disk, that does not let go. Raft goes on without
//! it, so such a leader would lead on, refuse every request, and look well.
//!
//! It hands leadership over to a voter that applies. Members tell their leader whether they do, with what they support
//! ([`super::builds`]); where none does better, it leads on.

use std::collections::BTreeSet;

use quorate_raft::MemberId;

use super::Replica;

/// The other members that have said last that their appliers stand still. Who has fallen silent since is not handed anything anyway.
#[derive(Debug, Default)]
pub(super) struct Standstills {
    told: BTreeSet<MemberId>,
}

impl Standstills {
    /// A member says whether its applier stands still.
    pub(super) fn told(&mut self, from: MemberId, stands_still: bool) {
        if stands_still {
            self.told.insert(from);
        } else {
            self.told.remove(&from);
        }
    }

    /// Forgets those that are not members any more.
    pub(super) fn keep(&mut self, members: &BTreeSet<MemberId>) {
        self.told.retain(|id| members.contains(id));
    }

    pub(super) fn has(&self, id: MemberId) -> bool {
        self.told.contains(&id)
    }
}

impl Replica {
    /// Whether the applier has had work, and has made no step, for as long as a request may wait: by then none is answered any more.
    pub fn applier_stands_still(&self) -> bool {
        self.backlog.stood_still() >= self.request_ticks
    }
}
