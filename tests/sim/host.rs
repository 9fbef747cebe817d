//! One member: its disk, its clock, and the process that runs on them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::RwLock;
use quorate_node::copy::Keeper;
use quorate_node::kv::SnapshotPolicy;
use quorate_node::level::{Levels, Unsupported};
use quorate_node::replica::{Applied, Applier, Options, Replica, Work};
use quorate_node::server::start::{self, Found, StartError};
use quorate_node::server::write_queue::{Group, WriteQueue};
use quorate_node::snapshots::{Corrupt, Digest, Report, Worker};
use quorate_node::storage::identity::Identity;
use quorate_node::storage::{OpenError, Wal, WalError, WalOptions, starts};
use quorate_raft::{Config, Index, Lease, MemberId, Restored, Role, Term, Write, WriteId};
use quorate_tests::linearizability::kv::Input;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use crate::applying::Pace;
use crate::clock::Clock;
use crate::copying::Seen;
use crate::disk::{Copied, Latency, SimDisk, SimEngine};
use crate::faults::{OLD, quota_of};
use crate::forms::{Form, Late};
use crate::invariants::Past;
use crate::leasing::LeaseAsked;
use crate::schedule::{Plan, stream};
use crate::streams::Peers;
use crate::time::{MILLI, Time};

/// Times of a member in ticks, as the server sets them.
pub(crate) const ELECTION_TICKS: u32 = 25;
const HEARTBEAT_TICKS: u32 = 5;
/// In the time in which one member counts [`ELECTION_TICKS`] less one no other counts fewer: one clock may be twice as fast.
const LEASE_TICKS: u32 = 12;
const REQUEST_TICKS: u64 = 350;
const TICKS_PER_SECOND: u64 = 50;

/// The pieces of snapshots: as small as can be.
const PIECE_BYTES: u32 = 4096;

/// The cluster of all runs.
pub(crate) const CLUSTER: u64 = 0x51_0e;

/// A member, whether its process is up or not.
// Each bool is a fact of its own about it.
#[allow(clippy::struct_excessive_bools)]
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) id: MemberId,
    pub(crate) disk: SimDisk,
    /// Of the copy of its state, if the run has such.
    pub(crate) engine: Option<SimEngine>,
    pub(crate) clock: Clock,
    /// Of its applier.
    pub(crate) pace: Pace,
    pub(crate) random: ChaCha8Rng,
    /// In which order its disk does what may be done in any.
    pub(crate) order: ChaCha8Rng,
    /// Counts its processes: an event of an earlier one is late.
    pub(crate) life: u32,
    pub(crate) stage: Stage,
    /// It does nothing until then.
    pub(crate) paused_until: Time,
    /// When its clock ticked last.
    pub(crate) ticked: Time,
    /// The process is killed as soon as it writes the next time.
    pub(crate) killed_when_it_writes: bool,
    /// The process is killed as soon as it starts the next time.
    pub(crate) killed_when_it_starts: bool,
    /// An earlier state of its disk, to be put back.
    pub(crate) backup: Option<(Copied, Past)>,
    /// Its disk has gone back in time: it may find that out, and know to have lost something.
    pub(crate) went_back: bool,
    /// Until it has everything again up to this entry it may have no vote.
    pub(crate) debt: Option<Index>,
    /// Its disk holds a flipped bit.
    pub(crate) flipped: bool,
    /// Its state came to differ from that of the others, by a fault or by the snapshot of one that did.
    pub(crate) differs: bool,
    /// The mark of that on its volume.
    pub(crate) corrupt: Option<Corrupt>,
    /// The snapshots that this process has told to hold.
    pub(crate) held: Vec<Digest>,
    /// What the version supports that it is started as next.
    pub(crate) levels: Levels,
    /// It never comes back: its disk is gone, or not what it was.
    pub(crate) lost: bool,
    /// It runs on a copy of this member's disk, beside that.
    pub(crate) copy_of: Option<MemberId>,
}

/// How far a process is.
#[derive(Debug)]
pub(crate) enum Stage {
    Down,
    /// It reads its disk.
    Starting(Box<Result<Opened, StartError>>),
    Up(Box<Process>),
}

/// What a process finds on its disk.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) identity: Identity,
    pub(crate) found: Found,
    pub(crate) copy: Seen,
    /// Which start it is on that disk, where they are counted.
    pub(crate) start: Option<u64>,
}

/// A process.
// Each bool is a fact of its own about it.
#[allow(clippy::struct_excessive_bools)]
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) replica: Replica,
    pub(crate) applier: Applier,
    /// Whom it hears, in runs that watch that.
    pub(crate) peers: Option<Peers>,
    /// A step of the applier is under way.
    pub(crate) applies: bool,
    /// What the applier has not got yet: the mark of a removal is to be stored before.
    pub(crate) work: Vec<Work>,
    /// NOSPACE is raised in its state.
    pub(crate) full: bool,
    /// What it has done and the replica has not heard of.
    pub(crate) reports: Vec<Applied>,
    pub(crate) identity: Identity,
    pub(crate) wal: Wal,
    /// Writes that wait for the disk.
    pub(crate) queue: WriteQueue,
    /// The group for which there was no descriptor.
    pub(crate) unwritten: Option<Group>,
    /// The log before this entry may go.
    pub(crate) release: Option<Index>,
    /// Its snapshots.
    pub(crate) worker: Worker,
    /// Its copy of the state, if there is one, and whether that was written in part.
    pub(crate) keeper: Option<Keeper>,
    pub(crate) copy_continues: bool,
    /// The mark of its removal, not stored yet: until then it does not act.
    pub(crate) unstored: Option<Index>,
    /// Numbers of compactions that were asked for: nobody waits for their answer.
    pub(crate) compactions: BTreeSet<u64>,
    /// The same of alarms.
    pub(crate) alarms: BTreeSet<u64>,
    /// What is asked of leases, by number.
    pub(crate) leasing: BTreeMap<u64, LeaseAsked>,
    pub(crate) task: Option<Task>,
    /// When the newest group was handed to the disk.
    pub(crate) task_since: Time,
    /// The next segment is ready: the disk has nothing to do.
    pub(crate) prepared: bool,
    /// A message of a cluster has come to a member that has none.
    pub(crate) adopts: bool,
    /// It will act soon upon what has happened.
    pub(crate) acts: bool,
    pub(crate) steps: u64,
    pub(crate) pending: BTreeMap<u64, Pending>,
    /// Those that were applied, and whose answers are not read to their ends.
    pub(crate) late: BTreeMap<u64, Late>,
    /// Numbers of those that have theirs, and whether it came from the applier.
    pub(crate) answered: BTreeMap<u64, bool>,
    pub(crate) next_number: u64,
    /// What it showed last.
    pub(crate) shown: (Role, Term),
    /// Whether it has known a leader.
    pub(crate) heard: bool,
    /// Its log was damaged, and is not whole yet.
    pub(crate) repairing: bool,
}

/// What the disk is doing.
#[derive(Debug)]
pub(crate) enum Task {
    Append(Group, Result<(), WalError>),
    Release(Index, Result<(), WalError>),
    Snapshot(Option<Report>),
    Prepare(Result<bool, WalError>),
    Adopt(Result<(), OpenError>),
    Mark(Result<(), OpenError>),
}

/// How long a process rests before it tries again what it lacked a descriptor for.
const RETRY: Time = 20 * MILLI;

impl Task {
    /// How long it is until something else is tried, beside what the disk takes: without a descriptor nothing has reached that.
    pub(crate) fn rests(&self) -> Time {
        let lacks = match self {
            Task::Append(_, Err(error)) | Task::Prepare(Err(error)) | Task::Release(_, Err(error)) => {
                matches!(error, WalError::NoDescriptors { .. })
            }
            Task::Adopt(Err(error)) | Task::Mark(Err(error)) => error.lacks_descriptors(),
            _ => false,
        };
        if lacks { RETRY } else { 0 }
    }
}

/// A request that waits for its answer.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) client: usize,
    pub(crate) token: u64,
    pub(crate) input: Input,
    pub(crate) form: Form,
    /// The newest revision that was acknowledged when it came.
    pub(crate) began: i64,
}

impl Host {
    pub(crate) fn new(plan: &Plan, id: MemberId) -> Self {
        let mut random = stream(plan.seed, "host", id.0);
        let disk = SimDisk::new(Latency::new(plan.sync), plan.reserves, random.random());
        let drift = random.random_range(-plan.drift..=plan.drift);
        let engine = plan
            .copying
            .as_ref()
            .map(|copying| SimEngine::new(copying.sync, stream(plan.seed, "engine", id.0).random()));
        Self {
            id,
            disk,
            engine,
            clock: Clock::new(drift),
            pace: Pace::new(plan, id),
            random,
            order: stream(plan.seed, "order", id.0),
            life: 0,
            stage: Stage::Down,
            paused_until: 0,
            ticked: 0,
            killed_when_it_writes: false,
            killed_when_it_starts: false,
            backup: None,
            went_back: false,
            debt: None,
            flipped: false,
            differs: false,
            corrupt: None,
            held: Vec::new(),
            levels: if plan.two_levels { OLD } else { Levels::ALL },
            lost: false,
            copy_of: None,
        }
    }

    pub(crate) fn process(&self) -> Option<&Process> {
        match &self.stage {
            Stage::Up(process) => Some(process),
            Stage::Down | Stage::Starting(_) => None,
        }
    }

    pub(crate) fn process_mut(&mut self) -> Option<&mut Process> {
        match &mut self.stage {
            Stage::Up(process) => Some(process),
            Stage::Down | Stage::Starting(_) => None,
        }
    }

    /// Writes down what the cluster begins with.
    pub(crate) fn found(&self, plan: &Plan, log: &Restored) {
        let Opened { mut identity, mut found, .. } = self.open(plan).expect("an empty disk can be used");
        let write = Write {
            id: WriteId(0),
            hard_state: Some(log.hard_state),
            reset: None,
            lost: None,
            entries: log.entries.clone(),
        };
        found.wal.append(&[write]).expect("an empty disk can be written");
        identity.join(&self.disk, &dir(), CLUSTER).expect("an empty disk can be written");
        self.disk.finish();
    }

    /// Reads the disk.
    pub(crate) fn open(&self, plan: &Plan) -> Result<Opened, StartError> {
        let identity = Identity::open(&self.disk, &dir(), self.id)?;
        let log = WalOptions {
            segment_bytes: plan.segment_bytes,
            disk: Arc::new(self.disk.clone()),
            ..WalOptions::new(identity.member)
        };
        let mut copy = Seen::default();
        let found = start::read(&dir(), &log, |is_known| self.open_copy(is_known, &mut copy))?;
        let start = plan.streams.then(|| self.count_start()).transpose()?;
        Ok(Opened { identity, found, copy, start })
    }

    /// Counts this start on the disk, as the server does: without room, in memory.
    fn count_start(&self) -> Result<u64, OpenError> {
        match starts::count(&self.disk, &dir(), 0) {
            Err(error) if error.is_full() => Ok(starts::read(&self.disk, &dir())?.saturating_add(1)),
            counted => counted,
        }
    }

    /// A process on what was found, which has applied what is committed; none if that is of a level which its version does not support.
    pub(crate) fn process_on(
        &mut self,
        plan: &Plan,
        opened: Opened,
    ) -> Result<(Process, Restored), Unsupported> {
        let Opened { identity, found, start, .. } = opened;
        let Found { wal, archive, restored, state, copy, .. } = found;
        // As the server does: a log without a cluster is that of a founding that was cut short.
        let restored = match identity.cluster {
            0 => Restored::default(),
            _ => restored,
        };
        // Now and then a process has none, though the one before made promises.
        let has_leases = plan.leases && !(self.id.0 + u64::from(self.life)).is_multiple_of(8);
        let raft = Config {
            id: identity.member,
            election_ticks: ELECTION_TICKS,
            start_ticks: plan.start_ticks,
            heartbeat_ticks: HEARTBEAT_TICKS,
            disk_ticks: 2 * ELECTION_TICKS,
            // Some are preferred: leadership goes back to them whenever they can have it.
            priority: u32::try_from(self.id.0 % 3).unwrap_or(0),
            lease: has_leases.then_some(Lease { ticks: LEASE_TICKS }),
            promised: plan.leases,
            max_append_bytes: plan.max_append_bytes,
            max_inflight_bytes: plan.max_inflight_bytes,
            seed: self.random.random(),
        };
        let options = Options {
            raft,
            request_ticks: REQUEST_TICKS,
            ticks_per_second: TICKS_PER_SECOND,
            waiting_bytes: 64 << 20,
            snapshots: SnapshotPolicy { least_bytes: plan.snapshot_bytes, piece_bytes: PIECE_BYTES },
            kept_log_bytes: plan.kept_log_bytes,
            removed: identity.removed,
            levels: self.levels,
            quota: plan.quota.map(|quota| quota_of(self.id, quota)),
            corrupt: self.corrupt,
        };
        let held: Vec<_> = archive.manifests().cloned().collect();
        let state = Arc::new(RwLock::new(state));
        let worker = Worker::new(archive, Arc::clone(&state));
        let keeper = copy.zip(plan.copying.as_ref()).map(|(copy, copying)| {
            copy.keeper(self.id, Arc::clone(&state)).in_blocks_of(copying.block_bytes)
        });
        let (mut replica, applier) = start::member(options, restored.clone(), state)?;
        replica.holds(&held);
        self.held = held.iter().map(Digest::of).collect();
        let peers = start.map(|start| {
            let nonce = stream(plan.seed, "nonce", self.id.0 << 32 | u64::from(self.life)).random();
            Peers::new(start, nonce, wal.sequence())
        });
        let mut process = Process {
            replica,
            peers,
            applier: applier.in_pieces_of(plan.applying.piece),
            applies: false,
            full: false,
            work: Vec::new(),
            reports: Vec::new(),
            identity,
            wal,
            queue: WriteQueue::default(),
            unwritten: None,
            release: None,
            worker,
            keeper,
            copy_continues: false,
            unstored: None,
            compactions: BTreeSet::new(),
            alarms: BTreeSet::new(),
            leasing: BTreeMap::new(),
            task: None,
            task_since: 0,
            prepared: false,
            adopts: false,
            acts: false,
            steps: 0,
            pending: BTreeMap::new(),
            late: BTreeMap::new(),
            answered: BTreeMap::new(),
            next_number: self.random.random_range(1..u64::MAX / 2),
            shown: (Role::Learner, restored.hard_state.term),
            heard: false,
            repairing: restored.lost.is_some(),
        };
        process.note_removal();
        Ok((process, restored))
    }
}

/// The data directory of every member, each on its own disk.
pub(crate) fn dir() -> PathBuf {
    Path::new("/").to_owned()
}

/// How a member is called in words.
pub(crate) fn name(id: MemberId) -> String {
    format!("n{}", id.0)
}

/// How several are.
pub(crate) fn names<'a>(ids: impl IntoIterator<Item = &'a MemberId>) -> String {
    ids.into_iter().map(|id| name(*id)).collect::<Vec<_>>().join(" ")
}
