//! How long a disk takes.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use crate::time::{MICRO, MILLI, Time};

/// The speed of a disk, and what is wrong with it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Latency {
    /// What an fsync takes at least.
    pub(crate) sync: Time,
    /// How many times slower than usual it is, and until when.
    pub(crate) slower: u64,
    pub(crate) slower_until: Time,
    /// Nothing ends before this time.
    pub(crate) stalled_until: Time,
}

impl Latency {
    pub(crate) fn new(sync: Time) -> Self {
        Self { sync, slower: 1, slower_until: 0, stalled_until: 0 }
    }

    pub(crate) fn heal(&mut self) {
        self.slower_until = 0;
        self.stalled_until = 0;
    }

    /// When an operation that begins now ends.
    pub(super) fn end(&self, begin: Time, bytes: usize, sync: bool, random: &mut ChaCha8Rng) -> Time {
        // A gigabyte in a second.
        let mut takes = random.random_range(5 * MICRO..30 * MICRO) + bytes as Time;
        if sync {
            takes += random.random_range(self.sync..2 * self.sync);
            // Now and then something else keeps the device busy.
            if random.random_range(0..200) == 0 {
                takes += random.random_range(MILLI..40 * MILLI);
            }
        }
        let slower = if begin < self.slower_until { self.slower } else { 1 };
        begin.max(self.stalled_until) + takes * slower
    }
}
