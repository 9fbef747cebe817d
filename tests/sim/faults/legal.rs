//! What may go wrong at once.
//!
//! Raft stays safe whatever is lost for good, as long as nobody comes back without its memory: IDs are never used again here, as
//! with the real member. But it does not go on without a quorum, and then there would be nothing to see. So a disk may be lost
//! or damaged while in every configuration that may be in force a majority of each set of voters has its disk, and a state on it that is that of the
//! log: a member whose state differs gives it to nobody, so that what the log has given up for it may be gone as well. All the rest (crashes
//! of all at once, any number of cuts, clocks, slow and failing disks) is legal at any time.
//!
//! A disk that goes back in time is legal while nobody depends on what it forgets: its member has entered no term and cast no vote since,
//! all of its log is durable at a quorum of others, and it counts votes by a configuration that may be in force: one that was the only voter once would
//! elect itself before it hears of anybody. Otherwise safety rests on who is heard first by it: somebody who remembers, or
//! a candidate that lacks what only this member and one that is silent had acknowledged. No protocol survives that. What is asked here of a legal
//! one is that the member finds out as soon as the same leader is heard, is repaired, and that all comes to rest.

use std::collections::BTreeSet;

use quorate_raft::{Configuration, MemberId};

use crate::host::Process;
use crate::invariants::Past;
use crate::world::World;

impl World {
    /// Whether the disk of `id` may be lost now.
    pub(super) fn may_lose(&self, id: MemberId) -> bool {
        self.invariants.configurations().all(|c| self.survives(c, Some(id)))
    }

    /// Whether the disk of `id` may go back to what it was at some time.
    pub(super) fn may_go_back(&self, id: MemberId, past: &Past) -> bool {
        let host = &self.hosts[&id];
        let may = |process: &Process| {
            process.identity.removed == 0 && process.unstored.is_none() && !process.repairing
        };
        host.process().is_some_and(may)
            && !host.flipped
            && !host.lost
            && self.invariants.can_forget(id, past, |other| self.is_gone(other) || self.may_owe(other))
    }

    /// Whether the configuration has a quorum with a disk; also without `more`.
    pub(super) fn survives(&self, configuration: &Configuration, more: Option<MemberId>) -> bool {
        let differs = |id: &MemberId| self.hosts.get(id).is_some_and(|host| host.differs);
        let gone = |id: &MemberId| Some(*id) == more || self.is_gone(*id) || self.may_owe(*id) || differs(id);
        let majority = |set: &BTreeSet<MemberId>| {
            let gone = set.iter().filter(|id| gone(id)).count();
            set.is_empty() || gone * 2 < set.len()
        };
        majority(&configuration.voters) && majority(&configuration.outgoing)
    }

    /// Whether a member may owe what it has forgotten: then it has no vote for a while. So may one of which a copy runs: if that is heard first, it is
    /// the member that is taken for having gone back. And one of which another process remembers more than it accounts for: it will be told once more.
    fn may_owe(&self, id: MemberId) -> bool {
        let is_copied = || self.hosts.values().any(|host| host.copy_of == Some(id) && !host.lost);
        self.hosts.get(&id).is_some_and(|host| host.debt.is_some()) || is_copied() || self.is_to_be_told(id)
    }

    /// Whether a member is lost, or will be when it starts again.
    pub(super) fn is_gone(&self, id: MemberId) -> bool {
        self.hosts.get(&id).is_none_or(|host| host.lost || host.flipped)
    }
}
