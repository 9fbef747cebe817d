//! Who is heard: in some runs every message stands in a frame of its sender's stream, and the rules of [`quorate_node::peer`] decide, at each
//! process, whose are taken. There a copy of a member's disk can be started beside it ([`crate::faults`]).

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use quorate_node::own_process::{Consequence, OwnProcess};
use quorate_node::registry::{HEARD, Introduction, Memory, Registry};
use quorate_node::replica::Message;
use quorate_node::storage::starts;
use quorate_node::terms;
use quorate_raft::{Index, MemberId, Term, Write, WriteId};

use crate::disk::Crash;
use crate::host::{dir, name};
use crate::time::{MILLI, Time};
use crate::world::{Event, World};

/// How often a process says that it is there.
const ALIVE: Time = 500 * MILLI;

/// What the beginning of every run is on the clocks of processes.
static BEGINNING: LazyLock<Instant> = LazyLock::new(Instant::now);

/// What one process sends to another at once.
#[derive(Debug)]
pub(crate) struct Frame {
    /// On which host, in which life of it.
    sender: (MemberId, u32),
    pub(crate) to: MemberId,
    introduction: Introduction,
    durable: u64,
    /// Nothing but that it is there, otherwise.
    message: Option<Message>,
}

/// What a process knows of the others, and they of it.
#[derive(Debug)]
pub(crate) struct Peers {
    own: OwnProcess,
    registry: Registry,
    /// The streams that it has taken, by the host of their sender and its life.
    taken: BTreeMap<(MemberId, u32), u64>,
    /// The newest life of a host whose end is known: nothing comes of it any more.
    ended: BTreeMap<MemberId, u32>,
    /// When each host was heard last, and in which life.
    heard: BTreeMap<MemberId, (u32, Time)>,
    forgotten: Option<Forgotten>,
}

/// A process of this member that its disk has forgotten, as the server's loop keeps it.
#[derive(Debug, Clone, Copy)]
struct Forgotten {
    start: u64,
    durable: u64,
    term: Term,
    /// The write by which that is owed.
    owed_by: Option<WriteId>,
}

impl Peers {
    /// Of the `start`th process on its disk, whose log has `durable` groups of writes.
    pub(crate) fn new(start: u64, nonce: u64, durable: u64) -> Self {
        let (registry, taken, ended, heard) = Default::default();
        Self { own: OwnProcess::new(start, nonce, durable), registry, taken, ended, heard, forgotten: None }
    }

    /// Everything up to group `durable` is.
    pub(crate) fn persisted(&self, durable: u64) {
        self.own.persisted(durable);
    }

    /// A write is handed to the disk: it may say what is owed.
    pub(crate) fn wrote(&mut self, write: &Write) {
        if let Some(forgotten) = self.forgotten.as_mut().filter(|_| write.lost.is_some()) {
            forgotten.owed_by = Some(write.id);
        }
    }

    /// What is owed since write `id` is durable: the start to be counted from, and the groups to be accounted for.
    fn accounts_since(&mut self, id: WriteId) -> Option<(u64, u64)> {
        let is_durable = |forgotten: &mut Forgotten| forgotten.owed_by.is_some_and(|owed_by| owed_by <= id);
        self.forgotten.take_if(is_durable).map(|Forgotten { start, durable, .. }| (start, durable))
    }

    /// The connections of a host's process are closed, as it has ended, or because the network broke. Whether the newest stream of its member
    /// has ended with them.
    pub(crate) fn disconnected(
        &mut self,
        (host, life): (MemberId, u32),
        ended: bool,
        member: MemberId,
    ) -> bool {
        if ended {
            self.ended.insert(host, life);
        }
        self.heard.retain(|of, (heard, _)| *of != host || *heard > life);
        let streams: Vec<_> =
            self.taken.keys().copied().filter(|(of, l)| *of == host && *l <= life).collect();
        let mut newest = false;
        for stream in streams {
            let number = self.taken.remove(&stream).expect("it was found");
            newest |= self.registry.ended(member, number);
        }
        newest
    }
}

impl World {
    /// Puts a message on its way: it arrives at `time`.
    pub(crate) fn deliver_at(&mut self, time: Time, id: MemberId, message: Message) {
        let to = message.to();
        match self.frame(id, to, Some(message.clone())) {
            Some(frame) => self.agenda.at(time, Event::Frame(Box::new(frame))),
            None => self.agenda.at(time, Event::Deliver(id, message)),
        }
    }

    fn frame(&self, id: MemberId, to: MemberId, message: Option<Message>) -> Option<Frame> {
        let host = &self.hosts[&id];
        let process = host.process()?;
        let Peers { own, .. } = process.peers.as_ref()?;
        let (incarnation, accounts) = own.introduction();
        let introduction = Introduction { from: process.identity.member, incarnation, accounts };
        Some(Frame { sender: (id, host.life), to, introduction, durable: own.durable(), message })
    }

    /// Whether the process of a member that has gone back would be refused by another, for what that remembers of it.
    pub(crate) fn is_to_be_told(&self, id: MemberId) -> bool {
        let Some(host) = self.hosts.get(&id).filter(|host| self.plan.streams && host.went_back) else {
            return false;
        };
        let Some(frame) = self.frame(id, id, None) else { return true };
        let now = self.now() / MILLI;
        let others = self.hosts.values().filter(|other| other.id != host.id);
        let mut peers = others.filter_map(|other| other.process()?.peers.as_ref());
        peers.any(|peers| peers.registry.clone().introduce(now, frame.introduction).is_err())
    }

    /// A process says to all members that it is there.
    pub(crate) fn on_alive(&mut self, id: MemberId, life: u32) {
        let Some(process) =
            self.hosts.get(&id).filter(|host| host.life == life).and_then(|host| host.process())
        else {
            return;
        };
        let (member, latency) = (process.identity.member, self.plan.latency);
        let members = process.replica.status().configuration.members();
        for to in members.into_iter().filter(|to| *to != member && self.hosts.contains_key(to)) {
            if let Some(frame) = self.frame(id, to, None) {
                self.agenda.after(latency, Event::Frame(Box::new(frame)));
            }
        }
        self.agenda.after(ALIVE, Event::Alive(id, life));
    }

    /// A frame arrives.
    pub(crate) fn on_frame(&mut self, frame: Frame) {
        let Frame { sender, to, introduction, durable, message } = frame;
        let now = self.now();
        if self.network.is_cut(now, sender.0, to) {
            return;
        }
        let Some(process) = self.hosts.get_mut(&to).and_then(|host| host.process_mut()) else { return };
        if process.identity.cluster == 0 {
            process.adopts = true;
            return self.use_disk(to);
        }
        let ours = process.replica.status().term;
        if message.as_ref().is_some_and(|message| !terms::is_credible(ours, terms::named_by(message))) {
            return self.coverage.count("frames refused: a term that cannot be");
        }
        let Some(number) = self.take(sender, to, introduction) else { return };
        let process = self.hosts.get_mut(&to).and_then(|host| host.process_mut()).expect("it was there");
        let peers = process.peers.as_mut().expect("all have them");
        let term = message.as_ref().and_then(terms::spoken_in).unwrap_or(0);
        if !peers.registry.frame(now / MILLI, introduction.from, number, term, durable) {
            peers.taken.remove(&sender);
            return self.coverage.count("frames refused: another stream has taken the place");
        }
        peers.heard.insert(sender.0, (sender.1, now));
        if let Some(message) = message {
            process.replica.receive(message);
            self.wake(to);
        }
    }

    /// The number of the stream of a sender, if it is taken.
    fn take(&mut self, sender: (MemberId, u32), to: MemberId, introduction: Introduction) -> Option<u64> {
        let now = self.now();
        let process = self.hosts.get_mut(&to).and_then(|host| host.process_mut())?;
        let peers = process.peers.as_mut()?;
        if peers.ended.get(&sender.0).is_some_and(|ended| sender.1 <= *ended) {
            return None;
        }
        if let Some(number) = peers.taken.get(&sender) {
            return Some(*number);
        }
        match peers.registry.introduce(now / MILLI, introduction) {
            Err(memory) => {
                self.refuse(sender, to, memory);
                None
            }
            Ok(number) => {
                peers.taken.insert(sender, number);
                self.is_no_copy(sender.0, to).then_some(number)
            }
        }
    }

    fn refuse(&mut self, (sender, life): (MemberId, u32), by: MemberId, memory: Memory) {
        self.coverage.count(match (memory.is_heard, self.hosts[&sender].copy_of) {
            (true, Some(_)) => "copies of members refused: the original is heard",
            (true, None) => "processes refused: the one before is taken for heard",
            (false, Some(_)) => "copies of members refused: they have forgotten something",
            (false, None) => "members refused: they have forgotten something",
        });
        if !self.network.is_cut(self.now(), by, sender) {
            self.agenda.after(self.plan.latency, Event::Refused(sender, life, memory));
        }
    }

    /// Whether the stream that was just taken is not that of a copy. That is never taken while its original is heard. When it is not heard, by
    /// this process, nobody can tell which is which; people who know stop the copy before it has said anything. The original may have no vote
    /// for a while then: it is the one that seems to have gone back.
    fn is_no_copy(&mut self, sender: MemberId, by: MemberId) -> bool {
        let Some(original) = self.hosts[&sender].copy_of else { return true };
        let now = self.now();
        let heard =
            self.hosts[&by].process().and_then(|process| process.peers.as_ref()?.heard.get(&original));
        let is_heard = heard.is_some_and(|(life, at)| {
            *life == self.hosts[&original].life && (now / MILLI).saturating_sub(at / MILLI) < HEARD
        });
        assert!(!is_heard, "COPIES: {} takes a copy of {} for it, which it hears", name(by), name(original));
        self.coverage.count("copies of members stopped: the original was not heard");
        self.stop_copy(sender);
        self.hosts.get_mut(&original).expect("it was copied").debt = Some(Index::MAX);
        false
    }

    /// A process is told that it was refused, and what is remembered of its member.
    pub(crate) fn on_refused(&mut self, id: MemberId, life: u32, memory: Memory) {
        let now = *BEGINNING + Duration::from_nanos(self.now());
        let Some(host) = self.hosts.get_mut(&id).filter(|host| host.life == life) else { return };
        let is_copy = host.copy_of.is_some();
        let Some(peers) = host.process_mut().and_then(|process| process.peers.as_mut()) else { return };
        match peers.own.refused(&memory, now) {
            Consequence::None => {}
            Consequence::Second => self.coverage.count("second processes that people were told of"),
            Consequence::Ends => {
                assert!(is_copy, "COPIES: {} ends, and no copy of it is heard", name(id));
                self.coverage.count("copies of members that ended");
                self.stop_copy(id);
            }
            Consequence::WentBack => self.is_remembered(id, memory),
        }
    }

    /// Others remember more of a member than its disk does.
    fn is_remembered(&mut self, id: MemberId, memory: Memory) {
        let Memory { incarnation, durable, term, .. } = memory;
        let host = self.hosts.get_mut(&id).expect("it was refused");
        let process = host.process_mut().expect("it was refused");
        let peers = process.peers.as_mut().expect("all have them");
        let mut forgotten = Forgotten { start: incarnation.start, durable, term, owed_by: None };
        if let Some(before) = peers.forgotten {
            if before.start >= forgotten.start && before.durable >= durable && before.term >= term {
                return;
            }
            forgotten.start = forgotten.start.max(before.start);
            forgotten.durable = forgotten.durable.max(before.durable);
            forgotten.term = forgotten.term.max(before.term);
        }
        peers.forgotten = Some(forgotten);
        process.replica.went_back(forgotten.term);
        let last = process.replica.status().last.index;
        host.went_back = true;
        host.debt = Some(last);
        self.coverage.count("members told that they have forgotten something");
        self.say(|| format!("{} is told what others remember of it: {memory:?}", name(id)));
        self.wake(id);
    }

    /// Write `id` is durable: if it says what is owed, the others may take this process from now on. The count takes no time here.
    pub(crate) fn account(&mut self, at: MemberId, id: WriteId) {
        let now = self.now();
        let host = self.hosts.get_mut(&at).expect("a member");
        let disk = host.disk.clone();
        let Some(peers) = host.process_mut().and_then(|process| process.peers.as_mut()) else { return };
        let Some((start, durable)) = peers.accounts_since(id) else { return };
        disk.begin(now);
        let counted = starts::count(&disk, &dir(), start + 1);
        disk.finish();
        peers.own.account_for(counted.unwrap_or(start + 1), durable);
    }

    /// A copy of a member ends for good.
    pub(crate) fn stop_copy(&mut self, id: MemberId) {
        self.crash(id, Crash::Killed);
        self.lose(id);
    }
}
