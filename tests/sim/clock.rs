//! A member's own clock: it counts ticks, too fast or too slow, and sometimes many at once.

use crate::time::{MILLI, Time};

/// What the server takes for a tick.
const TICK: Time = 20 * MILLI;

#[derive(Debug)]
pub(crate) struct Clock {
    /// By how many thousandths a tick is too long.
    usual: i64,
    drift: i64,
    drifts_until: Time,
}

impl Clock {
    pub(crate) fn new(usual: i64) -> Self {
        Self { usual, drift: 0, drifts_until: 0 }
    }

    /// It runs at another speed for a while.
    pub(crate) fn drift(&mut self, drift: i64, until: Time) {
        self.drift = drift;
        self.drifts_until = until;
    }

    pub(crate) fn heal(&mut self) {
        self.drifts_until = 0;
    }

    /// How long the tick takes that begins now.
    pub(crate) fn tick(&self, now: Time) -> Time {
        let drift = if self.drifts_until > now { self.drift } else { self.usual };
        TICK * (1000 + drift).max(100).unsigned_abs() / 1000
    }
}
