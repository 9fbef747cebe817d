//! One member, as two synchronous machines: the [`Replica`] (the protocol, the requests that wait for it, the fetching of snapshots) and
//! the [`Applier`] (the state, and what committed entries make of it).
//!
//! Neither has threads, clock, disk or network: inputs are calls, and what they bring about is data ([`Effects`], [`Step`]).
//! The server gives each a thread, timers and queues; a simulator gives them virtual ones. The replica waits for the applier no more than
//! for the disk: committed entries go out ([`Effects::apply`]), and that they are applied comes in ([`Replica::applied`]).

mod admission;
mod ahead;
mod applier;
mod backlog;
mod builds;
mod digests;
mod fetch;
mod lease_questions;
mod lease_times;
mod membership;
mod message;
mod quota;
mod reads;
mod room;
mod snapshots;
mod standstill;
mod tail;
mod writes;

use std::collections::BTreeMap;

use quorate_raft::{
    ChangeError, Config, Configuration, Entry, Index, LogId, MemberId, Payload, Progress, Raft, Restored,
    Status, Term, TransferError, Write, WriteId,
};

use crate::command;
use crate::kv::{KvError, Reply, SnapshotPolicy, Store};
use crate::leases::Grant;
use crate::level::{Level, Levels, Subject, Unsupported};
use crate::snapshots::{Corrupt, Job};

pub use applier::{Applied, Applier, Piece, Step, Work};
pub use backlog::Backlog;
pub use builds::{Build, Lacking, RaiseError, found_at};
pub use digests::Agreement;
pub use lease_questions::Question;
pub use lease_times::TimeLeft;
pub use membership::Standing;
pub use message::{Message, Rejection};
pub use quota::Usage;
pub use room::Room;
pub use writes::Command;

use ahead::Ahead;
use builds::Builds;
use digests::Digests;
use fetch::Fetcher;
use lease_questions::Questions;
use lease_times::LeaseTimes;
use membership::Membership;
use quota::Quota;
use reads::Reads;
use room::Rooms;
use standstill::Standstills;
use tail::Tail;
use writes::Writes;

/// How often, in ticks, a leader tries to hand over that has no room, or whose applier stands still.
const HANDS_OVER_EVERY: u64 = 100;

/// With so many times [`Options::waiting_bytes`] of entries that wait to be applied a follower takes none from its leader: they stay in memory
/// until a snapshot covers them. A leader does not come so far, for it takes in no more requests before; a follower does only if it is
/// slower than its leader.
const MOST_BACKLOG: u64 = 4;

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
    /// So many ticks are a second, by which leases count. Never 0.
    pub ticks_per_second: u64,
    /// With more bytes of entries that wait to be committed, or to be applied, no request is taken in.
    pub waiting_bytes: u64,
    /// Where snapshots are taken. The same on all members.
    pub snapshots: SnapshotPolicy,
    /// The entry by which this node was removed from its cluster, 0 for none: its log may not tell that any more.
    pub removed: Index,
    /// How many bytes of entries are kept behind a snapshot, for members that are a little behind.
    pub kept_log_bytes: u64,
    /// The levels that this member supports.
    pub levels: Levels,
    /// The most bytes that the state may take, as they are accounted, so that this member can hold it; none for no limit.
    pub quota: Option<u64>,
    /// Its state is known to differ from what a majority holds.
    pub corrupt: Option<Corrupt>,
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
    /// What is left of a lease, or why that is not known.
    Lease(Result<TimeLeft, Failure>),
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
    /// The state has reached the quota of a member. It was not done.
    OverQuota,
    /// This node, or the leader, or so many that they are no quorum, have no descriptor for the next file of the log. It was not done.
    NoDescriptors,
    /// This node, or the leader, is so far behind with applying that it would not be answered in time. It was not done.
    TooFarBehind,
    /// The state of this node, or of the leader, is not that of a majority, or there is none. It was not done.
    Corrupt,
}

/// All that the inputs since the last call of [`Replica::output`] have brought about.
#[derive(Debug, Default)]
pub struct Effects {
    /// To be made durable, and then reported to [`Replica::persisted`].
    pub write: Option<Write>,
    /// To be sent. Each may be lost, none may be delivered twice.
    pub messages: Vec<Message>,
    /// For the applier, in order, once the mark of a removal is stored that [`Replica::removed`] tells of. What comes of it is to be
    /// reported to [`Replica::applied`].
    pub apply: Vec<Work>,
    /// To the clients.
    pub answers: Vec<Answer>,
    /// Work on snapshots, in order. What comes of it is to be reported to [`Replica::reported`].
    pub jobs: Vec<Job>,
    /// The log before this entry is not needed any more: a snapshot that covers it is durable.
    pub release: Option<Index>,
    /// Something that [`Replica::status`], [`Replica::standing`], [`Replica::level`] or [`Replica::agreement`] shows has changed.
    pub status_changed: bool,
    /// The process must end: what comes next needs a level that it does not support. Nothing of that was applied.
    pub end: Option<Unsupported>,
}

/// What the state holds when the process starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Everything up to this entry.
    pub applied: Index,
    /// Of the cluster.
    pub level: Level,
    /// What it takes.
    pub usage: Usage,
    /// The leases.
    pub leases: Vec<Grant>,
}

impl Held {
    /// What `store` holds.
    pub fn of(store: &Store) -> Self {
        Held {
            applied: store.applied().index,
            level: store.level(),
            usage: Usage::of(store),
            leases: store.leases().iter_from(i64::MIN).collect(),
        }
    }
}

/// One member.
#[derive(Debug)]
pub struct Replica {
    id: MemberId,
    raft: Raft,
    /// The newest entry that the protocol has handed out to be applied.
    handed: Index,
    /// The newest that the state holds, as far as was reported: it may be ahead when the process starts.
    applied: Index,
    /// What the log holds behind that.
    ahead: Ahead,
    /// What was handed out and is not applied yet.
    backlog: Backlog,
    /// Of the state, as far as was reported.
    level: Level,
    /// That, or whether NOSPACE is raised, has changed since the last output.
    state_changed: bool,
    levels: Levels,
    /// Why the process must end.
    end: Option<Unsupported>,
    /// As of the last output.
    status: Status,
    membership: Membership,
    writes: Writes,
    reads: Reads,
    questions: Questions,
    lease_times: LeaseTimes,
    /// This member's own.
    room: Room,
    /// The others', as far as they lack it.
    rooms: Rooms,
    /// The others' appliers.
    standstills: Standstills,
    /// As far as they have told it.
    builds: Builds,
    quota: Quota,
    digests: Digests,
    /// What [`Self::agreement`] and [`Self::suspects`] show has changed since the last output.
    agreement_changed: bool,
    tail: Tail,
    fetcher: Fetcher,
    apply: Vec<Work>,
    jobs: Vec<Job>,
    /// Parts of snapshots that are being read for each member.
    serving: BTreeMap<MemberId, usize>,
    /// What the newest durable snapshot covers, as far as is known here: the log on disk goes back to it. 0 while that is damaged.
    newest_snapshot: Index,
    /// That one is damaged: when another is to be taken in its place.
    renews_at: Option<u64>,
    release: Option<Index>,
    answers: Vec<Answer>,
    messages: Vec<Message>,
    now: u64,
    /// When a leader was known last.
    led: u64,
    request_ticks: u64,
    waiting_bytes: u64,
}

impl Replica {
    /// A replica with what its disk holds, and a state that holds what the restored snapshot covers, or more, or nothing. The committed part of the log behind the snapshot is handed out again.
    pub fn new(options: Options, mut restored: Restored, held: Held) -> Self {
        let id = options.raft.id;
        let mut membership = Membership::new(id, options.removed);
        let snapshot = restored.snapshot.as_ref();
        if let Some(snapshot) = snapshot {
            // The snapshot tells the last configuration. Who was removed by that knows it from the log that it covers, if by nothing else.
            membership.told(&restored, snapshot.id.index);
            membership.committed(snapshot.configuration_id.index, &snapshot.configuration);
        }
        let handed = snapshot.map_or(0, |snapshot| snapshot.id.index);
        let applied = handed.max(held.applied);
        let patience = u64::from(options.raft.election_ticks) * 2;
        let newest = restored.snapshot.clone();
        let keep_after = tail::before(&restored.entries, handed, options.kept_log_bytes);
        let mut ahead = Ahead::default();
        ahead.appended(&restored.entries);
        ahead.handed_out(handed);
        restored.hard_state.commit = membership::known_commit(&restored, options.removed);
        let mut raft = Raft::new(options.raft, restored);
        if let Some(newest) = newest {
            // What the disk still has before that is for the day that the snapshot is damaged.
            raft.compact(newest, keep_after);
        }
        if options.corrupt.is_some() {
            raft.bar();
        }
        let unsupported = options.levels.check(Subject::State, held.level).err();
        Replica {
            id,
            level: held.level,
            state_changed: false,
            levels: options.levels,
            end: unsupported,
            status: raft.status(),
            raft,
            handed,
            applied,
            ahead,
            backlog: Backlog::default(),
            membership,
            writes: Writes::default(),
            reads: Reads::default(),
            questions: Questions::default(),
            lease_times: LeaseTimes::new(options.ticks_per_second, held.leases),
            room: Room::Enough,
            rooms: Rooms::default(),
            standstills: Standstills::default(),
            builds: Builds::default(),
            quota: Quota::new(id, options.quota, held.usage),
            digests: Digests::new(options.corrupt),
            agreement_changed: false,
            tail: Tail::new(options.kept_log_bytes),
            fetcher: Fetcher::new(id, patience),
            apply: Vec::new(),
            jobs: Vec::new(),
            serving: BTreeMap::new(),
            newest_snapshot: handed,
            renews_at: None,
            release: None,
            answers: Vec::new(),
            messages: Vec::new(),
            now: 0,
            led: 0,
            request_ticks: options.request_ticks,
            waiting_bytes: options.waiting_bytes,
        }
    }

    /// Has `applier` apply what the disk knows to be committed, up to `commit`, before anything else is asked of the replica. An error if the
    /// state, or an entry, needs a level that is not supported.
    ///
    /// # Panics
    /// If it is asked for more than that.
    pub fn replay(&mut self, commit: Index, applier: &mut Applier) -> Result<(), Unsupported> {
        self.end.clone().map_or(Ok(()), Err)?;
        while self.handed < commit {
            let before = self.handed;
            let Effects { write, messages, apply, jobs, .. } = self.output();
            assert!(self.handed > before, "what is committed on disk can be applied");
            assert!(write.is_none() && messages.is_empty(), "nobody has asked for anything yet");
            // Those are for whoever takes the first output.
            self.jobs = jobs;
            applier.push(apply);
            while applier.is_busy() {
                self.applied(applier.step().applied);
            }
            self.end.clone().map_or(Ok(()), Err)?;
        }
        Ok(())
    }

    /// Time passes.
    pub fn tick(&mut self) {
        self.now += 1;
        self.raft.tick();
        if self.raft.leadership().1.is_some() {
            self.led = self.now;
        }
        self.backlog.tick();
        self.writes.tick(self.now, &mut self.answers);
        self.reads.tick(self.now, &mut self.answers);
        self.tick_leases();
        self.tick_snapshots();
        self.rooms.tick(self.now);
        self.builds.tick(self.now);
        let members = self.status.configuration.members();
        self.quota.configure(&members);
        self.standstills.keep(&members);
        self.tell_build();
        self.tick_digests();
        if self.room != Room::Enough && self.now.is_multiple_of(room::TELLS_EVERY) {
            self.tell_room();
        }
        let serves_nobody = self.room.takes_nothing() || self.applier_stands_still();
        if serves_nobody && self.now.is_multiple_of(HANDS_OVER_EVERY) {
            self.hand_leadership_over();
        }
    }

    /// So many ticks more have passed, while nothing ran: see [`Raft::overslept`].
    pub fn overslept(&mut self, ticks: u64) {
        self.raft.overslept(ticks);
    }

    /// A client wants to read what is newest. `number` is its own for this read, or for many that have arrived already.
    pub fn read(&mut self, client: Client, number: u64) {
        match self.refusal() {
            Some(failure) => {
                self.answers.push(Answer { client, number, outcome: Outcome::NotReadable(failure) });
            }
            None => self.reads.arrive(client, number, self.now + self.request_ticks),
        }
    }

    /// A message has come.
    pub fn receive(&mut self, message: Message) {
        match message {
            Message::Raft(message) if !self.takes(&message) => {}
            Message::Raft(message) => self.raft.step(message),
            Message::Forward { from, term, commands, .. } => self.forwarded(from, term, commands),
            Message::ForwardRejected { term, numbers, reason, .. } => match reason.failure() {
                None => self.writes.rejected(term, &numbers),
                Some(failure) => self.writes.refused(term, &numbers, failure, &mut self.answers),
            },
            Message::SnapshotRequest { from, id, part, .. } => self.read_snapshot(from, id, part),
            Message::SnapshotManifest { from, manifest, .. } if !self.levels.contains(manifest.level()) => {
                let snapshot = Subject::Snapshot(manifest.id().index);
                let members = self.status.configuration.members();
                // Nobody else can end this member.
                if members.is_empty() || members.contains(&from) {
                    self.end = Some(self.levels.lacks(snapshot, Some(manifest.level())));
                }
            }
            Message::SnapshotManifest { from, manifest, .. } if self.is_contradicted(from, &manifest) => {
                self.contradicted(from, &manifest);
            }
            Message::SnapshotManifest { from, manifest, .. } => {
                self.fetcher.manifest(from, *manifest, self.now);
            }
            Message::SnapshotPiece { from, id, number, bytes, .. } => {
                self.fetcher.piece(from, id, number, bytes, self.now);
            }
            Message::SnapshotMissing { from, id, .. } => self.fetcher.missing(from, id, self.now),
            Message::Room { from, room, .. } => self.rooms.told(from, room, self.now),
            Message::Supports { from, build, quota, stands_still, .. } => {
                self.builds.told(from, build, self.now);
                if self.status.configuration.members().contains(&from) {
                    self.quota.told(from, quota);
                    self.standstills.told(from, stands_still);
                }
            }
            Message::LeaseQuestions { from, term, questions, .. } => self.asked(from, term, questions),
            Message::LeaseAnswers { times, .. } => self.told_times(times),
            Message::Holds { from, digests, is_corrupt, .. } => {
                self.told_digests(from, digests, is_corrupt);
            }
        }
    }

    /// These messages to other members never left the process: the commands in them were not handed over.
    pub fn undelivered(&mut self, messages: Vec<Message>) {
        for message in messages {
            match message {
                Message::Forward { from, term, commands, .. } if from == self.id => {
                    self.writes.rejected(term, &command::numbers(commands));
                }
                Message::LeaseQuestions { from, questions, .. } if from == self.id => {
                    self.questions.undelivered(&questions);
                }
                _ => {}
            }
        }
    }

    /// This member's disk went back in time: see [`Raft::went_back`].
    pub fn went_back(&mut self, term: Term) {
        self.raft.went_back(term);
    }

    /// Write `id`, and all before it, are durable.
    pub fn persisted(&mut self, id: WriteId) {
        self.raft.persisted(id);
    }

    /// All writes before `id` are durable, and of that one what it has up to entry `index`.
    pub fn persisted_part(&mut self, id: WriteId, index: Index) {
        self.raft.persisted_part(id, index);
    }

    /// The applier has done a step.
    pub fn applied(&mut self, applied: Applied) {
        let Applied { id, numbers, jobs, level, usage, leases, end } = applied;
        self.lease_times.changed(leases, self.now);
        self.state_changed |= std::mem::replace(&mut self.level, level) != level;
        self.state_changed |= self.quota.applied(id.index, usage);
        self.end = self.end.take().or(end);
        self.applied = self.applied.max(id.index);
        self.backlog.applied(id.index);
        for number in numbers {
            self.writes.applied(number);
        }
        // After those numbers: what is still here, and was handed over in an earlier term, is in none of the entries up to this one.
        self.writes.entered_term(id.term);
        self.reads.applied(self.applied, &mut self.answers);
        self.jobs.extend(jobs);
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
        if self.are_corrupt(&wanted.voters) {
            let what =
                "the state of each of these voters differs from that of a majority: keep one that holds that";
            return Err(ChangeError::Invalid(what.to_owned()));
        }
        self.check_levels(&wanted)?;
        self.raft.change_membership(expected, wanted)
    }

    /// Hands leadership over: see [`Raft::transfer`].
    pub fn transfer(&mut self, target: Option<MemberId>) -> Result<MemberId, TransferError> {
        self.raft.transfer(target)
    }

    /// What is to be done now. Call after any number of inputs, and again while [`Self::has_output`].
    pub fn output(&mut self) -> Effects {
        self.hand_over();
        self.hand_over_questions();
        self.reads.ask(&mut self.raft);
        let output = self.raft.output();
        let mut status_changed = output.status_changed | std::mem::take(&mut self.state_changed);
        status_changed |= std::mem::take(&mut self.agreement_changed);
        self.messages.extend(output.messages.into_iter().map(Message::Raft));
        if let Some(write) = &output.write {
            self.ahead.written(write);
        }
        status_changed |= self.hand_out(output.committed);
        self.ahead.handed_out(self.handed);
        for done in output.reads {
            if self.confirmed(done) {
                continue;
            }
            self.reads.settled(done, self.applied, &mut self.answers);
        }
        self.answer_questions();
        self.fetch(output.wanted);
        if status_changed {
            self.status = self.raft.status();
        }
        Effects {
            write: output.write,
            messages: std::mem::take(&mut self.messages),
            apply: std::mem::take(&mut self.apply),
            answers: std::mem::take(&mut self.answers),
            jobs: std::mem::take(&mut self.jobs),
            release: self.release.take(),
            status_changed,
            end: self.end.clone(),
        }
    }

    /// Whether [`Self::output`] has something to do without any further input.
    pub fn has_output(&self) -> bool {
        let own = self.agreement_changed || self.reads.is_due() || self.writes.is_due();
        own || self.raft.has_output() || !self.jobs.is_empty()
    }

    /// What the protocol knows, now.
    pub fn status(&self) -> Status {
        self.raft.status()
    }

    /// What the leader knows of the members. Empty on others.
    pub fn progress(&self) -> Vec<Progress> {
        self.raft.progress()
    }

    /// What was handed out to be applied, and is not yet.
    pub fn backlog(&self) -> &Backlog {
        &self.backlog
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

    /// The members, this one among them, that are known to lack room, and how much they have.
    pub fn short_of_room(&self) -> Vec<(MemberId, Room)> {
        let own = (self.room != Room::Enough).then_some((self.id, self.room));
        own.into_iter().chain(self.rooms.short()).collect()
    }

    /// Hands leadership to the voter that is furthest of those that have room and apply, if there is one: another would hand it back.
    fn hand_leadership_over(&mut self) {
        let voters = &self.status.configuration.voters;
        let serves = |id| !self.rooms.is_short(id) && !self.standstills.has(id);
        let mut progress = self.raft.progress();
        progress.retain(|m| m.id != self.id && m.active && voters.contains(&m.id) && serves(m.id));
        if let Some(heir) = progress.iter().max_by_key(|member| member.matched) {
            let _ = self.raft.transfer(Some(heir.id));
        }
    }

    /// Tells the leader how much room this member has.
    fn tell_room(&mut self) {
        if let (_, Some(leader)) = self.raft.leadership()
            && leader != self.id
        {
            self.messages.push(Message::Room { from: self.id, to: leader, room: self.room });
        }
    }

    /// Whether a message is taken in. A member without room, or with next to no memory for more, takes no entries: it falls behind,
    /// as if it were away. All else goes on.
    fn takes(&self, message: &quorate_raft::Message) -> bool {
        let full = self.room.takes_nothing() || self.backlog.bytes() > MOST_BACKLOG * self.waiting_bytes;
        !full || !room::brings_entries(message)
    }

    /// Appends or forwards the commands that wait for it.
    fn hand_over(&mut self) {
        self.writes.begin();
        self.quota.hand_over();
        if self.writes.is_idle() {
            return;
        }
        match self.raft.leadership() {
            (term, Some(leader)) if leader == self.id => self.append(term),
            (term, Some(leader)) => self.writes.forward(self.id, leader, term, &mut self.messages),
            (_, None) => {}
        }
        self.writes.reject_forwarded(self.id, &mut self.messages);
    }

    /// Hands out what was committed. Whether the members' standing may have changed by it: that is known, and can be stored, before the
    /// state has come so far, and so before any snapshot covers it.
    fn hand_out(&mut self, committed: Vec<Entry>) -> bool {
        if committed.is_empty() {
            return false;
        }
        let mut configured = false;
        for entry in &committed {
            assert_eq!(entry.index, self.handed + 1, "entries are handed out in order, without a gap");
            self.handed = entry.index;
            if let Payload::Configuration(configuration) = &entry.payload {
                self.membership.committed(entry.index, configuration);
                configured = true;
            }
            self.tail.committed(entry.index, entry.weight() as u64);
        }
        self.backlog.handed_out(&committed);
        self.apply.push(Work::Entries(committed));
        configured
    }
}

#[cfg(test)]
mod tests;
