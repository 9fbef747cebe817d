//! A copy of a member's disk that is started beside the member, and a term that cannot be: what the rules on who is heard are for.
//!
//! A copy is legal while the configurations that may be in force have a quorum without its member: that one may be taken for having forgotten
//! something, where the copy was heard first. Whoever only hears the copy cannot tell; there people stop it (see [`crate::streams`]).

use quorate_node::replica::Message;
use quorate_raft::{self as raft, Body, MemberId};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use crate::host::{Host, Process, name};
use crate::schedule::logarithmic;
use crate::time::{MILLI, SECOND};
use crate::world::{Event, World};

/// The hosts of copies are numbered from here on: no member's is.
const COPIES: u64 = 2000;

/// The term of a defect.
const FAR: u64 = 1 << 40;

impl World {
    /// The disk of a member is copied: now, or later, the copy is started beside it.
    pub(super) fn copy_beside(&mut self, random: &mut ChaCha8Rng) -> Option<String> {
        let id = self.victim(random)?;
        let after = if random.random() { 0 } else { logarithmic(random, 100 * MILLI, 10 * SECOND) };
        let past = self.invariants.copied(id);
        let is_whole = |host: &&Host| !host.flipped && host.debt.is_none();
        let host = self.hosts.get(&id).filter(|host| is_whole(host) && self.copied.is_none())?;
        let Process { identity, repairing, .. } = host.process()?;
        if identity.cluster == 0 || identity.removed != 0 || *repairing {
            return None;
        }
        self.copied = Some((host.disk.copy()?, past));
        self.agenda.after(after, Event::StartCopy(id));
        Some(format!("{}, after {} ms", name(id), after / MILLI))
    }

    /// A process is started on the copy of a member's disk.
    pub(crate) fn start_copy(&mut self, of: MemberId) {
        let Some((copied, past)) = self.copied.take() else { return };
        let original = &self.hosts[&of];
        let runs = self.hosts.values().any(|host| host.copy_of.is_some() && !host.lost);
        let whole = !original.lost && !original.flipped && original.debt.is_none();
        let survives = self.invariants.configurations().all(|c| self.survives(c, Some(of)));
        if self.calm || runs || !whole || !self.is_up(of) || !survives || !self.invariants.may_count_by(&past)
        {
            return self.coverage.count("copies of members that were not started");
        }
        let (levels, corrupt, differs) = (original.levels, original.corrupt, original.differs);
        let number = self.hosts.values().filter(|host| host.copy_of.is_some()).count() as u64;
        let id = MemberId(COPIES + number);
        let host =
            Host { copy_of: Some(of), levels, corrupt, differs, engine: None, ..Host::new(&self.plan, id) };
        host.disk.put_back(copied);
        self.hosts.insert(id, host);
        self.invariants.copied_as(of, id, past);
        self.coverage.count("copies of members started beside them");
        self.say(|| format!("{} is started on a copy of the disk of {}", name(id), name(of)));
        self.agenda.after(0, Event::Start(id));
    }

    /// A member speaks of a term that cannot be, by a defect.
    pub(super) fn speak_of_the_future(&mut self, random: &mut ChaCha8Rng) -> Option<String> {
        let (from, to) = (self.victim(random)?, self.victim(random)?);
        if from == to || !self.is_up(from) {
            return None;
        }
        let term = FAR + random.random_range(0..FAR);
        let message = Message::Raft(raft::Message { from, to, term, body: Body::TimeoutNow });
        self.deliver_at(self.now() + self.plan.latency, from, message);
        Some(format!("{} to {}: {term}", name(from), name(to)))
    }

    /// People stop all copies of members.
    pub(crate) fn stop_copies(&mut self) {
        self.copied = None;
        let copies: Vec<MemberId> = self
            .hosts
            .values()
            .filter(|host| host.copy_of.is_some() && !host.lost)
            .map(|host| host.id)
            .collect();
        for id in copies {
            self.stop_copy(id);
        }
    }
}
