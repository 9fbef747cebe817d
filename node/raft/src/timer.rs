//! The election timer.

use std::hash::{Hash, Hasher};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::Config;

/// Counts the ticks since the leader was heard, and says when a member loses patience.
#[derive(Debug, Clone)]
pub(crate) struct ElectionTimer {
    /// The least patience, but for the first.
    election_ticks: u32,
    elapsed: u32,
    timeout: u32,
    /// Ticks since any leader was heard, or since the process began: whatever has happened since.
    unheard: u32,
    /// Ticks for which a promise of an earlier process may hold.
    young: u32,
    suspicious: bool,
    random: ChaCha8Rng,
}

/// Two timers are equal if they are at the same point: what they will draw is chance.
impl PartialEq for ElectionTimer {
    fn eq(&self, other: &Self) -> bool {
        self.point() == other.point()
    }
}

impl Eq for ElectionTimer {}

impl Hash for ElectionTimer {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.point().hash(state);
    }
}

impl ElectionTimer {
    fn point(&self) -> [u32; 6] {
        let Self { election_ticks, elapsed, timeout, unheard, young, suspicious, .. } = self;
        [*election_ticks, *elapsed, *timeout, *unheard, *young, u32::from(*suspicious)]
    }

    /// Counts no further than it makes a difference.
    pub(crate) fn saturate(&mut self) {
        self.elapsed = self.elapsed.min(self.timeout.max(self.election_ticks));
        self.unheard = self.unheard.min(self.election_ticks);
    }

    /// Of a process that begins.
    pub(crate) fn new(config: &Config) -> Self {
        let &Config { election_ticks, start_ticks, lease, promised, seed, .. } = config;
        let mut timer = Self {
            election_ticks,
            elapsed: 0,
            timeout: 0,
            unheard: 0,
            young: if promised { election_ticks } else { 0 },
            suspicious: false,
            random: ChaCha8Rng::seed_from_u64(seed),
        };
        let may_be_bound = promised || lease.is_some();
        timer.begin(if may_be_bound { election_ticks } else { start_ticks });
        timer
    }

    /// Begins anew, as patient as it is from the first time on.
    pub(crate) fn restart(&mut self) {
        self.begin(self.election_ticks);
    }

    /// Begins anew with a patience drawn at random from `least` to twice as much, so that votes are seldom split (Raft paper, 5.2).
    fn begin(&mut self, least: u32) {
        self.elapsed = 0;
        self.suspicious = false;
        self.timeout = self.random.random_range(least..2 * least);
    }

    /// A leader was heard: begins anew.
    pub(crate) fn heard(&mut self) {
        self.unheard = 0;
        self.restart();
    }

    /// How many ticks ago a leader was heard, or the process began.
    pub(crate) fn unheard(&self) -> u32 {
        self.unheard
    }

    /// Whether a promise of an earlier process may hold.
    pub(crate) fn is_young(&self) -> bool {
        self.young > 0
    }

    /// The leader seems gone: stickiness ends now, and patience at the latest `ticks` after `promise`, or one of an earlier
    /// process, is over: for so long a leader that was heard can rely on this member.
    pub(crate) fn suspect(&mut self, ticks: u32, promise: u32) {
        self.suspicious = true;
        let bound = promise.saturating_sub(self.unheard).max(self.young);
        self.timeout = self.timeout.min(self.elapsed.saturating_add(bound).saturating_add(ticks));
    }

    /// A tick has passed. Returns whether patience is at its end.
    pub(crate) fn tick(&mut self) -> bool {
        self.unheard = self.unheard.saturating_add(1);
        self.young = self.young.saturating_sub(1);
        self.elapsed = self.elapsed.saturating_add(1);
        self.elapsed >= self.timeout
    }

    /// Whether the leader was heard within the least election timeout, and nothing says that it is gone (dissertation, 4.2.3).
    pub(crate) fn recent(&self) -> bool {
        !self.suspicious && self.elapsed < self.election_ticks
    }

    /// A random number for the caller's use, from the same seed.
    pub(crate) fn draw(&mut self) -> u64 {
        self.random.random_range(0..=u64::MAX)
    }
}
