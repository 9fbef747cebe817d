//! What goes wrong, and what people do to a cluster: each kind is a row of [`KINDS`] and a function in the file of its part.
//!
//! Faults are drawn before the run begins, each with dice of its own, and have numbers: a run can be repeated without some of
//! them. What Raft cannot survive is not injected: see [`legal`].

mod applying;
mod beside;
mod clock;
mod copy;
mod disk;
mod legal;
mod level;
mod membership;
mod network;
mod process;
mod quota;
mod state;

use quorate_raft::{MemberId, Role};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::clients;
use crate::host::name;
use crate::schedule::logarithmic;
use crate::time::{SECOND, Time};
use crate::world::World;

pub(crate) use level::OLD;
pub(crate) use membership::Errand;
pub(crate) use quota::of as quota_of;

/// A fault of a run.
#[derive(Debug, Clone)]
pub(crate) struct Fault {
    pub(crate) number: usize,
    pub(crate) at: Time,
    pub(crate) kind: Kind,
    dice: u64,
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    LoseMessages,
    DoubleMessages,
    ReorderMessages,
    DelayMessages,
    CutOneWay,
    Isolate,
    Partition,
    BreakConnections,
    Kill,
    KillWriting,
    KillStarting,
    KillAll,
    CutPower,
    CutAllPower,
    Pause,
    SlowDisk,
    StallDisk,
    FailWrite,
    FailSync,
    FillDisk,
    FlipBit,
    LoseDisk,
    Drift,
    Jump,
    Grow,
    AddLearner,
    Shrink,
    Replace,
    Reshape,
    ImpossibleChange,
    Transfer,
    Compact,
    FailCopy,
    LoseCopy,
    AgeCopy,
    FlipCopy,
    KillMarking,
    FailMarking,
    TakeDescriptors,
    SlowApplying,
    StallApplying,
    DelayAnswers,
    Upgrade,
    Downgrade,
    RaiseLevel,
    Alarm,
    MakeRoom,
    GoBack,
    Differ,
    CopyBeside,
    JumpTerm,
}

/// A kind, its words, and how often it happens at the most, in a thousand seconds.
pub(crate) type Row = (Kind, &'static str, u64);

/// The kinds. A new one goes into a list of its own, with a stream of its own: to draw it among these would change every seed's plan.
pub(crate) const KINDS: &[Row] = &[
    (Kind::LoseMessages, "messages are lost", 300),
    (Kind::DoubleMessages, "messages are doubled", 300),
    (Kind::ReorderMessages, "messages overtake one another", 300),
    (Kind::DelayMessages, "messages are late", 300),
    (Kind::CutOneWay, "a member is cut off one way", 200),
    (Kind::Isolate, "a member is cut off", 200),
    (Kind::Partition, "the network is parted", 200),
    (Kind::BreakConnections, "connections break", 300),
    (Kind::Kill, "a process is killed", 300),
    (Kind::KillWriting, "a process is killed while it writes", 300),
    (Kind::KillStarting, "a process is killed, and again while it starts", 200),
    (Kind::KillAll, "all processes are killed", 30),
    (Kind::CutPower, "a machine loses its power", 200),
    (Kind::CutAllPower, "all machines lose their power", 30),
    (Kind::Pause, "a process is paused", 300),
    (Kind::SlowDisk, "a disk is slow", 200),
    (Kind::StallDisk, "a disk hangs", 200),
    (Kind::FailWrite, "a write fails", 200),
    (Kind::FailSync, "an fsync fails", 200),
    (Kind::FillDisk, "a disk is full", 100),
    (Kind::FlipBit, "a bit flips on a disk", 60),
    (Kind::LoseDisk, "a disk is lost", 60),
    (Kind::Drift, "a clock drifts", 200),
    (Kind::Jump, "a clock jumps", 200),
    (Kind::Grow, "a voter is added", 100),
    (Kind::AddLearner, "a learner is added", 60),
    (Kind::Shrink, "a member is removed", 100),
    (Kind::Replace, "a voter is replaced", 100),
    (Kind::Reshape, "several members come and go at once", 100),
    (Kind::ImpossibleChange, "an impossible change is asked for", 100),
    (Kind::Transfer, "leadership is transferred", 200),
    (Kind::Compact, "revisions are compacted", 500),
];

/// The same of what goes wrong with copies of the state.
pub(crate) const KINDS_OF_COPIES: &[Row] = &[
    (Kind::FailCopy, "the copy of a state fails", 200),
    (Kind::LoseCopy, "the copy of a state is lost", 100),
    (Kind::AgeCopy, "an older copy of a state comes back", 200),
    (Kind::FlipCopy, "a bit flips in the copy of a state", 200),
];

/// The same of the marks of removals.
pub(crate) const KINDS_OF_MARKS: &[Row] = &[
    (Kind::KillMarking, "a process is killed while it stores a removal", 300),
    (Kind::FailMarking, "a removal cannot be stored", 100),
];

/// The same of what the system denies a process beside its disk.
pub(crate) const KINDS_OF_LIMITS: &[Row] = &[(Kind::TakeDescriptors, "descriptors run out", 200)];

/// The same of applying.
pub(crate) const KINDS_OF_APPLYING: &[Row] =
    &[(Kind::SlowApplying, "applying is slow", 200), (Kind::StallApplying, "applying stands still", 300)];

/// The same of what leases rest on.
pub(crate) const KINDS_OF_LEASES: &[Row] =
    &[(Kind::DelayAnswers, "a leader's answers are late, and then its words are lost", 400)];

/// The same of runs with members of two versions.
pub(crate) const KINDS_OF_LEVELS: &[Row] = &[
    (Kind::Upgrade, "a member is upgraded", 2000),
    (Kind::Downgrade, "a member is put back to the older version", 200),
    (Kind::RaiseLevel, "the level is raised", 600),
    (Kind::Alarm, "an alarm is raised or disarmed", 600),
];

/// The same of members with a quota.
pub(crate) const KINDS_OF_QUOTAS: &[Row] = &[(Kind::MakeRoom, "room is made, and NOSPACE disarmed", 1000)];

/// The same of disks that come back whole and older.
pub(crate) const KINDS_OF_PASTS: &[Row] = &[(Kind::GoBack, "a disk goes back in time", 600)];

/// The same of states that come to differ.
pub(crate) const KINDS_OF_STATES: &[Row] = &[(Kind::Differ, "a state comes to differ", 400)];

/// The same of runs that watch who is heard.
pub(crate) const KINDS_OF_STREAMS: &[Row] = &[
    (Kind::CopyBeside, "a copy of a member is started beside it", 1000),
    (Kind::JumpTerm, "a member speaks of a term that cannot be", 300),
];

/// All of them, in the order in which they are printed.
pub(crate) fn kinds() -> impl Iterator<Item = &'static Row> {
    let limits = KINDS_OF_LIMITS.iter().chain(KINDS_OF_APPLYING).chain(KINDS_OF_LEASES);
    KINDS
        .iter()
        .chain(KINDS_OF_COPIES)
        .chain(KINDS_OF_MARKS)
        .chain(limits)
        .chain(KINDS_OF_LEVELS)
        .chain(KINDS_OF_QUOTAS)
        .chain(KINDS_OF_PASTS)
        .chain(KINDS_OF_STATES)
        .chain(KINDS_OF_STREAMS)
}

impl Kind {
    /// Whether it concerns applying, and nothing else.
    pub(crate) fn is_of_applying(self) -> bool {
        KINDS_OF_APPLYING.iter().any(|(kind, ..)| *kind == self)
    }

    pub(crate) fn words(self) -> &'static str {
        kinds().find(|(kind, ..)| *kind == self).expect("every kind has a row").1
    }
}

/// The faults of a run. Some kinds are off, the others have a rate each.
pub(crate) fn draw(random: &mut ChaCha8Rng, duration: Time) -> Vec<Fault> {
    let share = random.random_range(0.05..0.6);
    let mut faults = draw_of(KINDS, random, share, duration);
    for (number, fault) in faults.iter_mut().enumerate() {
        fault.number = number;
    }
    faults
}

/// More faults, with the next numbers. Each kind is in every other run.
pub(crate) fn draw_more(kinds: &[Row], random: &mut ChaCha8Rng, duration: Time, faults: &mut Vec<Fault>) {
    let more = draw_of(kinds, random, 0.5, duration);
    for (number, fault) in (faults.len()..).zip(more) {
        faults.push(Fault { number, ..fault });
    }
}

/// Faults in order of time, without numbers. A kind is on by a chance of `share`.
fn draw_of(kinds: &[Row], random: &mut ChaCha8Rng, share: f64, duration: Time) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (kind, _, most) in kinds {
        let (on, rate) = (random.random_bool(share), logarithmic(random, most.div_ceil(15), *most));
        let expected = rate as f64 * duration as f64 / (1000 * SECOND) as f64;
        #[allow(clippy::cast_sign_loss, reason = "rates and durations are not negative")]
        let count = expected as u64 + u64::from(random.random_bool(expected.fract()));
        let dice: Vec<(Time, u64)> =
            (0..count).map(|_| (random.random_range(SECOND..duration), random.random())).collect();
        if on {
            faults.extend(dice.into_iter().map(|(at, dice)| Fault { number: 0, at, kind: *kind, dice }));
        }
    }
    faults.sort_by_key(|fault| fault.at);
    faults
}

impl World {
    /// A fault happens, if it is legal now.
    pub(crate) fn strike(&mut self, place: usize) {
        let fault = self.plan.faults[place].clone();
        let mut random = ChaCha8Rng::seed_from_u64(fault.dice);
        let random = &mut random;
        let done = match fault.kind {
            Kind::LoseMessages
            | Kind::DoubleMessages
            | Kind::ReorderMessages
            | Kind::DelayMessages
            | Kind::CutOneWay
            | Kind::Isolate
            | Kind::Partition => self.disturb_network(fault.kind, random),
            Kind::DelayAnswers => self.delay_answers(random),
            Kind::BreakConnections => self.break_connections(random),
            Kind::Kill | Kind::KillWriting | Kind::KillStarting | Kind::CutPower | Kind::Pause => {
                self.strike_process(fault.kind, random)
            }
            Kind::KillAll | Kind::CutAllPower => Some(self.strike_all(fault.kind, random)),
            Kind::SlowDisk
            | Kind::StallDisk
            | Kind::FailWrite
            | Kind::FailSync
            | Kind::FillDisk
            | Kind::TakeDescriptors => self.disturb_disk(fault.kind, random),
            Kind::FlipBit => self.flip_bit(random),
            Kind::LoseDisk => self.lose_disk(random),
            Kind::Drift | Kind::Jump => self.disturb_clock(fault.kind, random),
            Kind::Grow
            | Kind::AddLearner
            | Kind::Shrink
            | Kind::Replace
            | Kind::Reshape
            | Kind::ImpossibleChange
            | Kind::Transfer => self.begin_errand(fault.kind, random),
            Kind::Compact => self.compact(random),
            Kind::FailCopy | Kind::LoseCopy | Kind::AgeCopy | Kind::FlipCopy => {
                self.disturb_copy(fault.kind, random)
            }
            Kind::Upgrade | Kind::Downgrade | Kind::RaiseLevel | Kind::Alarm => {
                self.change_level(fault.kind, random)
            }
            Kind::MakeRoom => self.make_room(random),
            Kind::KillMarking | Kind::FailMarking => Some(self.disturb_mark(fault.kind, random)),
            Kind::SlowApplying | Kind::StallApplying => self.disturb_applying(fault.kind, random),
            Kind::GoBack => self.copy_disk(random),
            Kind::Differ => self.make_differ(random),
            Kind::CopyBeside => self.copy_beside(random),
            Kind::JumpTerm => self.speak_of_the_future(random),
        };
        if let Some(what) = done {
            *self.struck.entry(fault.kind.words()).or_default() += 1;
            self.say(|| format!("FAULT {}: {} ({what})", fault.number, fault.kind.words()));
        }
    }

    /// Somebody has the past of the keys removed.
    fn compact(&mut self, random: &mut ChaCha8Rng) -> Option<String> {
        let id = self.victim(random)?;
        let newest = self.invariants.newest_acknowledged();
        let revision = random.random_range(newest / 2..=newest + 1);
        let process = self.hosts.get_mut(&id)?.process_mut()?;
        let number = process.next_number;
        process.next_number += 1;
        process.compactions.insert(number);
        clients::compact(&mut process.replica, id, number, revision);
        self.wake(id);
        Some(format!("{}, up to {revision}", name(id)))
    }

    /// Somebody for a fault to happen to: often the leader.
    fn victim(&self, random: &mut ChaCha8Rng) -> Option<MemberId> {
        let leader = self.leader().filter(|_| random.random_bool(0.4));
        leader.or_else(|| {
            let all: Vec<MemberId> =
                self.members_hosts().filter(|host| !host.lost).map(|host| host.id).collect();
            all.get(random.random_range(0..all.len().max(1))).copied()
        })
    }

    /// Somebody who takes itself for the leader: not always the one who is.
    fn would_be_leader(&self, random: &mut ChaCha8Rng) -> Option<MemberId> {
        let leads =
            |id: &MemberId| self.hosts[id].process().is_some_and(|process| process.shown.0 == Role::Leader);
        let all: Vec<MemberId> = self.hosts.keys().copied().filter(leads).collect();
        all.get(random.random_range(0..all.len().max(1))).copied()
    }
}
