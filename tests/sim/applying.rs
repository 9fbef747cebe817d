//! The applier of a member, as the server's thread runs it: steps take time, clients have their answers at once, and the replica hears of
//! them later. On some members applying is far slower than the log, and sometimes it stands still for seconds.

use std::hash::{DefaultHasher, Hash, Hasher};

use prost::Message as _;
use quorate_node::kv::{KvError, Reply};
use quorate_node::replica::{Answer, Client, Outcome, Piece, Step, Work};
use quorate_raft::{Index, MemberId, Role, Term};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use crate::host::{ELECTION_TICKS, Host, Process, Stage, name};
use crate::invariants::Shown;
use crate::schedule::{Plan, logarithmic, stream};
use crate::time::{MICRO, MILLI, Time};
use crate::world::{Event, World};

/// An election timeout.
const ELECTION: Time = 20 * ELECTION_TICKS as Time * MILLI;

/// What applying costs, in a whole run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Applying {
    /// The most that a step takes in.
    pub(crate) piece: Piece,
    /// The most that a step takes on the slowest member.
    slowest: Time,
}

impl Applying {
    /// In every other run it costs next to nothing.
    pub(crate) fn draw(random: &mut ChaCha8Rng) -> Self {
        let costs = random.random_bool(0.5);
        let entries = if costs { logarithmic(random, 1, 64) } else { 256 };
        let slowest = if costs { logarithmic(random, 100 * MICRO, 100 * MILLI) } else { 20 * MICRO };
        // So few that a transaction is applied in several pieces.
        let steps = if costs { logarithmic(random, 1, 4096) } else { 4096 };
        Self { piece: Piece { entries: entries as usize, steps: steps as usize }, slowest }
    }
}

/// How fast a member applies.
#[derive(Debug)]
pub(crate) struct Pace {
    random: ChaCha8Rng,
    /// The most that a step takes.
    most: Time,
    /// So many times as much, until then.
    pub(crate) slower: (u64, Time),
    /// Nothing is applied until then.
    pub(crate) stalled_until: Time,
    /// What the member was when that began, and when it did.
    stalled_as: Option<(Role, Term, Time)>,
    /// Whether what compactions have left is removed after a step, in runs where that is not done after each.
    order: Option<ChaCha8Rng>,
}

impl Pace {
    pub(crate) fn new(plan: &Plan, id: MemberId) -> Self {
        let mut random = stream(plan.seed, "pace", id.0);
        let most = logarithmic(&mut random, MICRO, plan.applying.slowest);
        let order = plan.late.then(|| stream(plan.seed, "collects", id.0));
        Self { random, most, slower: (1, 0), stalled_until: 0, stalled_as: None, order }
    }

    /// The faults are over: from now on it keeps up with anything.
    pub(crate) fn heal(&mut self) {
        self.most = self.most.min(100 * MICRO);
        self.slower = (1, 0);
        self.stalled_until = 0;
    }

    /// What the next step takes, if it begins now.
    fn step(&mut self, now: Time) -> Time {
        let (times, until) = self.slower;
        let step = self.random.random_range(0..=self.most);
        if until > now { step * times } else { step }
    }
}

impl Host {
    /// Nothing is applied until then.
    pub(crate) fn stall_applying(&mut self, now: Time, until: Time) {
        self.pace.stalled_until = self.pace.stalled_until.max(until);
        if let Some((role, term)) = self.process().map(|process| process.shown) {
            self.pace.stalled_as = Some((role, term, now));
        }
    }
}

impl Process {
    /// The newest entry that the state holds.
    pub(crate) fn applied(&self) -> Index {
        self.applier.store().read().applied().index
    }
}

impl World {
    /// What the state of a member shows is compared with that of the others at the same entry.
    pub(crate) fn compare_state(&mut self, id: MemberId) {
        let host = &self.hosts[&id];
        let Some(process) = host.process() else { return };
        let store = process.applier.store().read();
        let summary = (!host.differs).then(|| {
            let mut hasher = DefaultHasher::new();
            store.summary().encode_to_vec().hash(&mut hasher);
            hasher.finish()
        });
        let size = (!host.differs && store.is_between_entries()).then(|| store.size_in_use());
        let shown = Shown { revision: store.revision(), summary, size };
        let applied = store.applied().index;
        drop(store);
        self.invariants.applied(id, applied, shown);
    }
}

impl World {
    /// The applier gets `work`, once the mark of a removal is stored, and goes on with what it has.
    pub(crate) fn use_applier(&mut self, id: MemberId, mut work: Vec<Work>) {
        let now = self.now();
        let Some(host) = self.hosts.get_mut(&id) else { return };
        let life = host.life;
        let Some(process) = host.process_mut() else { return };
        process.work.append(&mut work);
        if process.unstored.is_none() {
            process.applier.push(std::mem::take(&mut process.work));
        }
        if process.applies || !process.applier.is_busy() {
            return;
        }
        process.applies = true;
        let ends = now.max(host.pace.stalled_until) + host.pace.step(now);
        self.agenda.at(ends, Event::Apply(id, life));
    }

    /// A step of the applier is done.
    pub(crate) fn on_apply(&mut self, id: MemberId, life: u32) {
        let now = self.now();
        let Some(host) = self.hosts.get_mut(&id).filter(|host| host.life == life) else { return };
        if host.pace.stalled_until > now {
            return self.agenda.at(host.pace.stalled_until, Event::Apply(id, life));
        }
        let stalled = host.pace.stalled_as.take();
        let delay = host.pace.random.random_range(0..100 * MICRO);
        let order = &mut host.pace.order;
        let Stage::Up(process) = &mut host.stage else { return };
        if !process.applies {
            return;
        }
        process.applies = false;
        let Step { answers, applied, .. } = process.applier.step();
        let collects = order.as_mut().is_none_or(|order| order.random_bool(0.3));
        if collects {
            process.applier.collect();
        }
        let raised = applied.usage.is_full && !std::mem::replace(&mut process.full, applied.usage.is_full);
        let changes = applied.leases.clone();
        process.reports.push(applied);
        let (role, term) = process.shown;
        let is_late = process.replica.backlog().waited() >= ELECTION_TICKS.into();
        if !collects {
            self.coverage.count("steps of applying between which nothing was removed");
        }
        for change in changes {
            self.invariants.leases.changed(now, change);
        }
        self.compare_state(id);
        self.check_level(id);
        self.check_quota(id);
        if raised && self.plan.quota.is_some() && !self.plan.two_levels {
            self.coverage.count("alarms raised by the quota");
        }
        if is_late {
            self.coverage.count("entries applied late");
        }
        if stalled.is_some_and(|(r, t, since)| {
            r == Role::Leader && (r, t) == (role, term) && now - since > ELECTION
        }) {
            self.coverage.count("leaders that led on while applying stood still");
            self.say(|| format!("{} has led on in term {term} while nothing was applied", name(id)));
        }
        for (number, result) in answers {
            self.applied_for_client(id, number, result);
        }
        self.agenda.after(delay, Event::Applied(id, life));
        self.use_applier(id, Vec::new());
    }

    /// The replica hears of what was applied.
    pub(crate) fn on_applied(&mut self, id: MemberId, life: u32) {
        let Some(process) =
            self.hosts.get_mut(&id).filter(|host| host.life == life).and_then(|host| host.process_mut())
        else {
            return;
        };
        for applied in std::mem::take(&mut process.reports) {
            process.replica.applied(applied);
        }
        self.wake(id);
    }

    fn applied_for_client(&mut self, id: MemberId, number: u64, result: Result<Reply, KvError>) {
        let outcome = Outcome::Applied(result);
        self.answered(id, Answer { client: Client::default(), number, outcome });
    }
}
