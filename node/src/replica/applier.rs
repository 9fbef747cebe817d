//! The applier: the state, and what committed entries make of it. The other half of a member beside the [`Replica`](super::Replica).
//!
//! The replica hands out [`Work`] as data and goes on; it learns what came of it by [`Replica::applied`](super::Replica::applied). So
//! nothing that the protocol does waits for the state, however long an entry takes. Synchronous, as the replica is: the server gives it
//! a thread, the simulator a cost.
//!
//! Work is done in the order in which it was handed out, which is that of the log. That keeps what the replica relies on:
//! - An entry is applied once, onto the state that all entries before it made.
//! - A snapshot that takes the place of the state follows the entries that were handed out before it, all of which it covers, and
//!   precedes those that the log holds behind it: none is applied onto a state that has it already.
//! - A snapshot that is due after an entry is begun before the next one is applied, so it is the same bytes on every member.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::RwLock;
use quorate_raft::{Configuration, Entry, Index, LogId, MemberId, Payload, Snapshot};

use super::{Options, Usage};
use crate::command::{self, Unread};
use crate::kv::{Applying, Collected, Garbage, KvError, Reply, SnapshotPolicy, Store};
use crate::leases::Change;
use crate::level::{FIRST, Level, Levels, Subject, Unsupported};
use crate::snapshots::Job;

/// How much is applied under one hold of the state's lock: readers wait for less than a millisecond.
const PIECE: Piece = Piece { entries: 256, steps: 4096 };

/// Steps that are taken in one go to remove what was compacted: a millisecond or so. The gaps of a segment that are closed last come on
/// top.
const COLLECTED_AT_ONCE: usize = 4096;

/// So many leases of a state that takes the place of another are told in one step.
const TOLD_AT_ONCE: usize = 4096;

/// So many bytes of entries are read ahead, and one entry more.
const READ_AHEAD: u64 = 1 << 20;

/// How much is applied in one step of the applier: no more than either.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// Entries that are begun.
    pub entries: usize,
    /// Steps of applying them ([`Applying::step`]). An entry that asks for more goes on with the next piece.
    pub steps: usize,
}

/// What the replica asks of the applier.
#[derive(Debug)]
pub enum Work {
    /// To apply entries that follow those handed out before: committed, and durable here.
    Entries(Vec<Entry>),
    /// To let the state of a snapshot, which covers everything handed out before, take the place of what there is.
    Replace(Snapshot, Box<Store>),
    /// To begin a snapshot of the state as it is then, though the log does not call for one.
    Snapshot,
}

/// What a step has done.
#[derive(Debug, Default)]
pub struct Step {
    /// Answers to commands of this member's clients, by their numbers. The state that they tell of can be read by now. Some may be of
    /// clients of an earlier process: what that appended is applied again when it was not known to be committed.
    pub answers: Vec<(u64, Result<Reply, KvError>)>,
    /// The revision of the state.
    pub revision: i64,
    /// For the replica.
    pub applied: Applied,
}

/// What the replica is told.
#[derive(Debug)]
pub struct Applied {
    /// The newest entry that was dealt with: the state holds it, and all before it.
    pub id: LogId,
    /// The commands among them that are of this member's clients.
    pub numbers: Vec<u64>,
    /// Work on snapshots that has come of it.
    pub jobs: Vec<Job>,
    /// The level of the state.
    pub level: Level,
    /// What the state takes.
    pub usage: Usage,
    /// What has become of leases. All that the state had up to entry `id` was told before or is told here.
    pub leases: Vec<Change>,
    /// The process must end: the next entry needs a level that it does not support. Nothing of that was applied, and nothing more will be.
    pub end: Option<Unsupported>,
}

impl Default for Applied {
    fn default() -> Self {
        Applied {
            id: LogId::default(),
            numbers: Vec::new(),
            jobs: Vec::new(),
            level: FIRST,
            usage: Usage::default(),
            leases: Vec::new(),
            end: None,
        }
    }
}

/// An entry that is being applied.
#[derive(Debug)]
struct Begun {
    id: LogId,
    /// What it weighs ([`Entry::weight`]); none if the state came with it.
    weight: Option<u64>,
    /// The configuration that it holds.
    configuration: Option<Configuration>,
    /// Its command, if there is one that the state has not got, and its number, if a client of this member waits for it.
    command: Option<(Applying, Option<u64>)>,
}

/// The state of one member, and the entries that wait for it.
#[derive(Debug)]
pub struct Applier {
    id: MemberId,
    store: Arc<RwLock<Store>>,
    policy: SnapshotPolicy,
    levels: Levels,
    /// The member's quota: what compactions leave is bounded by it. None for no limit.
    quota: Option<u64>,
    piece: Piece,
    /// The newest entry that was dealt with. The state may be ahead of it when the process starts.
    passed: LogId,
    /// The newest configuration up to that entry, and where it stood.
    configuration: Option<(LogId, Configuration)>,
    queue: VecDeque<Work>,
    /// The front of the queue, once it was begun.
    entries: VecDeque<Entry>,
    /// The entries before those: they are read, without the state's lock. The first may be applied in part: the state shows nothing of it
    /// yet. Nothing follows one that cannot be read.
    begun: VecDeque<Result<Begun, Unsupported>>,
    /// A snapshot's state that is to take the place of what there is, and the ID from which on its leases are still to be told.
    replacing: Option<(Snapshot, Box<Store>, i64)>,
    /// An entry could not be read: nothing more is done.
    ended: bool,
}

impl Applier {
    /// Of a member with these `options`, whose `store` holds what `snapshot` covers, or more, or is empty.
    pub fn new(options: &Options, snapshot: Option<&Snapshot>, store: Arc<RwLock<Store>>) -> Self {
        Applier {
            id: options.raft.id,
            store,
            policy: options.snapshots,
            levels: options.levels,
            quota: options.quota,
            piece: PIECE,
            passed: snapshot.map_or_else(LogId::default, |snapshot| snapshot.id),
            configuration: snapshot.map(|s| (s.configuration_id, s.configuration.clone())),
            queue: VecDeque::new(),
            entries: VecDeque::new(),
            begun: VecDeque::new(),
            replacing: None,
            ended: false,
        }
    }

    /// The same in pieces of another size: a simulator's states are small.
    #[must_use]
    pub fn in_pieces_of(self, piece: Piece) -> Self {
        Self { piece, ..self }
    }

    /// The state.
    pub fn store(&self) -> &Arc<RwLock<Store>> {
        &self.store
    }

    /// Adds work, which is done after all that was added before.
    pub fn push(&mut self, work: Vec<Work>) {
        self.queue.extend(work);
    }

    /// Whether there is something to do.
    pub fn is_busy(&self) -> bool {
        let is_replacing = self.replacing.is_some();
        let waits = !self.begun.is_empty() || !self.entries.is_empty() || !self.queue.is_empty();
        !self.ended && (is_replacing || waits)
    }

    /// Whether it is better not to do a step now: a snapshot that is being taken keeps too much from being removed. Not so before anybody takes it.
    pub fn waits_for_snapshot(&self) -> bool {
        self.quota.is_some_and(|quota| self.store.read().waits_for_snapshot(quota))
    }

    /// A step that does nothing.
    pub fn rest(&self) -> Step {
        self.finish(Step::default(), &self.store.read())
    }

    /// Does a piece of what there is to do, under one hold of the state's lock.
    pub fn step(&mut self) -> Step {
        if let Some((snapshot, state, from)) = self.replacing.take() {
            return self.tell_leases(snapshot, state, from);
        }
        if self.begun.is_empty() && self.entries.is_empty() {
            match self.queue.pop_front() {
                Some(Work::Entries(entries)) => self.entries = entries.into(),
                Some(Work::Replace(snapshot, state)) => return self.begin_to_replace(snapshot, state),
                Some(Work::Snapshot) => return self.snapshot(),
                None => {}
            }
        }
        if let Some(quota) = self.quota {
            let mut store = self.store.write();
            if store.bound_garbage(quota, COLLECTED_AT_ONCE) == Garbage::Removing {
                return self.finish(Step::default(), &store);
            }
        }
        self.apply()
    }

    /// Removes some of what compactions have left without use.
    pub fn collect(&mut self) -> Collected {
        self.store.write().collect(COLLECTED_AT_ONCE)
    }

    /// Applies the next entries, up to one that needs a level that is not supported, or more steps than there are.
    fn apply(&mut self) -> Step {
        self.read_ahead();
        let store = Arc::clone(&self.store);
        let mut store = store.write();
        let held = store.applied();
        let (mut step, mut steps) = (Step::default(), self.piece.steps);
        for _ in 0..self.piece.entries {
            if steps == 0 {
                break;
            }
            let Some(begun) = self.begun.pop_front() else { break };
            match begun.map(|begun| self.go_on(begun, &mut store, &mut steps, &mut step)) {
                Ok(None) => {}
                Ok(Some(rest)) => self.begun.push_front(Ok(rest)),
                Err(unsupported) => {
                    step.applied.end = Some(unsupported);
                    self.ended = true;
                    break;
                }
            }
        }
        store.applied_up_to(held.max(self.passed));
        step.applied.leases = store.leases_mut().take_changes();
        self.finish(step, &store)
    }

    /// Notes in `step` how far the state has come by it.
    fn finish(&self, mut step: Step, store: &Store) -> Step {
        step.revision = store.revision();
        (step.applied.id, step.applied.level) = (self.passed, store.level());
        step.applied.usage = Usage::of(store);
        step
    }

    /// Reads the entries that come next, as many as are applied in one step: long ones take their time, and readers wait for the lock.
    fn read_ahead(&mut self) {
        let held = self.store.read().applied().index;
        let mut bytes = 0;
        while self.begun.len() < self.piece.entries
            && bytes < READ_AHEAD
            && self.begun.back().is_none_or(Result::is_ok)
            && let Some(entry) = self.entries.pop_front()
        {
            bytes += entry.weight() as u64;
            let before = match self.begun.back() {
                Some(Ok(begun)) => begun.id.index,
                _ => self.passed.index,
            };
            assert_eq!(entry.index, before + 1, "entries are applied in order, without a gap");
            let begun = self.begin(entry, held);
            self.begun.push_back(begun);
        }
    }

    /// Begins to apply an entry, unless the state, which came with everything up to `held`, has it.
    fn begin(&self, entry: Entry, held: Index) -> Result<Begun, Unsupported> {
        let (id, weight) = (entry.id(), entry.weight() as u64);
        let is_new = id.index > held;
        let (mut command, mut configuration) = (None, None);
        match entry.payload {
            Payload::Command(bytes) => {
                let read = command::read(bytes.clone(), self.levels);
                let command::Command { origin, request, operation } =
                    read.map_err(|Unread(needs)| self.levels.lacks(Subject::Entry(id.index), needs))?;
                let number = (origin == self.id.0).then_some(request);
                let applying = Applying::new(operation, &bytes, number.is_some());
                command = Some((applying, number)).filter(|_| is_new);
            }
            Payload::Configuration(held) => configuration = Some(*held),
            Payload::Noop => {}
        }
        Ok(Begun { id, weight: is_new.then_some(weight), configuration, command })
    }

    /// Goes on with an entry that was begun. Returns it if there is more to do.
    fn go_on(
        &mut self,
        mut begun: Begun,
        store: &mut Store,
        steps: &mut usize,
        step: &mut Step,
    ) -> Option<Begun> {
        if let Some((applying, number)) = &mut begun.command {
            let Some(result) = applying.step_within(store, steps) else { return Some(begun) };
            if let Some(number) = *number {
                step.answers.push((number, result));
                step.applied.numbers.push(number);
            }
        }
        let Begun { id, weight, configuration, .. } = begun;
        self.passed = id;
        if let Some(configuration) = configuration {
            self.configuration = Some((id, configuration));
        }
        if weight.is_some_and(|weight| store.weigh(weight, self.policy)) {
            step.applied.jobs.extend(self.begin_snapshot(store));
        }
        None
    }

    /// Begins a snapshot of `store`, which holds what was dealt with and no more: none if the one before is still being written.
    fn begin_snapshot(&self, store: &mut Store) -> Option<Job> {
        let (configuration_id, configuration) = self.configuration.clone()?;
        let source = store.snapshot(self.policy.piece_bytes as usize)?;
        Some(Job::Take(Snapshot { id: self.passed, configuration, configuration_id }, source))
    }

    /// Takes a snapshot that the log does not call for.
    fn snapshot(&self) -> Step {
        let mut store = self.store.write();
        // A state from its copy may be ahead of what is known to be committed.
        let is_exact = store.applied() <= self.passed;
        let job = if is_exact { self.begin_snapshot(&mut store) } else { None };
        let mut step = Step::default();
        step.applied.jobs.extend(job);
        self.finish(step, &store)
    }

    /// Takes over the state of a snapshot, once its leases are told: in pieces, for there may be many.
    fn begin_to_replace(&mut self, snapshot: Snapshot, state: Box<Store>) -> Step {
        self.replacing = Some((snapshot, state, i64::MIN));
        let mut step = self.rest();
        step.applied.leases.push(Change::Replaced);
        step
    }

    fn tell_leases(&mut self, snapshot: Snapshot, state: Box<Store>, from: i64) -> Step {
        let leases: Vec<_> = state.leases().iter_from(from).take(TOLD_AT_ONCE).collect();
        let next = leases.last().and_then(|last| last.id.checked_add(1));
        let more = next.filter(|_| leases.len() == TOLD_AT_ONCE);
        let mut step = if let Some(next) = more {
            self.replacing = Some((snapshot, state, next));
            self.rest()
        } else {
            self.replace(snapshot, state)
        };
        step.applied.leases.extend(leases.into_iter().map(Change::Granted));
        step
    }

    fn replace(&mut self, snapshot: Snapshot, state: Box<Store>) -> Step {
        let Snapshot { id, configuration, configuration_id } = snapshot;
        let mut unused = state;
        let mut store = self.store.write();
        assert!(
            id.index > self.passed.index.max(store.applied().index),
            "a snapshot of the past replaces nothing"
        );
        std::mem::swap(&mut *store, &mut *unused);
        self.passed = id;
        self.configuration = Some((configuration_id, configuration));
        let mut step = Step::default();
        step.applied.jobs.push(Job::Discard(unused));
        self.finish(step, &store)
    }
}
