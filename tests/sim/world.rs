//! A whole cluster in one thread: its members, the network, the clients, and the faults, in virtual time.
//!
//! What happens to a member is in [`crate::step`] and [`crate::life`], what goes wrong in [`crate::faults`], how it ends in
//! [`crate::finale`].

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use quorate_api::log;
use quorate_node::codec;
use quorate_node::level::NEWEST;
use quorate_node::registry::Memory;
use quorate_node::replica::{Message, found_at};
use quorate_raft::{Configuration, Entry, HardState, MemberId, Payload, Raft, Restored, Role};

use crate::clients::{Asked, Clients, Reply};
use crate::coverage::Coverage;
use crate::diary::Diary;
use crate::disk::{Copied, Crash};
use crate::faults::{Errand, Kind};
use crate::host::{Host, Stage};
use crate::invariants::{Invariants, Past};
use crate::leasing::{Holders, LeaseAsked, LeaseReply};
use crate::network::Network;
use crate::removal::Trouble;
use crate::schedule::Plan;
use crate::streams::Frame;
use crate::time::{Agenda, MILLI, Time};

/// What can happen. A number behind a member is its life.
#[derive(Debug)]
pub(crate) enum Event {
    /// A member's clock ticks.
    Tick(MemberId, u32),
    /// A member acts upon what has come.
    Act(MemberId, u32),
    /// A step of its applier is done.
    Apply(MemberId, u32),
    /// Its replica hears of that.
    Applied(MemberId, u32),
    /// Its disk has done what it was asked to.
    DiskDone(MemberId, u32),
    /// Its disk has had nothing to do for a while.
    DiskIdle(MemberId, u32),
    /// It writes its copy of the state.
    Keep(MemberId, u32),
    /// A message arrives.
    Deliver(MemberId, Message),
    /// A frame arrives, in runs that watch who is heard.
    Frame(Box<Frame>),
    /// A process says that it is there.
    Alive(MemberId, u32),
    /// A process is told that another one refuses it, and what that remembers of its member.
    Refused(MemberId, u32, Memory),
    /// More of an answer is read, that of the request of this number.
    ReadLate(MemberId, u32, u64),
    /// A copy of a member's disk is started beside it.
    StartCopy(MemberId),
    /// A member sees that the connections of another's process of this life were closed.
    Disconnected {
        at: MemberId,
        peer: MemberId,
        life: u32,
    },
    /// A process is started.
    Start(MemberId),
    /// A client's request arrives.
    Request(Asked, MemberId),
    /// An answer arrives at a client.
    Answer {
        client: usize,
        token: u64,
        reply: Reply,
    },
    /// A request of one that holds a lease arrives, and its answer; and it does what it does next, or has waited for long enough.
    AskLease(LeaseAsked, MemberId),
    LeaseAnswer(LeaseAsked, LeaseReply),
    Holder(usize, u64),
    /// A client does its next operation, or has waited for long enough.
    Client(usize, u64),
    /// A process ends.
    Kill(MemberId, u32, Crash),
    /// A member's disk goes back to what was copied of it.
    PutBack(MemberId),
    /// A fault happens.
    Strike(usize),
    /// Somebody who changes the membership goes on with it.
    Errand(usize),
}

#[derive(Debug)]
pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) agenda: Agenda<Event>,
    pub(crate) hosts: BTreeMap<MemberId, Host>,
    pub(crate) network: Network,
    pub(crate) clients: Clients,
    pub(crate) holders: Holders,
    pub(crate) invariants: Invariants,
    pub(crate) coverage: Coverage,
    pub(crate) errands: Vec<Errand>,
    pub(crate) diary: Diary,
    /// How often each kind of fault has struck.
    pub(crate) struck: BTreeMap<&'static str, u64>,
    /// To whom leadership was handed last.
    pub(crate) heir: Option<MemberId>,
    /// A copy of a member's disk that is to be started beside it.
    pub(crate) copied: Option<(Copied, Past)>,
    /// What happens to the next mark of a removal that is stored.
    pub(crate) mark_trouble: Option<Trouble>,
    /// Leaders that were elected once the beginning was over, and to whom nobody had handed over.
    pub(crate) late_leaders: u64,
    /// Some disk was so slow by itself that its member said so.
    pub(crate) disk_hung: bool,
    /// The faults are over.
    pub(crate) calm: bool,
}

impl World {
    pub(crate) fn new(plan: Plan, diary: Diary) -> Self {
        let mut world = Self {
            agenda: Agenda::new(),
            hosts: BTreeMap::new(),
            network: Network::new(&plan),
            clients: Clients::new(&plan),
            holders: Holders::new(&plan),
            invariants: Invariants::default(),
            coverage: Coverage::new(),
            errands: Vec::new(),
            diary,
            struck: BTreeMap::new(),
            heir: None,
            copied: None,
            mark_trouble: None,
            late_leaders: 0,
            disk_hung: false,
            calm: false,
            plan,
        };
        world.found();
        for client in 0..world.plan.clients {
            world.agenda.after(MILLI, Event::Client(client, 0));
        }
        for holder in 0..world.holders.count() {
            world.agenda.after(MILLI, Event::Holder(holder, 0));
        }
        for (place, fault) in world.plan.faults.iter().enumerate() {
            world.agenda.at(fault.at, Event::Strike(place));
        }
        world
    }

    /// The members of the beginning, with their first entry on their disks.
    fn found(&mut self) {
        let voters: BTreeSet<MemberId> = (1..=self.plan.voters).map(MemberId).collect();
        let learners: BTreeSet<MemberId> =
            (self.plan.voters + 1..=self.plan.voters + self.plan.learners).map(MemberId).collect();
        let all: Vec<MemberId> = voters.union(&learners).copied().collect();
        let log = match all[..] {
            [alone] => Raft::founding(alone, address(alone)),
            _ => first_configuration(voters, learners),
        };
        // Where it is about the quota or leases, and not about levels, the log decides from the beginning. Below the level of alarms states come to differ in
        // nothing that no client sees.
        let differs = self.plan.faults.iter().any(|fault| fault.kind == Kind::Differ);
        let decides = (self.plan.quota.is_some() || self.plan.leasing || differs) && !self.plan.two_levels;
        let log = if decides { found_at(NEWEST, log) } else { log };
        for id in all {
            let host = Host::new(&self.plan, id);
            host.found(&self.plan, &log);
            self.invariants.founded(id, &log);
            self.hosts.insert(id, host);
            self.agenda.after(0, Event::Start(id));
        }
    }

    /// Lets everything happen until `end`.
    pub(crate) fn run_until(&mut self, end: Time) {
        while self.agenda.now() < end {
            let Some(event) = self.agenda.next() else { return };
            self.happen(event);
        }
    }

    fn happen(&mut self, event: Event) {
        if let Some(later) = self.is_paused(&event) {
            return self.agenda.at(later, event);
        }
        if let Event::Deliver(..)
        | Event::Frame(..)
        | Event::Request(..)
        | Event::AskLease(..)
        | Event::Act(..) = event
            && let Some(id) = Self::whom(&event)
        {
            self.catch_up(id);
        }
        match event {
            Event::Tick(id, life) => self.on_tick(id, life),
            Event::Act(id, life) => self.on_act(id, life),
            Event::Apply(id, life) => self.on_apply(id, life),
            Event::Applied(id, life) => self.on_applied(id, life),
            Event::DiskDone(id, life) => self.on_disk_done(id, life),
            Event::DiskIdle(id, life) => self.on_disk_idle(id, life),
            Event::Keep(id, life) => self.on_keep(id, life),
            Event::Deliver(from, message) => self.on_message(from, message),
            Event::Frame(frame) => self.on_frame(*frame),
            Event::Alive(id, life) => self.on_alive(id, life),
            Event::Refused(id, life, memory) => self.on_refused(id, life, memory),
            Event::ReadLate(id, life, number) => self.on_read_late(id, life, number),
            Event::StartCopy(of) => self.start_copy(of),
            Event::Disconnected { at, peer, life } => self.on_disconnected(at, (peer, life)),
            Event::Start(id) => self.start(id),
            Event::Request(asked, at) => self.on_request(asked, at),
            Event::Kill(id, life, crash) => self.on_kill(id, life, crash),
            Event::Answer { client, token, reply } => self.on_answer(client, token, reply),
            Event::Client(client, token) => self.on_client(client, token),
            Event::AskLease(asked, at) => self.on_lease_asked(asked, at),
            Event::LeaseAnswer(asked, reply) => self.on_lease_answer(&asked, reply),
            Event::Holder(holder, token) => self.on_holder(holder, token),
            Event::PutBack(id) => self.put_back(id),
            Event::Strike(place) => self.strike(place),
            Event::Errand(number) => self.on_errand(number),
        }
    }

    /// Until when the member is paused that an event happens to.
    fn is_paused(&self, event: &Event) -> Option<Time> {
        let id = Self::whom(event)?;
        let until = self.hosts.get(&id)?.paused_until;
        (until > self.agenda.now()).then_some(until)
    }

    /// To whose process it happens.
    fn whom(event: &Event) -> Option<MemberId> {
        match event {
            Event::Tick(id, _)
            | Event::Act(id, _)
            | Event::Apply(id, _)
            | Event::Applied(id, _)
            | Event::DiskDone(id, _)
            | Event::DiskIdle(id, _)
            | Event::Keep(id, _)
            | Event::Alive(id, _)
            | Event::Refused(id, ..)
            | Event::ReadLate(id, ..) => Some(*id),
            Event::Deliver(_, message) => Some(message.to()),
            Event::Frame(frame) => Some(frame.to),
            Event::Disconnected { at, .. } | Event::Request(_, at) | Event::AskLease(_, at) => Some(*at),
            _ => None,
        }
    }

    pub(crate) fn now(&self) -> Time {
        self.agenda.now()
    }

    /// Writes down what happens.
    pub(crate) fn say(&self, words: impl FnOnce() -> String) {
        self.diary.say(self.agenda.now(), words);
    }

    /// Whoever takes itself for the leader, in the newest term.
    pub(crate) fn leader(&self) -> Option<MemberId> {
        let up = self.members_hosts().filter_map(|host| Some((host.id, host.process()?.shown)));
        let leaders = up.filter(|(_, (role, _))| *role == Role::Leader);
        leaders.max_by_key(|(_, (_, term))| *term).map(|(id, _)| id)
    }

    /// A member that has never been, with an empty disk.
    pub(crate) fn add_host(&mut self) -> MemberId {
        let id = MemberId(self.members_hosts().map(|host| host.id.0).max().unwrap_or(0) + 1);
        self.hosts.insert(id, Host::new(&self.plan, id));
        self.invariants.founded(id, &Restored::default());
        self.agenda.after(0, Event::Start(id));
        id
    }

    /// All hosts but those of copies of members.
    pub(crate) fn members_hosts(&self) -> impl Iterator<Item = &Host> {
        self.hosts.values().filter(|host| host.copy_of.is_none())
    }

    /// Whether a member is up.
    pub(crate) fn is_up(&self, id: MemberId) -> bool {
        self.hosts.get(&id).is_some_and(|host| matches!(host.stage, Stage::Up(_)))
    }
}

/// How configurations describe a member.
pub(crate) fn address(id: MemberId) -> Bytes {
    codec::address(&log::Member { id: id.0, name: format!("n{}", id.0), ..log::Member::default() })
}

/// A log that begins with all members at once.
fn first_configuration(voters: BTreeSet<MemberId>, learners: BTreeSet<MemberId>) -> Restored {
    let addresses = voters.union(&learners).map(|id| (*id, address(*id))).collect();
    let configuration = Configuration { voters, learners, addresses, ..Configuration::default() };
    let entry = Entry { term: 1, index: 1, payload: Payload::Configuration(Box::new(configuration)) };
    Restored {
        hard_state: HardState { term: 1, vote: None, commit: 1 },
        entries: vec![entry],
        ..Restored::default()
    }
}
