//! One member's replica: the protocol, the state that it keeps in step, and the clients' requests that wait for it.
//!
//! Synchronous, without threads, clock, disk or network: inputs are calls, and what they bring about is data ([`Effects`]).
//! The server gives it a thread, timers and queues; a simulator gives it virtual ones.

mod fetch;
mod membership;
mod message;
mod reads;
mod room;
mod snapshots;
mod tail;
mod writes;

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::RwLock;
use quorate_raft::{
    ChangeError, Config, Configuration, Entry, Index, LogId, MemberId, Payload, Progress, Raft, Restored,
    Role, Status, Term, TransferError, Write, WriteId,
};

use crate::command::{self, Unread};
use crate::kv::{Applying, KvError, Reply, SnapshotPolicy, Store};
use crate::level::{Level, Levels, Subject, Unsupported};
use crate::snapshots::Job;

pub use membership::Standing;
pub use message::{Message, Rejection};
pub use room::Room;
pub use writes::Command;

use fetch::Fetcher;
use membership::Membership;
use reads::Reads;
use room::Rooms;
use tail::Tail;
use writes::Writes;

/// Steps that a tick takes to remove what was compacted: a millisecond or two.
const COLLECTED_A_TICK: usize = 8192;

/// Steps of applying an entry after which readers of the state may have their turn: less than a millisecond.
const APPLIED_AT_ONCE: usize = 4096;

/// How often, in ticks, a leader without room tries to hand over.
const HANDS_OVER_EVERY: u64 = 100;

/// Who waits for answers: what a client's thread is to the replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Client(pub usize);

/// Timing of a replica.
#[derive(Debug, Clone)]
pub struct Options {
    /// The protocol's.
    pub raft: Config,
    /// How many ticks a request may wait before it is given up.
    pub request_ticks: u64,
    /// Where snapshots are taken. The same on all members.
    pub snapshots: SnapshotPolicy,
    /// The entry by which this node was removed from its cluster, 0 for none: its log may not tell that any more.
    pub removed: Index,
    /// How many bytes of entries are kept behind a snapshot, for members that are a little behind.
    pub kept_log_bytes: u64,
    /// The levels that this member supports.
    pub levels: Levels,
}

/// The answer to one request.
#[derive(Debug)]
pub struct Answer {
    /// To whom.
    pub client: Client,
    /// The number that the client gave to the request.
    pub number: u64,
    /// What.
    pub outcome: Outcome,
}

/// What became of a request.
#[derive(Debug)]
pub enum Outcome {
    /// A command was applied here, and this is what the state says to it.
    Applied(Result<Reply, KvError>),
    /// A command has no answer from the state.
    NotApplied(Failure),
    /// The state holds everything that was acknowledged before the read was asked for.
    Readable,
    /// It is not known to.
    NotReadable(Failure),
}

/// Why a request has no answer from the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// No leader appeared while it waited. It was not done.
    NoLeader,
    /// It was handed on, and nothing was heard of it in time: it may have been done, or may still be.
    TimedOut,
    /// This node is no member of a cluster, or no longer one. It was not done.
    NotAMember,
    /// The disk of this node, or of the leader, is full, or so many are that no quorum has room. It was not done.
    NoSpace,
    /// The level of the cluster does not allow it yet. It was not done.
    Unsupported,
}

/// All that the inputs since the last call of [`Replica::output`] have brought about.
#[derive(Debug, Default)]
pub struct Effects {
    /// To be made durable, and then reported to [`Replica::persisted`].
    pub write: Option<Write>,
    /// To be sent. Each may be lost, none may be delivered twice.
    pub messages: Vec<Message>,
    /// To the clients.
    pub answers: Vec<Answer>,
    /// Work on snapshots, in order. What comes of it is to be reported to [`Replica::reported`].
    pub jobs: Vec<Job>,
    /// The log before this entry is not needed any more: a snapshot that covers it is durable.
    pub release: Option<Index>,
    /// Something that [`Replica::status`], [`Replica::standing`] or [`Replica::level`] shows has changed.
    pub status_changed: bool,
    /// The process must end: what comes next needs a level that it does not support. Nothing of that was applied.
    pub end: Option<Unsupported>,
}

/// One member.
#[derive(Debug)]
pub struct Replica {
    id: MemberId,
    raft: Raft,
    store: Arc<RwLock<Store>>,
    /// The newest entry that the protocol has handed out to be applied.
    handed: Index,
    /// The newest that the state holds: it may be ahead when the process starts.
    applied: Index,
    revision: i64,
    /// Of the state.
    level: Level,
    levels: Levels,
    /// Why nothing more is applied.
    end: Option<Unsupported>,
    /// As of the last output.
    status: Status,
    membership: Membership,
    writes: Writes,
    reads: Reads,
    /// This member's own.
    room: Room,
    /// The others', as far as they lack it.
    rooms: Rooms,
    policy: SnapshotPolicy,
    tail: Tail,
    fetcher: Fetcher,
    jobs: Vec<Job>,
    /// What the newest durable snapshot covers, as far as is known here: the log on disk goes back to it. 0 while that is damaged.
    newest_snapshot: Index,
    /// That one is damaged: when another is to be taken in its place.
    renews_at: Option<u64>,
    release: Option<Index>,
    answers: Vec<Answer>,
    messages: Vec<Message>,
    now: u64,
    request_ticks: u64,
}

impl Replica {
    /// A replica with what its disk holds, above a `store` that is what the restored snapshot holds, or more, or empty: the committed
    /// part of the log behind that is applied again.
    pub fn new(options: Options, mut restored: Restored, store: Arc<RwLock<Store>>) -> Self {
        let id = options.raft.id;
        let mut membership = Membership::new(id, options.removed);
        let snapshot = restored.snapshot.as_ref();
        if let Some(snapshot) = snapshot {
            // The snapshot tells the last configuration. Who was removed by that knows it from the log that it covers, if by nothing else.
            membership.told(&restored, snapshot.id.index);
            membership.committed(snapshot.configuration_id.index, &snapshot.configuration);
        }
        let handed = snapshot.map_or(0, |snapshot| snapshot.id.index);
        let applied = handed.max(store.read().applied().index);
        let patience = u64::from(options.raft.election_ticks) * 2;
        let newest = restored.snapshot.clone();
        let keep_after = tail::before(&restored.entries, handed, options.kept_log_bytes);
        restored.hard_state.commit = membership::known_commit(&restored, options.removed);
        let mut raft = Raft::new(options.raft, restored);
        if let Some(newest) = newest {
            // What the disk still has before that is for the day that the snapshot is damaged.
            raft.compact(newest, keep_after);
        }
        let (revision, level) = {
            let store = store.read();
            (store.revision(), store.level())
        };
        let unsupported = options.levels.check(Subject::State, level).err();
        Replica {
            id,
            level,
            levels: options.levels,
            end: unsupported,
            status: raft.status(),
            raft,
            revision,
            store,
            handed,
            applied,
            membership,
            writes: Writes::default(),
            reads: Reads::default(),
            room: Room::Enough,
            rooms: Rooms::default(),
            policy: options.snapshots,
            tail: Tail::new(options.kept_log_bytes),
            fetcher: Fetcher::new(id, patience),
            jobs: Vec::new(),
            newest_snapshot: handed,
            renews_at: None,
            release: None,
            answers: Vec::new(),
            messages: Vec::new(),
            now: 0,
            request_ticks: options.request_ticks,
        }
    }

    /// Applies what the disk knows to be committed, up to `commit`, before anything else is asked of the replica. An error if the state, or
    /// an entry, needs a level that is not supported.
    ///
    /// # Panics
    /// If it is asked for more than that.
    pub fn replay(&mut self, commit: Index) -> Result<(), Unsupported> {
        self.end.take().map_or(Ok(()), Err)?;
        while self.handed < commit {
            let before = self.handed;
            let Effects { write, messages, jobs, end, .. } = self.output();
            end.map_or(Ok(()), Err)?;
            assert!(self.handed > before, "what is committed on disk can be applied");
            assert!(write.is_none() && messages.is_empty(), "nobody has asked for anything yet");
            // Those are for whoever takes the first output.
            self.jobs = jobs;
        }
        Ok(())
    }

    /// Time passes.
    pub fn tick(&mut self) {
        self.now += 1;
        self.raft.tick();
        // What compactions have left without use goes a little at a time.
        self.store.write().collect(COLLECTED_A_TICK);
        self.writes.tick(self.now, &mut self.answers);
        self.reads.tick(self.now, &mut self.answers);
        self.tick_snapshots();
        self.rooms.tick(self.now);
        if self.room != Room::Enough && self.now.is_multiple_of(room::TELLS_EVERY) {
            self.tell_room();
        }
        // Somebody else may have room.
        if self.room == Room::Out && self.now.is_multiple_of(HANDS_OVER_EVERY) {
            let _ = self.raft.transfer(None);
        }
    }

    /// So many ticks more have passed, while nothing ran: see [`Raft::overslept`].
    pub fn overslept(&mut self, ticks: u64) {
        self.raft.overslept(ticks);
    }

    /// A client wants commands to be done, in order.
    pub fn write(&mut self, client: Client, commands: Vec<Command>) {
        let (refused, failure) = if self.can_serve() {
            let room = self.room_for_commands();
            let (admitted, refused) = commands.into_iter().partition(|command| {
                command.needs <= self.level && (room == Room::Enough || room.admits(&command.bytes))
            });
            self.writes.arrive(client, self.now + self.request_ticks, admitted);
            (refused, Failure::NoSpace)
        } else {
            (commands, Failure::NotAMember)
        };
        let level = self.level;
        let refuse = |Command { number, needs, .. }| {
            let failure = if needs > level { Failure::Unsupported } else { failure };
            Answer { client, number, outcome: Outcome::NotApplied(failure) }
        };
        self.answers.extend(refused.into_iter().map(refuse));
    }

    /// A client wants to read what is newest. `number` is its own for this read, or for many that have arrived already.
    pub fn read(&mut self, client: Client, number: u64) {
        if self.can_serve() {
            self.reads.arrive(client, number, self.now + self.request_ticks);
            return;
        }
        self.answers.push(Answer { client, number, outcome: Outcome::NotReadable(Failure::NotAMember) });
    }

    /// A message has come.
    pub fn receive(&mut self, message: Message) {
        match message {
            Message::Raft(message) if !self.room.receives(&message) => {}
            Message::Raft(message) => self.raft.step(message),
            Message::Forward { from, term, commands, .. } => self.forwarded(from, term, commands),
            Message::ForwardRejected { term, numbers, reason: Rejection::NotLeader, .. } => {
                self.writes.rejected(term, &numbers);
            }
            Message::ForwardRejected { term, numbers, reason: Rejection::NoSpace, .. } => {
                self.writes.refused(term, &numbers, Failure::NoSpace, &mut self.answers);
            }
            Message::ForwardRejected { term, numbers, reason: Rejection::Unsupported, .. } => {
                self.writes.refused(term, &numbers, Failure::Unsupported, &mut self.answers);
            }
            Message::SnapshotRequest { from, id, part, .. } => self.jobs.push(Job::Read(from, id, part)),
            Message::SnapshotManifest { manifest, .. } if !self.levels.contains(manifest.level()) => {
                let snapshot = Subject::Snapshot(manifest.id().index);
                self.end = Some(self.levels.lacks(snapshot, Some(manifest.level())));
            }
            Message::SnapshotManifest { from, manifest, .. } => {
                self.fetcher.manifest(from, *manifest, self.now);
            }
            Message::SnapshotPiece { from, id, number, bytes, .. } => {
                self.fetcher.piece(from, id, number, bytes, self.now);
            }
            Message::SnapshotMissing { from, id, .. } => self.fetcher.missing(from, id, self.now),
            Message::Room { from, room, .. } => self.rooms.told(from, room, self.now),
        }
    }

    /// These messages to other members never left the process: the commands in them were not handed over.
    pub fn undelivered(&mut self, messages: Vec<Message>) {
        for message in messages {
            if let Message::Forward { from, term, commands, .. } = message
                && from == self.id
            {
                self.writes.rejected(term, &command::numbers(commands));
            }
        }
    }

    /// Write `id`, and all before it, are durable.
    pub fn persisted(&mut self, id: WriteId) {
        self.raft.persisted(id);
    }

    /// All writes before `id` are durable, and of that one what it has up to entry `index`.
    pub fn persisted_part(&mut self, id: WriteId, index: Index) {
        self.raft.persisted_part(id, index);
    }

    /// The connection that `peer`'s messages came by was closed by its side without a goodbye.
    pub fn disconnected(&mut self, peer: MemberId) {
        self.raft.disconnected(peer);
    }

    /// Starts a change of membership: see [`Raft::change_membership`].
    pub fn change_membership(
        &mut self,
        expected: LogId,
        wanted: Configuration,
    ) -> Result<LogId, ChangeError> {
        self.raft.change_membership(expected, wanted)
    }

    /// Hands leadership over: see [`Raft::transfer`].
    pub fn transfer(&mut self, target: Option<MemberId>) -> Result<MemberId, TransferError> {
        self.raft.transfer(target)
    }

    /// What is to be done now. Call after any number of inputs, and again while [`Self::has_output`].
    pub fn output(&mut self) -> Effects {
        self.hand_over();
        self.reads.ask(&mut self.raft);
        let output = self.raft.output();
        let mut status_changed = output.status_changed;
        self.messages.extend(output.messages.into_iter().map(Message::Raft));
        status_changed |= self.apply(output.committed);
        for done in output.reads {
            self.reads.settled(done, self.applied, &mut self.answers);
        }
        self.fetch(output.wanted);
        if status_changed {
            self.status = self.raft.status();
        }
        Effects {
            write: output.write,
            messages: std::mem::take(&mut self.messages),
            answers: std::mem::take(&mut self.answers),
            jobs: std::mem::take(&mut self.jobs),
            release: self.release.take(),
            status_changed,
            end: self.end.clone(),
        }
    }

    /// Whether [`Self::output`] has something to do without any further input.
    pub fn has_output(&self) -> bool {
        self.raft.has_output() || self.reads.is_due() || self.writes.is_due() || !self.jobs.is_empty()
    }

    /// What the protocol knows, now.
    pub fn status(&self) -> Status {
        self.raft.status()
    }

    /// What the leader knows of the members. Empty on others.
    pub fn progress(&self) -> Vec<Progress> {
        self.raft.progress()
    }

    /// The newest entry that the state holds.
    pub fn applied(&self) -> Index {
        self.applied
    }

    /// The revision of the state.
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// The level of the state.
    pub fn level(&self) -> Level {
        self.level
    }

    /// Whether this node belongs to the cluster.
    pub fn standing(&self) -> Standing {
        let Status { configuration_id, configuration, .. } = &self.status;
        self.membership.standing(configuration_id.index, configuration)
    }

    /// The entry by which this node was removed from its cluster; 0 for none.
    pub fn removed(&self) -> Index {
        self.membership.removed()
    }

    /// The disk has so much room from now on. Returns whether that is news.
    pub fn set_room(&mut self, room: Room) -> bool {
        let is_news = std::mem::replace(&mut self.room, room) != room;
        if is_news {
            self.tell_room();
            self.jobs.extend((room != Room::Enough).then_some(Job::Tidy));
        }
        is_news
    }

    /// How much room this member's disk has, as was said last.
    pub fn room(&self) -> Room {
        self.room
    }

    /// The members, this one among them, that are known to lack room.
    pub fn short_of_room(&self) -> Vec<MemberId> {
        let own = (self.room != Room::Enough).then_some(self.id);
        own.into_iter().chain(self.rooms.short()).collect()
    }

    /// How much room there is for commands: as much as this member's disk has; if it leads, no more than a quorum has.
    fn room_for_commands(&self) -> Room {
        if self.status.role != Role::Leader || self.rooms.is_empty() {
            return self.room;
        }
        let progress = self.raft.progress();
        let is_heard = |id| progress.iter().any(|member| member.id == id && member.active);
        self.room.max(self.rooms.of_quorum(&self.status.configuration, is_heard, (self.id, self.room)))
    }

    /// Tells the leader how much room this member has.
    fn tell_room(&mut self) {
        if let (_, Some(leader)) = self.raft.leadership()
            && leader != self.id
        {
            self.messages.push(Message::Room { from: self.id, to: leader, room: self.room });
        }
    }

    /// The state.
    pub fn store(&self) -> &Arc<RwLock<Store>> {
        &self.store
    }

    /// One who is no member cannot say what was acknowledged, and nobody would take its commands.
    fn can_serve(&self) -> bool {
        self.standing() == Standing::Member
    }

    /// Appends or forwards the commands that wait for it.
    fn hand_over(&mut self) {
        self.writes.begin();
        if self.writes.is_idle() {
            return;
        }
        match self.raft.leadership() {
            (term, Some(leader)) if leader == self.id => self.writes.append(term, &mut self.raft),
            (term, Some(leader)) => self.writes.forward(self.id, leader, term, &mut self.messages),
            (_, None) => {}
        }
        self.writes.reject_forwarded(self.id, &mut self.messages);
    }

    /// Another member's clients have sent commands. Those that there is no room for go back at once; and so do those that this member does
    /// not read as a whole, or that the cluster's level does not allow: in the log they would end every member that does not know better.
    fn forwarded(&mut self, from: MemberId, term: Term, commands: Vec<Bytes>) {
        let room = self.room_for_commands();
        let levels = Levels { newest: self.level, ..self.levels };
        let (readable, unsupported): (Vec<_>, Vec<_>) =
            commands.into_iter().partition(|bytes| command::read(bytes.clone(), levels).is_ok());
        let (admitted, no_room): (Vec<_>, Vec<_>) =
            readable.into_iter().partition(|bytes| room == Room::Enough || room.admits(bytes));
        for (refused, reason) in [(unsupported, Rejection::Unsupported), (no_room, Rejection::NoSpace)] {
            if !refused.is_empty() {
                let numbers = command::numbers(refused);
                self.messages.push(Message::ForwardRejected {
                    from: self.id,
                    to: from,
                    term,
                    numbers,
                    reason,
                });
            }
        }
        if !admitted.is_empty() {
            self.writes.forwarded(from, term, admitted);
        }
    }

    /// Applies what was committed, up to an entry that needs a level that is not supported. Whether the members' standing, or the level, may
    /// have changed by it.
    fn apply(&mut self, committed: Vec<Entry>) -> bool {
        if committed.is_empty() || self.end.is_some() {
            return false;
        }
        let mut changed = false;
        let mut store = self.store.write();
        let mut newest = store.applied();
        for entry in committed {
            assert_eq!(entry.index, self.handed + 1, "entries are applied in order, without a gap");
            let read = match &entry.payload {
                Payload::Command(bytes) => Some(command::read(bytes.clone(), self.levels)).transpose(),
                Payload::Noop | Payload::Configuration(_) => Ok(None),
            };
            let command = match read {
                Ok(command) => command,
                Err(Unread(needs)) => {
                    self.end = Some(self.levels.lacks(Subject::Entry(entry.index), needs));
                    break;
                }
            };
            self.handed = entry.index;
            let is_new = entry.index > self.applied;
            self.applied = self.applied.max(entry.index);
            self.writes.entered_term(entry.term);
            newest = newest.max(entry.id());
            if let (Some(command), Payload::Command(bytes)) = (command.filter(|_| is_new), &entry.payload) {
                self.answers.extend(apply_command(self.id, &mut store, &mut self.writes, command, bytes));
            }
            if let Payload::Configuration(configuration) = &entry.payload {
                self.membership.committed(entry.index, configuration);
                changed = true;
            }
            let weight = entry.weight() as u64;
            self.tail.applied(entry.index, weight);
            if is_new && store.weigh(weight, self.policy) {
                self.jobs.extend(snapshots::begin(
                    &self.raft,
                    self.applied,
                    &mut store,
                    self.policy.piece_bytes,
                ));
            }
        }
        store.applied_up_to(newest);
        self.revision = store.revision();
        changed |= std::mem::replace(&mut self.level, store.level()) != store.level();
        drop(store);
        self.reads.applied(self.applied, &mut self.answers);
        changed
    }
}

/// Applies one command; answers it if it came from a client of this process.
fn apply_command(
    id: MemberId,
    store: &mut Store,
    writes: &mut Writes,
    command: command::Command,
    bytes: &Bytes,
) -> Option<Answer> {
    let command::Command { origin, request: number, operation } = command;
    let client = if origin == id.0 { writes.applied(number) } else { None };
    let mut applying = Applying::new(operation, bytes, client.is_some());
    let result = loop {
        if let Some(result) = applying.step(store, APPLIED_AT_ONCE) {
            break result;
        }
    };
    let client = client?;
    Some(Answer { client, number, outcome: Outcome::Applied(result) })
}

#[cfg(test)]
mod tests;
