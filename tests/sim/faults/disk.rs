//! What goes wrong with disks.

use quorate_raft::MemberId;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::Kind;
use crate::disk::{Crash, Failure};
use crate::host::name;
use crate::removal::Trouble;
use crate::schedule::logarithmic;
use crate::time::{MILLI, SECOND};
use crate::world::{Event, World};

impl World {
    pub(super) fn disturb_disk(&mut self, kind: Kind, random: &mut ChaCha8Rng) -> Option<String> {
        let id = self.victim(random)?;
        let lasts = logarithmic(random, 20 * MILLI, 10 * SECOND);
        let until = self.now() + lasts;
        let (segment, disk) = (self.plan.segment_bytes, &self.hosts[&id].disk);
        match kind {
            Kind::SlowDisk => {
                let slower = logarithmic(random, 2, 200);
                disk.latency(|latency| (latency.slower, latency.slower_until) = (slower, until));
            }
            Kind::StallDisk => disk.latency(|latency| latency.stalled_until = until),
            Kind::FillDisk => disk.fill(random.random_range(0..2 * segment), until),
            Kind::TakeDescriptors => disk.take_descriptors(until),
            Kind::FailWrite => disk.fail_next(Failure::Write),
            _ => disk.fail_next(Failure::Sync),
        }
        Some(format!("{} for {} ms", name(id), lasts / MILLI))
    }

    /// Whoever stores a removal next does not get through with it: the moment is short, and would hardly be met by chance.
    pub(super) fn disturb_mark(&mut self, kind: Kind, random: &mut ChaCha8Rng) -> String {
        let trouble = match kind {
            Kind::KillMarking => Trouble::Kill,
            _ if random.random_bool(0.3) => Trouble::Full,
            _ if random.random() => Trouble::Fail(Failure::Write),
            _ => Trouble::Fail(Failure::Sync),
        };
        self.mark_trouble = Some(trouble);
        format!("the next one, {trouble:?}")
    }

    /// A bit of what is durable turns over. Such a member may refuse its disk, and be lost: so that must be legal.
    pub(super) fn flip_bit(&mut self, random: &mut ChaCha8Rng) -> Option<String> {
        let id = self.victim(random).filter(|id| self.may_lose(*id))?;
        let host = self.hosts.get_mut(&id)?;
        let place = host.disk.flip(random)?;
        host.flipped = true;
        if random.random_bool(0.8) {
            self.crash(id, if random.random() { Crash::Killed } else { Crash::PowerCut });
            self.agenda.after(logarithmic(random, 5 * MILLI, 3 * SECOND), Event::Start(id));
        }
        Some(format!("{}, {place}", name(id)))
    }

    /// A disk is copied: later it may go back to that. A snapshot of a volume is such a copy.
    pub(super) fn copy_disk(&mut self, random: &mut ChaCha8Rng) -> Option<String> {
        let id = self.victim(random)?;
        let after = logarithmic(random, 100 * MILLI, 10 * SECOND);
        let past = self.invariants.copied(id);
        let host = self.hosts.get_mut(&id).filter(|host| host.backup.is_none() && !host.flipped)?;
        let identity = &host.process()?.identity;
        if identity.cluster == 0 || identity.removed != 0 {
            return None;
        }
        host.backup = Some((host.disk.copy()?, past));
        self.agenda.after(after, Event::PutBack(id));
        Some(format!("{}, after {} ms", name(id), after / MILLI))
    }

    /// The machine of `id` loses its power, and comes back with what was copied of its disk.
    pub(crate) fn put_back(&mut self, id: MemberId) {
        let Some((copied, past)) = self.hosts.get_mut(&id).and_then(|host| host.backup.take()) else {
            return;
        };
        if !self.may_go_back(id, &past) {
            return self.coverage.count("disks that were not put back: somebody depends on what came since");
        }
        self.crash(id, Crash::PowerCut);
        let host = self.hosts.get_mut(&id).expect("it may go back");
        host.disk.put_back(copied);
        host.went_back = true;
        host.debt = Some(self.invariants.put_back(id, past));
        self.coverage.count("disks that went back in time");
        self.say(|| format!("the disk of {} goes back in time", name(id)));
        self.agenda.after(5 * MILLI, Event::Start(id));
    }

    /// A disk goes with all that is on it. Its member never comes back: another one may be added in its place.
    pub(super) fn lose_disk(&mut self, random: &mut ChaCha8Rng) -> Option<String> {
        let id = self.victim(random).filter(|id| self.may_lose(*id))?;
        self.crash(id, Crash::PowerCut);
        self.lose(id);
        Some(name(id))
    }
}
