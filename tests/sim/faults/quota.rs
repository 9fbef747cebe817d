//! The way out when the state has reached the quota: what a client does that finds NOSPACE.

use quorate_api::etcdserverpb::{AlarmMember, AlarmType};
use quorate_raft::MemberId;
use rand_chacha::ChaCha8Rng;

use crate::clients;
use crate::host::name;
use crate::world::World;

/// The largest quota of a member, in those of a run.
const LARGEST: u64 = 3;

/// So much may be under way when the leader changes.
const SLACK: u64 = 4096;

/// The quota of member `id` in a run whose members may have `quota`, about.
pub(crate) fn of(id: MemberId, quota: u64) -> u64 {
    quota * (1 + id.0 % LARGEST)
}

impl World {
    /// Whoever looks after the cluster compacts, and disarms the alarms that a member knows of.
    pub(super) fn make_room(&mut self, random: &mut ChaCha8Rng) -> Option<String> {
        let id = self.victim(random)?;
        self.make_room_through(id)
    }

    /// The state of a member stays below the largest quota, but for deletions, which are never refused, and what was under way when the
    /// leader changed. That counts once where the log decides, for then NOSPACE is raised; below that level each leader appends what waits for one.
    pub(crate) fn check_quota(&self, id: MemberId) {
        let (Some(quota), Some(process)) = (self.plan.quota, self.hosts[&id].process()) else { return };
        let size = process.applier.store().read().size_in_use();
        let changes = if self.plan.two_levels { process.shown.1 } else { 1 };
        let most = LARGEST * quota + SLACK * changes;
        assert!(size < most, "QUOTA: the state of {} takes {size} of {most} bytes", name(id));
    }

    /// The same through member `id`.
    pub(crate) fn make_room_through(&mut self, id: MemberId) -> Option<String> {
        let newest = self.invariants.newest_acknowledged();
        let process = self.hosts.get_mut(&id)?.process_mut()?;
        let raised = process.applier.store().read().alarms();
        let number = process.next_number;
        process.next_number += 1 + raised.len() as u64;
        process.compactions.insert(number);
        clients::compact(&mut process.replica, id, number, newest);
        for (AlarmMember { member_id, alarm }, number) in raised.into_iter().zip(number + 1..) {
            process.alarms.insert(number);
            let kind = AlarmType::try_from(alarm).unwrap_or_default();
            clients::alarm(&mut process.replica, id, number, (member_id, kind, false));
        }
        self.wake(id);
        Some(format!("at {}", name(id)))
    }
}
