//! The one loop: takes what has happened, lets the replica act upon it, and sets off what the replica asks for.
//!
//! It waits for nothing but events and the next tick: the disk, the state and the clients have threads of their own. It shares its thread
//! with the connections to other members: a message goes from the socket to the replica and its answer back without waking
//! another thread.

use std::time::Instant;

use quorate_api::log;
use quorate_raft::{Contradiction, HardState, MemberId, Raft, Restored, Term, Write, WriteId};
use tokio::sync::oneshot;
use tokio::time::{MissedTickBehavior, interval};

use super::apply_thread::ApplyThread;
use super::auto_compaction::AutoCompaction;
use super::copy_thread::CopyThread;
use super::data_dir::DataDir;
use super::lease_clock::LeaseClock;
use super::log_thread::LogThread;
use super::snapshot_thread::SnapshotThread;
use super::status_view::StatusView;
use super::timing::{PROGRESS_TICKS, TICK};
use crate::codec;
use crate::doors::event::{ClusterError, Event};
use crate::doors::gateway::Answers;
use crate::doors::health::Health;
use crate::doors::mailbox::Receiver;
use crate::kv::Store;
use crate::level::{Levels, Unsupported};
use crate::metrics::Metrics;
use crate::peer::Peers;
use crate::replica::{Agreement, Answer, Client, Effects, Held, Options, Outcome, Replica, Room, found_at};
use crate::snapshots::Report;

/// What the loop works with.
#[derive(Debug)]
pub(crate) struct Driver {
    pub(crate) options: Options,
    pub(crate) replica: Replica,
    pub(crate) data_dir: DataDir,
    pub(crate) log_thread: LogThread,
    pub(crate) apply_thread: ApplyThread,
    pub(crate) snapshot_thread: SnapshotThread,
    /// Writes the copy for as long as the loop lasts. None where none is asked for, or there is no engine.
    pub(crate) copy_thread: Option<CopyThread>,
    pub(crate) clock: LeaseClock,
    pub(crate) peers: Peers,
    /// By [`Client`].
    pub(crate) gateways: Vec<Gateway>,
    pub(crate) status_view: StatusView,
    pub(crate) health: Health,
    pub(crate) metrics: Metrics,
    /// This node, as configurations describe it.
    pub(crate) member: log::Member,
    pub(crate) founding: Option<Founding>,
    /// Compaction without being asked, and when its time began. None where none is wanted.
    pub(crate) compaction: Option<(Instant, AutoCompaction)>,
    /// What its disk has forgotten, and is not known on it yet to be owed.
    pub(crate) forgotten: Option<Forgotten>,
    /// It waits for the answer to a read of its own.
    pub(crate) reads: bool,
}

/// Who asks when the loop itself does: a node is ready once it could have answered such a read.
const ITSELF: Client = Client(usize::MAX);

/// Where one runtime's answers go, and those gathered for it.
#[derive(Debug)]
pub(crate) struct Gateway {
    answers: Answers,
    gathered: Vec<Answer>,
}

impl Gateway {
    pub(crate) fn new(answers: Answers) -> Self {
        Gateway { answers, gathered: Vec::new() }
    }
}

/// A cluster that is being founded: its first entry is on its way to the disk.
#[derive(Debug)]
pub(crate) struct Founding {
    cluster_id: u64,
    log: Restored,
    reply: oneshot::Sender<Result<(), ClusterError>>,
}

/// A process of this member that its disk has forgotten.
#[derive(Debug)]
pub(crate) struct Forgotten {
    start: u64,
    durable: u64,
    term: Term,
    /// The write that says what is owed for it.
    owed_by: Option<WriteId>,
}

/// Why the loop has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    /// It was told to.
    Stopped,
    /// The log cannot be written any more.
    DiskFailed(String),
    /// What comes next needs a level that this process does not support.
    Unsupported(Unsupported),
    /// A leader contradicts what is committed here.
    Contradiction(String),
    /// Another process runs as this member.
    Conflict(String),
    /// A snapshot has come, and there is no room for its state beside the present one: all is to be read anew, from that snapshot.
    StartsAnew,
    /// The node, which belongs to no cluster, takes this ID, and starts anew with it.
    BecomesAnother(MemberId),
}

/// Whether to go on.
type Next = Result<(), End>;

impl Driver {
    /// Runs until the end.
    pub(crate) async fn run(mut self, events: Receiver) -> End {
        let mut taken = Vec::new();
        let mut clock = interval(TICK);
        clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut ticks = 0_u64;
        loop {
            let mut time_passes = false;
            tokio::select! {
                biased;
                _ = clock.tick() => time_passes = true,
                () = events.arrived() => {}
                // Everything else on this thread has its turn: what is sent goes out, and what has come in goes along.
                () = tokio::task::yield_now(), if self.replica.has_output() => {}
            }
            events.take(&mut taken);
            // The clock is read once the events are taken: a read among them was asked for before that moment.
            self.tell_time();
            for event in taken.drain(..) {
                if let Err(end) = self.handle(event) {
                    return end;
                }
            }
            if time_passes {
                ticks += 1;
                self.tick(ticks);
            }
            if let Err(end) = self.act() {
                return end;
            }
            tokio::task::yield_now().await;
        }
    }

    /// Leases end also while nothing runs.
    fn tell_time(&mut self) {
        if self.options.raft.lease.is_some() {
            self.replica.overslept(self.clock.missed());
        }
    }

    fn tick(&mut self, ticks: u64) {
        self.health.moves();
        self.clock.ticked();
        if self.data_dir.cluster() == 0 {
            return;
        }
        self.replica.tick();
        self.health.applier_stands_still(TICK * self.replica.backlog().stood_still() as u32);
        if !self.status_view.is_caught_up() && !self.reads {
            self.reads = true;
            self.replica.read(ITSELF, 0);
        }
        self.compact();
        if ticks.is_multiple_of(PROGRESS_TICKS) {
            let backlog = self.replica.backlog();
            self.metrics.backlog(backlog.entries(), backlog.bytes(), TICK * backlog.waited() as u32);
            self.status_view.publish(&self.replica, self.data_dir.cluster());
        }
    }

    /// Compacts if it is time, and this member leads.
    fn compact(&mut self) {
        let Some((begun, compaction)) = &mut self.compaction else { return };
        let leads = self.status_view.leads();
        let due = compaction.due(begun.elapsed(), self.status_view.revision(), leads);
        if let Some(revision) = due
            && self.replica.compact(revision)
        {
            tracing::info!(
                revision,
                "compacts the history before this revision (--auto-compaction-retention)"
            );
        }
    }

    fn handle(&mut self, event: Event) -> Next {
        match event {
            Event::Requests { client, writes, read, questions } => {
                if !writes.is_empty() {
                    self.metrics.proposals.inc_by(writes.len() as u64);
                    self.replica.write(client, writes);
                }
                if let Some(number) = read {
                    self.metrics.read_batches.inc();
                    self.replica.read(client, number);
                }
                if !questions.is_empty() {
                    self.replica.ask(client, questions);
                }
            }
            Event::Messages(messages) => {
                // Between the first words of a peer and the moment that the cluster's ID is durable there are none.
                if self.data_dir.cluster() != 0 {
                    self.metrics.peer_messages.inc_by(messages.len() as u64);
                    for message in messages {
                        self.replica.receive(message);
                    }
                }
            }
            Event::WentBack { start, durable, term } => self.went_back(start, durable, term),
            Event::Conflict { what, ends } => {
                self.status_view.conflict(what.clone());
                self.status_view.publish(&self.replica, self.data_dir.cluster());
                return if ends { Err(End::Conflict(what)) } else { Ok(()) };
            }
            Event::Undelivered(messages) => self.replica.undelivered(messages),
            Event::Disconnected(peer) => self.replica.disconnected(peer),
            Event::Adopt { cluster_id, reply } => {
                let result = self.adopt(cluster_id);
                let next = must_not_go_on(&result);
                let _ = reply.send(result);
                return next;
            }
            Event::Bootstrap { cluster_id, reply } => self.bootstrap(cluster_id, reply),
            Event::TakeId { member, reply } => return self.take_id(member, reply),
            Event::ChangeMembership { expected, wanted, reply } => {
                let _ = reply.send(self.replica.change_membership(expected, wanted));
            }
            Event::Transfer { target, reply } => {
                let _ = reply.send(self.replica.transfer(target));
            }
            Event::RaiseLevel { to, reply } => {
                let _ = reply.send(self.replica.raise_level(to));
            }
            Event::Persisted(id) => return self.persisted(id),
            Event::PersistedPart(id, index) => self.replica.persisted_part(id, index),
            Event::Applied(applied) => self.replica.applied(applied),
            Event::Snapshot(Report::Whole(manifest)) => {
                let (index, bytes) = (manifest.id().index, manifest.bytes());
                tracing::warn!(
                    index,
                    bytes,
                    "a snapshot has come, and there is no room for its state beside the present one (--quota-bytes, and half as much again): starts anew from it"
                );
                return Err(End::StartsAnew);
            }
            Event::Snapshot(report) => {
                if let Report::Taken(manifest) | Report::Received(manifest, _) = &report {
                    self.log_thread.next_snapshot(manifest.bytes());
                }
                self.replica.reported(report);
            }
            Event::Room(room) => {
                self.replica.set_room(room);
                if let Some(copy_thread) = &self.copy_thread {
                    copy_thread.suspend(room != Room::Enough);
                }
                self.status_view.publish(&self.replica, self.data_dir.cluster());
            }
            Event::Unsupported(unsupported) => return Err(End::Unsupported(unsupported)),
            Event::DiskFailed(reason) => return Err(End::DiskFailed(reason)),
            Event::Stopping => {
                self.status_view.stopping();
                self.status_view.publish(&self.replica, self.data_dir.cluster());
            }
            Event::Stop => return Err(End::Stopped),
        }
        Ok(())
    }

    /// Sets off what the replica asks for: what goes to the disk and to other members first, for they need it most.
    fn act(&mut self) -> Next {
        let Effects { write, messages, apply, answers, jobs, release, status_changed, end } =
            self.replica.output();
        if let Some(unsupported) = end {
            return Err(End::Unsupported(unsupported));
        }
        if let Some(write) = write {
            if let Some(forgotten) = self.forgotten.as_mut().filter(|_| write.lost.is_some()) {
                forgotten.owed_by = Some(write.id);
            }
            self.log_thread.write(write);
        }
        if status_changed {
            // Before a snapshot can be durable that covers what told of it: so before that is applied.
            self.note_removal()?;
            self.look_for_contradictions()?;
            self.note_corruption();
            self.snapshot_thread.hurry(!self.replica.is_waited_for());
            self.status_view.publish(&self.replica, self.data_dir.cluster());
            self.peers.configure(self.status_view.members());
        }
        let untaken = self.peers.send(messages);
        self.replica.undelivered(untaken);
        self.apply_thread.push(apply);
        if let Some(index) = release {
            self.log_thread.release_before(index);
        }
        self.snapshot_thread.push(jobs);
        self.answer(answers);
        Ok(())
    }

    /// What cannot be, unless another member has forgotten something, or a copy of one runs.
    fn look_for_contradictions(&mut self) -> Next {
        match self.replica.status().contradiction {
            Some(contradiction @ Contradiction::Committed { .. }) => {
                Err(End::Contradiction(contradiction.to_string()))
            }
            Some(Contradiction::TwoLeaders { .. }) | None => Ok(()),
        }
    }

    /// That this member's state is not to be served outlives the process.
    fn note_corruption(&mut self) {
        if let Agreement::Corrupt(corrupt) = self.replica.agreement()
            && self.options.corrupt.replace(corrupt) != Some(corrupt)
        {
            self.data_dir.set_corrupt(&corrupt);
        }
    }

    /// A removal, and its opposite, outlive what the log tells of them.
    fn note_removal(&mut self) -> Next {
        must_not_go_on(&self.data_dir.set_removed(self.replica.removed()))
    }

    /// Leaves answers at the gateways, one batch for each.
    fn answer(&mut self, answers: Vec<Answer>) {
        if answers.is_empty() {
            return;
        }
        for answer in answers {
            if answer.client == ITSELF {
                self.read(&answer.outcome);
                continue;
            }
            let Client(client) = answer.client;
            if let Some(gateway) = self.gateways.get_mut(client) {
                gateway.gathered.push(answer);
            }
        }
        for gateway in &mut self.gateways {
            if !gateway.gathered.is_empty() {
                gateway.answers.post(&mut gateway.gathered);
            }
        }
    }

    /// The loop's own read is answered.
    fn read(&mut self, outcome: &Outcome) {
        self.reads = false;
        if matches!(outcome, Outcome::Readable) {
            self.status_view.catches_up();
            self.status_view.publish(&self.replica, self.data_dir.cluster());
        }
    }

    /// The disk has forgotten a process that was the `start`th, and made `durable` groups of writes durable, the last in `term` or later.
    fn went_back(&mut self, start: u64, durable: u64, term: Term) {
        if self.peers.own_process().accounts_for(start, durable) {
            return;
        }
        let (mut start, mut durable, mut term) = (start, durable, term);
        if let Some(before) = &self.forgotten {
            if before.start >= start && before.durable >= durable && before.term >= term {
                // It is said again and again, until that is durable.
                return;
            }
            start = start.max(before.start);
            durable = durable.max(before.durable);
            term = term.max(before.term);
        }
        self.replica.went_back(term);
        self.forgotten = Some(Forgotten { start, durable, term, owed_by: None });
    }

    /// The debt is durable. Only now the others may take what this member says: a process that follows upon this one knows of it too.
    fn account(&mut self, id: WriteId) -> Next {
        let is_durable = |forgotten: &mut Forgotten| forgotten.owed_by.is_some_and(|owed_by| owed_by <= id);
        let Some(Forgotten { start, durable, .. }) = self.forgotten.take_if(is_durable) else {
            return Ok(());
        };
        let counted = self.data_dir.count_start(start);
        must_not_go_on(&counted)?;
        if let Ok(number) = counted {
            self.peers.own_process().account_for(number, durable);
        }
        Ok(())
    }

    /// Makes the cluster of a peer, who has been told to include this node, its own.
    fn adopt(&mut self, cluster_id: u64) -> Result<(), ClusterError> {
        if self.founding.is_some() {
            return Err(ClusterError::InProgress);
        }
        self.data_dir.join(cluster_id)?;
        self.status_view.publish(&self.replica, cluster_id);
        Ok(())
    }

    /// Ends, to become the member that a client has registered: everything here knows this process by the ID that it had, and so does the log, in which
    /// nothing stands yet.
    fn take_id(&self, member: MemberId, reply: oneshot::Sender<ClusterError>) -> Next {
        let may =
            if self.founding.is_some() { Err(ClusterError::InProgress) } else { self.data_dir.may_take_id() };
        match may {
            Ok(()) => Err(End::BecomesAnother(member)),
            Err(error) => {
                let _ = reply.send(error);
                Ok(())
            }
        }
    }

    /// Founds a cluster: the log's first entry, then the identity. A crash between them leaves a log without a cluster, which
    /// counts as empty; nothing was promised yet.
    fn bootstrap(&mut self, cluster_id: u64, reply: oneshot::Sender<Result<(), ClusterError>>) {
        let refusal = match self.data_dir.cluster() {
            _ if cluster_id == 0 => Err(ClusterError::NoId),
            _ if self.founding.is_some() => Err(ClusterError::InProgress),
            0 => Ok(()),
            mine if mine != cluster_id => Err(ClusterError::Other { mine, asked: cluster_id }),
            _ if self.data_dir.is_founder() => {
                let _ = reply.send(Ok(()));
                return;
            }
            mine => Err(ClusterError::NotFounder(mine)),
        };
        if let Err(error) = refusal {
            let _ = reply.send(Err(error));
            return;
        }
        let (log, write) = founding_log(&self.member, self.options.levels);
        self.data_dir.begins();
        self.log_thread.write(write);
        self.founding = Some(Founding { cluster_id, log, reply });
    }

    fn persisted(&mut self, id: WriteId) -> Next {
        let Some(Founding { cluster_id, log, reply }) = self.founding.take() else {
            self.replica.persisted(id);
            return self.account(id);
        };
        let result = self.data_dir.found(cluster_id);
        if result.is_ok() {
            // What was asked before has been refused, and is to be told.
            let Effects { answers, .. } = self.replica.output();
            self.answer(answers);
            // The state is empty, and nothing was handed out to be applied.
            self.replica = Replica::new(self.options.clone(), log, Held::of(&Store::new()));
            self.reads = false;
            self.status_view.publish(&self.replica, cluster_id);
            self.peers.configure(self.status_view.members());
            tracing::info!(cluster = format_args!("{cluster_id:016x}"), "founded a cluster");
        }
        let next = must_not_go_on(&result);
        let _ = reply.send(result);
        next
    }
}

/// An identity that could not be stored leaves the disk in doubt: the process ends, and finds out when it starts again.
fn must_not_go_on<T>(result: &Result<T, ClusterError>) -> Next {
    match result {
        Err(ClusterError::Storage(reason)) => Err(End::DiskFailed(reason.clone())),
        _ => Ok(()),
    }
}

/// The log of a cluster whose one member is `member`, with the newest of `levels`, and the write that makes it durable.
pub(crate) fn founding_log(member: &log::Member, levels: Levels) -> (Restored, Write) {
    let log = found_at(levels.newest, Raft::founding(MemberId(member.id), codec::address(member)));
    let hard_state: HardState = log.hard_state;
    let write = Write {
        id: WriteId(0),
        hard_state: Some(hard_state),
        reset: None,
        lost: None,
        entries: log.entries.clone(),
    };
    (log, write)
}
