//! What may go wrong at once.
//!
//! Raft stays safe whatever is lost for good, as long as nobody comes back without its memory: IDs are never used again here, as
//! with the real member. But it does not go on without a quorum, and then there would be nothing to see. So a disk may be lost
//! or damaged while in every configuration that may be in force a majority of each set of voters has its disk; all the rest (crashes
//! of all at once, any number of cuts, clocks, slow and failing disks) is legal at any time.

use std::collections::BTreeSet;

use quorate_raft::{Configuration, MemberId};

use crate::world::World;

impl World {
    /// Whether the disk of `id` may be lost now.
    pub(super) fn may_lose(&self, id: MemberId) -> bool {
        self.invariants.configurations().all(|c| self.survives(c, Some(id)))
    }

    /// Whether the configuration has a quorum with a disk; also without `more`.
    pub(super) fn survives(&self, configuration: &Configuration, more: Option<MemberId>) -> bool {
        let gone = |id: &MemberId| Some(*id) == more || self.is_gone(*id);
        let majority = |set: &BTreeSet<MemberId>| {
            let gone = set.iter().filter(|id| gone(id)).count();
            set.is_empty() || gone * 2 < set.len()
        };
        majority(&configuration.voters) && majority(&configuration.outgoing)
    }

    /// Whether a member is lost, or will be when it starts again.
    pub(super) fn is_gone(&self, id: MemberId) -> bool {
        self.hosts.get(&id).is_none_or(|host| host.lost || host.flipped)
    }
}
