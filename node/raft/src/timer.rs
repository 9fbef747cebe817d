//! The election timer.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Counts the ticks since the leader was heard, and says when a member loses patience.
#[derive(Debug)]
pub(crate) struct ElectionTimer {
    /// The least patience.
    election_ticks: u32,
    elapsed: u32,
    timeout: u32,
    suspicious: bool,
    random: ChaCha8Rng,
}

impl ElectionTimer {
    pub(crate) fn new(election_ticks: u32, seed: u64) -> Self {
        let mut timer = Self {
            election_ticks,
            elapsed: 0,
            timeout: 0,
            suspicious: false,
            random: ChaCha8Rng::seed_from_u64(seed),
        };
        timer.restart();
        timer
    }

    /// Begins anew with a patience drawn at random from one to two election timeouts, so that votes are seldom split
    /// (Raft paper, 5.2).
    pub(crate) fn restart(&mut self) {
        self.elapsed = 0;
        self.suspicious = false;
        self.timeout = self.random.random_range(self.election_ticks..2 * self.election_ticks);
    }

    /// The leader seems gone: patience ends after `ticks` at the latest, and stickiness now.
    pub(crate) fn suspect(&mut self, ticks: u32) {
        self.suspicious = true;
        self.timeout = self.timeout.min(self.elapsed.saturating_add(ticks));
    }

    /// A tick has passed. Returns whether patience is at its end.
    pub(crate) fn tick(&mut self) -> bool {
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
