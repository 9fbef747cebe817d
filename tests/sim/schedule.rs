//! What a run is: everything in it is drawn from its seed, the faults before anything happens.
//!
//! Each kind of fault is switched on or off by the seed, and has its own rate (swarm testing): a run that has few kinds of
//! fault reaches states that one with all of them never does.

use std::collections::BTreeSet;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::applying::Applying;
use crate::faults::{
    self, Fault, KINDS_OF_APPLYING, KINDS_OF_COPIES, KINDS_OF_LEASES, KINDS_OF_LEVELS, KINDS_OF_LIMITS,
    KINDS_OF_MARKS, KINDS_OF_PASTS, KINDS_OF_QUOTAS, KINDS_OF_STATES, KINDS_OF_STREAMS,
};
use crate::host::ELECTION_TICKS;
use crate::time::{MICRO, MILLI, SECOND, Time};

/// Of the stream by which runs are drawn that have leases: with this number no seed that was kept before there were leases is among them.
const LEASING: u64 = 1_040_874;

/// What a run is made of.
// Each bool is a choice of its own.
#[allow(clippy::struct_excessive_bools)]
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    /// The members that the cluster begins with. One voter has founded it.
    pub(crate) voters: u64,
    pub(crate) learners: u64,
    /// How long faults happen. What follows is for coming to rest.
    pub(crate) duration: Time,
    pub(crate) clients: usize,
    /// The most that a client rests between two operations.
    pub(crate) rest: Time,
    pub(crate) segment_bytes: u64,
    /// So many bytes of entries make a snapshot due, and so many are kept behind it.
    pub(crate) snapshot_bytes: u64,
    pub(crate) kept_log_bytes: u64,
    pub(crate) max_append_bytes: usize,
    pub(crate) max_inflight_bytes: usize,
    /// What is written to the log as one group at most.
    pub(crate) group_bytes: usize,
    /// What a message takes at the least, and how much more it may take.
    pub(crate) latency: Time,
    pub(crate) jitter: Time,
    /// What an fsync takes at the least.
    pub(crate) sync: Time,
    /// File systems can reserve blocks that read as zeros.
    pub(crate) reserves: bool,
    /// How far a member's clock may be off from the beginning, in thousandths.
    pub(crate) drift: i64,
    /// Leaders answer reads by lease. That relies on clocks: they neither stop nor jump, and differ by less than a lease allows.
    pub(crate) leases: bool,
    /// How patient a process is the first time after its start.
    pub(crate) start_ticks: u32,
    /// How members keep a copy of their state, if they do: then they start from it.
    pub(crate) copying: Option<Copying>,
    /// What applying costs.
    pub(crate) applying: Applying,
    /// Members are of two versions: they begin as the older one.
    pub(crate) two_levels: bool,
    /// What the state may take, about: each member has a quota of its own.
    pub(crate) quota: Option<u64>,
    /// Who is heard is watched, by the rules of the transport.
    pub(crate) streams: bool,
    /// Clients ask in other forms too, and answers are read a while later.
    pub(crate) late: bool,
    /// Some clients hold leases. When they end clocks say: they differ by less than a quarter, and none jumps.
    pub(crate) leasing: bool,
    pub(crate) faults: Vec<Fault>,
}

/// How the copy of the state is kept.
#[derive(Debug, Clone)]
pub(crate) struct Copying {
    /// How often it is written.
    pub(crate) every: Time,
    /// How much a block holds: little, so that there are several.
    pub(crate) block_bytes: usize,
    /// What it takes at the least to make it durable.
    pub(crate) sync: Time,
}

impl Copying {
    /// Of every other run.
    fn draw(random: &mut ChaCha8Rng) -> Option<Self> {
        random.random_bool(0.5).then(|| Self {
            every: logarithmic(random, 200 * MILLI, 20 * SECOND),
            block_bytes: logarithmic(random, 256, 8192) as usize,
            sync: logarithmic(random, 50 * MICRO, 500 * MILLI),
        })
    }
}

impl Plan {
    /// The run of `seed`.
    pub(crate) fn draw(seed: u64) -> Self {
        let mut random = stream(seed, "plan", 0);
        let voters = [1, 2, 3, 3, 3, 3, 4, 5, 5, 5, 6, 7][random.random_range(0..12)];
        let duration = random.random_range(20 * SECOND..80 * SECOND);
        let mut plan = Self {
            seed,
            voters,
            learners: [0, 0, 0, 1, 2][random.random_range(0..5)],
            duration,
            clients: random.random_range(2..=6),
            rest: logarithmic(&mut random, 100 * MILLI, 3 * SECOND),
            segment_bytes: random.random_range(3..=64) * 4096,
            snapshot_bytes: logarithmic(&mut random, 200, 100_000),
            kept_log_bytes: logarithmic(&mut random, 1, 10_000),
            max_append_bytes: logarithmic(&mut random, 64, 1 << 20) as usize,
            max_inflight_bytes: logarithmic(&mut random, 256, 1 << 20) as usize,
            group_bytes: usize::MAX,
            latency: logarithmic(&mut random, 50 * MICRO, 10 * MILLI),
            jitter: logarithmic(&mut random, 50 * MICRO, 20 * MILLI),
            sync: logarithmic(&mut random, 50 * MICRO, 10 * MILLI),
            reserves: false,
            drift: random.random_range(0..150),
            leases: random.random_bool(0.3),
            start_ticks: ELECTION_TICKS,
            copying: None,
            applying: Applying::draw(&mut stream(seed, "applying", 0)),
            two_levels: false,
            quota: None,
            streams: false,
            late: false,
            leasing: false,
            faults: Vec::new(),
        };
        plan.faults = faults::draw(&mut random, duration);
        // What came later has a stream of its own: a seed that has failed once keeps the rest of its plan.
        let mut random = stream(seed, "copying", 0);
        plan.copying = Copying::draw(&mut random);
        if plan.copying.is_some() {
            faults::draw_more(KINDS_OF_COPIES, &mut random, duration, &mut plan.faults);
        }
        let mut random = stream(seed, "marks", 0);
        faults::draw_more(KINDS_OF_MARKS, &mut random, duration, &mut plan.faults);
        let mut random = stream(seed, "levels", 0);
        plan.two_levels = random.random_bool(0.5);
        if plan.two_levels {
            faults::draw_more(KINDS_OF_LEVELS, &mut random, duration, &mut plan.faults);
        }
        let mut random = stream(seed, "pasts", 0);
        faults::draw_more(KINDS_OF_PASTS, &mut random, duration, &mut plan.faults);
        let mut random = stream(seed, "states", 0);
        faults::draw_more(KINDS_OF_STATES, &mut random, duration, &mut plan.faults);
        // With this number the seeds that are kept stay as patient as they were.
        let mut random = stream(seed, "start", 214);
        if random.random_bool(0.5) {
            plan.start_ticks = logarithmic(&mut random, 2, ELECTION_TICKS.into()) as u32;
        }
        let mut random = stream(seed, "limits", 0);
        faults::draw_more(KINDS_OF_LIMITS, &mut random, duration, &mut plan.faults);
        if random.random_bool(0.5) {
            plan.group_bytes = logarithmic(&mut random, 64, 64 << 10) as usize;
        }
        let mut random = stream(seed, "applying", 1);
        faults::draw_more(KINDS_OF_APPLYING, &mut random, duration, &mut plan.faults);
        let mut random = stream(seed, "quota", 0);
        if random.random_bool(0.3) {
            plan.quota = Some(logarithmic(&mut random, 3_000, 100_000));
            faults::draw_more(KINDS_OF_QUOTAS, &mut random, duration, &mut plan.faults);
        }
        if plan.leases {
            let mut random = stream(seed, "answers", 0);
            faults::draw_more(KINDS_OF_LEASES, &mut random, duration, &mut plan.faults);
        }
        // With this number no seed that is kept is among them.
        let mut random = stream(seed, "streams", 9);
        plan.streams = random.random_bool(0.3);
        if plan.streams {
            faults::draw_more(KINDS_OF_STREAMS, &mut random, duration, &mut plan.faults);
        }
        // With this number no seed that is kept is among them.
        plan.reserves = stream(seed, "reserves", 20).random_bool(0.3);
        plan.late = stream(seed, "late", 0).random_bool(0.4);
        plan.leasing = plan.leases && stream(seed, "leasing", LEASING).random_bool(0.6);
        plan
    }

    /// The numbers of the faults that concern applying, and nothing else.
    pub(crate) fn of_applying(&self) -> BTreeSet<usize> {
        let faults = self.faults.iter().filter(|fault| fault.kind.is_of_applying());
        faults.map(|fault| fault.number).collect()
    }

    /// The same run with no other faults than these.
    pub(crate) fn with_only(mut self, kept: &BTreeSet<usize>) -> Self {
        self.faults.retain(|fault| kept.contains(&fault.number));
        self
    }
}

/// A random generator for one part of a run. Each part has its own: what one draws changes nothing for another, so that a run
/// with fewer faults stays like the one with all of them for as long as possible.
pub(crate) fn stream(seed: u64, part: &str, number: u64) -> ChaCha8Rng {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8..16].copy_from_slice(&number.to_le_bytes());
    for (byte, letter) in key[16..].iter_mut().zip(part.bytes()) {
        *byte = letter;
    }
    ChaCha8Rng::from_seed(key)
}

/// A number between `least` and `most` of which small ones are as likely as large ones.
#[allow(clippy::cast_sign_loss, reason = "an exponential is positive")]
pub(crate) fn logarithmic(random: &mut ChaCha8Rng, least: u64, most: u64) -> u64 {
    let exponent = random.random_range((least as f64).ln()..=(most as f64).ln());
    (exponent.exp() as u64).clamp(least, most)
}
