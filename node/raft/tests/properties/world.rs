//! A small cluster on a network, disks and processes that fail at random, from one seed.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use quorate_raft::{
    Config, Configuration, Entry, HardState, Index, Lease, MemberId, Message, Output, Payload, Raft,
    Restored, Role,
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::harness::Host;
use crate::invariants::Seen;

/// What may happen, and how often.
pub(crate) struct Plan {
    pub(crate) steps: u32,
    /// How likely a step is to end a process.
    pub(crate) crashes: f64,
    /// How likely a step is to ask for a change of membership.
    pub(crate) changes: f64,
    /// The highest priority that a member may have.
    pub(crate) priorities: u32,
    /// Whether leaders answer reads by lease, and ticks come from clocks that keep what that asks.
    pub(crate) leases: bool,
    /// Begin with one member instead of three.
    pub(crate) founding: bool,
    pub(crate) damage: Damage,
}

/// Whether a disk may lose a part of the log that was durable while its process is down, and how likely.
#[derive(Clone, Copy)]
pub(crate) enum Damage {
    None,
    /// As long as the members that are whole can form every quorum: then the cluster stays alive as well.
    OfAMinority(f64),
    OfAnyNumber(f64),
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            steps: 1500,
            crashes: 0.0,
            changes: 0.0,
            priorities: 0,
            leases: false,
            founding: false,
            damage: Damage::None,
        }
    }
}

/// How often what happens, drawn anew for each history: some are stormy, some are slow, some are nearly calm.
#[derive(Debug)]
struct Weather {
    /// Of each kind of event, in the order of [`EVENTS`].
    weights: [u32; EVENTS.len()],
    lost: f64,
    doubled: f64,
    reordered: f64,
    /// How often what was put in is left to come out later, with more.
    unsettled: f64,
}

#[derive(Clone, Copy)]
enum Event {
    Deliver,
    Persist,
    Tick,
    Propose,
    Read,
    Transfer,
    Disconnected,
    Compact,
    Fetch,
    CutLinks,
    MendLinks,
}

/// What may happen, with the least and the greatest weight that it may have.
const EVENTS: [(Event, u32, u32); 11] = [
    (Event::Deliver, 20, 70),
    (Event::Persist, 5, 25),
    (Event::Tick, 5, 30),
    (Event::Propose, 1, 12),
    (Event::Read, 1, 10),
    (Event::Transfer, 0, 2),
    (Event::Disconnected, 0, 2),
    (Event::Compact, 0, 4),
    (Event::Fetch, 1, 4),
    (Event::CutLinks, 0, 3),
    (Event::MendLinks, 1, 8),
];

impl Weather {
    /// With leases much has to happen in little time: a leader is deposed, another elected and something committed.
    fn draw(random: &mut ChaCha8Rng, haste: u32) -> Self {
        let weight = |event, least, most| match event {
            Event::Deliver | Event::Persist | Event::Read => (least * haste, most * haste),
            _ => (least, most),
        };
        Self {
            weights: EVENTS.map(|(event, least, most)| {
                let (least, most) = weight(event, least, most);
                random.random_range(least..=most)
            }),
            lost: random.random_range(0.0..0.15),
            doubled: random.random_range(0.0..0.1),
            reordered: random.random_range(0.0..0.5),
            unsettled: random.random_range(0.0..0.3),
        }
    }

    fn event(&self, random: &mut ChaCha8Rng) -> Event {
        let mut at = random.random_range(0..self.weights.iter().sum());
        for (weight, (event, ..)) in self.weights.iter().zip(EVENTS) {
            if at < *weight {
                return event;
            }
            at -= weight;
        }
        Event::Deliver
    }
}

/// What histories went through: shows that they are not empty.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    leaders: u64,
    committed: u64,
    reads: u64,
    reads_at_once: u64,
    reads_in_vain: u64,
    changes: u64,
    transfers: u64,
    crashes: u64,
    damages: u64,
    repairs: u64,
    deadlocks: u64,
    compactions: u64,
    installs: u64,
    installs_failed: u64,
    installs_cut: u64,
}

impl Tally {
    pub(crate) fn add(&mut self, other: &Self) {
        self.leaders += other.leaders;
        self.committed += other.committed;
        self.reads += other.reads;
        self.reads_at_once += other.reads_at_once;
        self.reads_in_vain += other.reads_in_vain;
        self.changes += other.changes;
        self.transfers += other.transfers;
        self.crashes += other.crashes;
        self.damages += other.damages;
        self.repairs += other.repairs;
        self.deadlocks += other.deadlocks;
        self.compactions += other.compactions;
        self.installs += other.installs;
        self.installs_failed += other.installs_failed;
        self.installs_cut += other.installs_cut;
    }
}

pub(crate) struct World {
    hosts: BTreeMap<MemberId, Host>,
    /// Reads under way: what was committed anywhere when they began.
    reads: BTreeMap<(MemberId, u64), Index>,
    network: Vec<Message>,
    /// Directed links that carry nothing.
    cut: BTreeSet<(MemberId, MemberId)>,
    seen: Seen,
    random: ChaCha8Rng,
    weather: Weather,
    proposals: u64,
    crashes: f64,
    changes: f64,
    damage: Damage,
    clocks: Option<Clocks>,
    /// The read that has just been asked for.
    asked: Option<(MemberId, u64)>,
    pub(crate) tally: Tally,
}

const HOSTS: u64 = 5;

/// What is nominally a tick.
const TICK: u64 = 1000;

/// The slowest clock counts four ticks of a lease before the fastest has counted five, of an election timeout of six.
const LEASE: Lease = Lease { ticks: 4 };
const PERIODS: std::ops::RangeInclusive<u64> = 900..=1100;

/// Clocks that tick at different speeds: of each member the period, and when the next tick is due.
struct Clocks {
    now: u64,
    of: BTreeMap<MemberId, (u64, u64)>,
}

impl Clocks {
    fn draw(random: &mut ChaCha8Rng) -> Self {
        let mut clock = || {
            let period = random.random_range(PERIODS);
            (period, random.random_range(1..=period))
        };
        Self { now: 0, of: (1..=HOSTS).map(|id| (MemberId(id), clock())).collect() }
    }

    /// The next tick until `end`: whose it is.
    fn next(&mut self, end: u64) -> Option<MemberId> {
        let (id, (period, due)) = self.of.iter_mut().min_by_key(|(_, (_, due))| *due)?;
        if *due > end {
            self.now = end;
            return None;
        }
        *due += *period;
        Some(*id)
    }
}

impl World {
    pub(crate) fn new(seed: u64, plan: &Plan) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let first =
            if plan.founding { Raft::founding(MemberId(1), address(MemberId(1))) } else { three_members() };
        let initial = if plan.founding { 1 } else { 3 };
        let mut hosts = BTreeMap::new();
        for id in (1..=HOSTS).map(MemberId) {
            let config = Config {
                id,
                election_ticks: 6,
                start_ticks: 3,
                heartbeat_ticks: 2,
                disk_ticks: 12,
                lease: (plan.leases && random.random_bool(0.9)).then_some(LEASE),
                promised: plan.leases,
                priority: random.random_range(0..=plan.priorities),
                max_append_bytes: random.random_range(40..400),
                max_inflight_bytes: random.random_range(100..1000),
                seed: random.random_range(0..=u64::MAX),
            };
            let disk = if id.0 <= initial { first.clone() } else { Restored::default() };
            hosts.insert(id, Host::new(config, disk));
        }
        let mut history = Seen::default();
        history.founded(&first.entries);
        Self {
            hosts,
            reads: BTreeMap::new(),
            network: Vec::new(),
            cut: BTreeSet::new(),
            seen: history,
            weather: Weather::draw(&mut random, if plan.leases { 4 } else { 1 }),
            clocks: plan.leases.then(|| Clocks::draw(&mut random)),
            asked: None,
            random,
            proposals: 0,
            crashes: plan.crashes,
            changes: plan.changes,
            damage: plan.damage,
            tally: Tally::default(),
        }
    }

    /// Something happens somewhere.
    pub(crate) fn step(&mut self) {
        self.asked = None;
        let id = self.any_host();
        if !self.hosts[&id].is_up() {
            if self.chance(0.2) {
                self.host(id).start();
                self.settle(id);
            }
            return;
        }
        if self.chance(self.crashes) {
            return self.crash(id);
        }
        if self.chance(self.changes) {
            return self.change();
        }
        match self.weather.event(&mut self.random) {
            Event::Deliver => return self.deliver(),
            Event::Persist => self.persist(id),
            Event::Tick if self.clocks.is_some() => {
                let time = self.random.random_range(1..TICK / 2);
                return self.pass(time);
            }
            Event::Tick => (0..self.random.random_range(1..4)).for_each(|_| self.host(id).raft().tick()),
            Event::Propose => self.propose(id),
            Event::Read if self.clocks.is_some() => {
                for id in self.leaders() {
                    self.read(id);
                    self.settle(id);
                }
            }
            Event::Read => self.read(id),
            Event::Transfer => self.transfer(id),
            Event::Disconnected => {
                let peer = self.any_host();
                self.host(id).raft().disconnected(peer);
            }
            Event::Compact => self.compact(id),
            Event::Fetch => self.fetch(id),
            Event::CutLinks => return self.cut_links(),
            Event::MendLinks => return self.mend_links(),
        }
        self.settle(id);
    }

    /// All faults end: a leader is elected, everyone in the configuration has all that is committed, and no change or read
    /// is left hanging.
    pub(crate) fn heal(&mut self) {
        self.cut.clear();
        self.crashes = 0.0;
        for host in self.hosts.values_mut().filter(|host| !host.is_up()) {
            host.start();
        }
        let goal = self.proposals + 1;
        for round in 0..400 {
            self.calm_round();
            if round >= 60 && round % 20 == 0 {
                self.propose_everywhere();
            }
            if round >= 60 && self.is_well(goal) {
                return;
            }
        }
        if !self.are_quorums_whole(None) {
            // Elections are over for good, and so is repair: nothing is lost, but a person has to decide.
            self.tally.deadlocks += 1;
            return;
        }
        let states: Vec<_> = self.hosts.values_mut().map(|host| host.raft().status()).collect();
        panic!("no progress after the faults ended: {states:#?}, reads {:?}", self.reads);
    }

    fn calm_round(&mut self) {
        if self.clocks.is_some() {
            self.pass(TICK);
        }
        for id in self.ids() {
            if self.clocks.is_none() {
                self.host(id).raft().tick();
            }
            self.settle(id);
            self.fetch(id);
            self.settle(id);
        }
        for _ in 0..20 {
            for id in self.ids() {
                let count = self.hosts[&id].writing.len();
                self.host(id).persist(count);
                self.settle(id);
            }
            for message in std::mem::take(&mut self.network) {
                let to = message.to;
                self.host(to).raft().step(message);
                self.settle(to);
            }
        }
    }

    fn propose_everywhere(&mut self) {
        for id in self.ids() {
            self.propose(id);
            self.settle(id);
        }
    }

    fn is_well(&mut self, goal: u64) -> bool {
        let wanted = command(goal);
        let done = self
            .seen
            .committed
            .iter()
            .any(|entry| matches!(&entry.payload, Payload::Command(c) if *c >= wanted));
        let Some(leader) =
            self.hosts.values_mut().map(|h| h.raft().status()).find(|s| s.role == Role::Leader)
        else {
            return false;
        };
        let commit = self.seen.committed.len() as u64;
        let is_voter = |id: &MemberId| leader.configuration.voters.contains(id);
        let preferred =
            self.hosts.keys().filter(|id| is_voter(id)).map(|id| self.hosts[id].config.priority).max();
        let has_all = |id| self.hosts[&id].applied == commit && self.hosts[&id].disk.lost.is_none();
        let everywhere = leader.configuration.members().into_iter().all(has_all);
        done && everywhere
            && !leader.configuration.is_joint()
            && self.reads.is_empty()
            && preferred == Some(self.hosts[&leader.id].config.priority)
    }

    /// Time passes, on every clock at its speed.
    fn pass(&mut self, time: u64) {
        let end = self.clocks.as_ref().map_or(0, |clocks| clocks.now + time);
        while let Some(id) = self.clocks.as_mut().and_then(|clocks| clocks.next(end)) {
            if self.hosts[&id].is_up() {
                self.host(id).raft().tick();
                self.settle(id);
            }
        }
    }

    fn deliver(&mut self) {
        if self.network.is_empty() {
            return;
        }
        let at = if self.chance(self.weather.reordered) {
            self.random.random_range(0..self.network.len())
        } else {
            0
        };
        let message = self.network.remove(at);
        let lost = self.chance(self.weather.lost) || self.cut.contains(&(message.from, message.to));
        if self.chance(self.weather.doubled) {
            self.network.push(message.clone());
        }
        let to = message.to;
        if !lost && self.hosts[&to].is_up() {
            self.host(to).raft().step(message);
            self.settle(to);
        }
    }

    fn persist(&mut self, id: MemberId) {
        let count = self.hosts[&id].writing.len();
        if count > 0 {
            let count = self.random.random_range(1..=count);
            self.host(id).persist(count);
        }
    }

    fn crash(&mut self, id: MemberId) {
        let surviving = self.random.random_range(0..=self.hosts[&id].writing.len());
        self.tally.installs_cut += u64::from(self.hosts[&id].fetched.is_some());
        self.host(id).crash(surviving);
        self.reads.retain(|(reader, _), _| *reader != id);
        self.tally.crashes += 1;
        let is_damaged = match self.damage {
            Damage::None => false,
            Damage::OfAMinority(likely) => self.are_quorums_whole(Some(id)) && self.chance(likely),
            Damage::OfAnyNumber(likely) => self.chance(likely),
        };
        if is_damaged {
            let keep = self.random.random_range(0..=self.hosts[&id].durable());
            self.host(id).damage(keep);
            self.tally.damages += u64::from(self.hosts[&id].disk.lost.is_some());
        }
    }

    /// Whether the members whose disks are whole, and are not `except`, can form the quorums of each configuration that
    /// somebody may go by, and of each that was ever committed.
    fn are_quorums_whole(&self, except: Option<MemberId>) -> bool {
        let is_whole = |id: &MemberId| Some(*id) != except && self.hosts[id].disk.lost.is_none();
        let is_majority = |set: &BTreeSet<MemberId>| {
            set.is_empty() || set.iter().filter(|id| is_whole(id)).count() * 2 > set.len()
        };
        let in_logs = self.hosts.values().flat_map(|host| host.log.iter().chain(&host.disk.entries));
        let mut of_entries =
            self.seen.committed.iter().chain(in_logs).filter_map(|entry| match &entry.payload {
                Payload::Configuration(configuration) => Some(&**configuration),
                Payload::Noop | Payload::Command(_) => None,
            });
        of_entries.all(|c| is_majority(&c.voters) && is_majority(&c.outgoing))
    }

    /// The state as it is becomes a snapshot. Of the log some is kept, or all that is kept already.
    fn compact(&mut self, id: MemberId) {
        let applied = self.hosts[&id].applied;
        let keep_after = self.random.random_range(0..=applied);
        if let Some(snapshot) = self.host(id).compact(applied, keep_after) {
            self.seen.snapshot(&snapshot);
            self.tally.compactions += 1;
        }
    }

    /// The snapshot that `id` lacks comes, from anyone who has it; if nobody has, `id` gives up. Later it is told, when it may
    /// be superseded, or lost its process.
    fn fetch(&mut self, id: MemberId) {
        if let Some(fetched) = self.host(id).fetched.take() {
            self.tally.installs += u64::from(self.host(id).install(&fetched));
            return;
        }
        let Some(wanted) = self.hosts[&id].wanted.clone() else { return };
        self.seen.snapshot(&wanted);
        let has = |host: &Host| host.is_up() && host.disk.snapshot.as_ref() == Some(&wanted);
        if self.hosts.values().any(has) && self.chance(0.9) {
            self.host(id).fetch(wanted);
        } else {
            self.host(id).raft().install_failed(wanted.id);
            self.tally.installs_failed += 1;
        }
    }

    fn propose(&mut self, id: MemberId) {
        let count = self.random.random_range(1..4);
        let commands = (0..count).map(|n| command(self.proposals + 1 + n)).collect();
        if self.host(id).raft().propose(commands).is_ok() {
            self.proposals += count;
        }
    }

    fn read(&mut self, id: MemberId) {
        let committed = self.seen.committed.len() as u64;
        let number = self.host(id).raft().read_index();
        assert!(self.reads.insert((id, number), committed).is_none(), "numbers of reads are unique");
        self.asked = Some((id, number));
    }

    fn transfer(&mut self, id: MemberId) {
        let target = self.chance(0.5).then(|| self.any_host());
        if self.host(id).raft().transfer(target).is_ok() {
            self.tally.transfers += 1;
        }
    }

    /// Asks all who believe that they lead for any change that could be allowed: some learners more or less, some voters more or
    /// less.
    fn change(&mut self) {
        for id in self.leaders() {
            self.change_at(id);
            self.settle(id);
        }
    }

    fn change_at(&mut self, id: MemberId) {
        let status = self.host(id).raft().status();
        let mut wanted = Configuration { outgoing: BTreeSet::new(), ..status.configuration };
        for member in self.ids() {
            if !self.chance(0.4) {
                continue;
            }
            if wanted.learners.remove(&member) {
                if self.chance(0.8) {
                    wanted.voters.insert(member);
                }
            } else if !wanted.voters.remove(&member) {
                wanted.learners.insert(member);
            }
        }
        wanted.addresses = wanted.members().into_iter().map(|member| (member, address(member))).collect();
        if self.host(id).raft().change_membership(status.configuration_id, wanted).is_ok() {
            self.tally.changes += 1;
        }
    }

    fn cut_links(&mut self) {
        let leaders = self.leaders();
        let leader = leaders.first().copied().filter(|_| self.chance(0.5));
        let alone = leader.unwrap_or_else(|| self.any_host());
        let both = self.chance(0.5);
        for other in self.ids() {
            if self.chance(0.7) {
                self.cut.insert((alone, other));
                if both {
                    self.cut.insert((other, alone));
                }
            }
        }
    }

    fn mend_links(&mut self) {
        if self.chance(0.5) {
            self.cut.clear();
        }
    }

    /// Takes what `id` puts out, and checks it.
    fn settle(&mut self, id: MemberId) {
        // It may come out later, together with more.
        if self.chance(self.weather.unsettled) {
            return;
        }
        while self.hosts[&id].raft.as_ref().is_some_and(Raft::has_output) {
            let was_damaged = self.hosts[&id].disk.lost.is_some();
            let output = self.host(id).output();
            self.tally.repairs += u64::from(was_damaged && self.hosts[&id].disk.lost.is_none());
            self.check(id, output);
        }
    }

    fn check(&mut self, id: MemberId, output: Output) {
        let host = self.hosts.get_mut(&id).expect("a host");
        if let Some(write) = &output.write {
            self.seen.entries_written(&host.log, &write.entries);
        }
        let status = host.raft().status();
        if output.status_changed && status.role == Role::Leader {
            self.tally.leaders += 1;
        }
        self.seen.status(host, &status);
        for message in &output.messages {
            self.seen.sent(host, message);
        }
        self.seen.applied(host, &output.committed);
        host.applied += output.committed.len() as u64;
        self.tally.committed += output.committed.len() as u64;
        for done in output.reads {
            let began = self.reads.remove(&(id, done.id)).expect("a read is settled once");
            match done.index {
                Some(index) => {
                    assert!(
                        index >= began,
                        "stale: {began} was committed when the read began, it may run at {index}"
                    );
                    self.tally.reads += 1;
                    self.tally.reads_at_once += u64::from(self.asked == Some((id, done.id)));
                }
                None => self.tally.reads_in_vain += 1,
            }
        }
        self.network.extend(output.messages);
    }

    fn host(&mut self, id: MemberId) -> &mut Host {
        self.hosts.get_mut(&id).expect("a host")
    }

    /// All who believe that they lead.
    fn leaders(&self) -> Vec<MemberId> {
        let leads = |host: &&Host| host.raft.as_ref().is_some_and(|raft| raft.status().role == Role::Leader);
        self.hosts.values().filter(leads).map(Host::id).collect()
    }

    fn ids(&self) -> Vec<MemberId> {
        self.hosts.keys().copied().collect()
    }

    fn any_host(&mut self) -> MemberId {
        MemberId(self.random.random_range(1..=HOSTS))
    }

    fn chance(&mut self, probability: f64) -> bool {
        self.random.random_bool(probability)
    }
}

/// The disk of each of three members of a cluster that was founded with all of them.
fn three_members() -> Restored {
    let members: BTreeSet<MemberId> = (1..=3).map(MemberId).collect();
    let configuration = Configuration {
        addresses: members.iter().map(|id| (*id, address(*id))).collect(),
        voters: members,
        ..Configuration::default()
    };
    let entry = Entry { term: 1, index: 1, payload: Payload::Configuration(Box::new(configuration)) };
    Restored {
        hard_state: HardState { term: 1, vote: None, commit: 1 },
        entries: vec![entry],
        ..Restored::default()
    }
}

fn address(id: MemberId) -> Bytes {
    Bytes::from(format!("host-{}", id.0))
}

fn command(number: u64) -> Bytes {
    Bytes::from(format!("{number:08}"))
}
