//! How much time has really passed: what leases are judged by.
//!
//! The loop's ticks are counted when it gets to them, and a machine that stalls does not make up for them. A lease must not outlive
//! that: the clock here goes on while the process stands still, and while the machine sleeps.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use super::driver::TICK;

/// Counts the ticks that a clock that never stops has made, and those that the loop was given.
#[derive(Debug)]
pub(crate) struct LeaseClock {
    began: Duration,
    counted: u64,
}

impl LeaseClock {
    /// Counts from now on.
    pub(crate) fn start() -> Self {
        Self { began: now(), counted: 0 }
    }

    /// How many ticks have passed that the loop was not given, since the last call. It is given one now, or not.
    pub(crate) fn missed(&mut self, tick: bool) -> u64 {
        self.missed_at(now(), tick)
    }

    fn missed_at(&mut self, now: Duration, tick: bool) -> u64 {
        let passed = now.saturating_sub(self.began).as_nanos() / TICK.as_nanos();
        let given = self.counted + u64::from(tick);
        self.counted = given.max(u64::try_from(passed).unwrap_or(u64::MAX));
        self.counted - given
    }
}

fn now() -> Duration {
    let time = clock_gettime(ClockId::Boottime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tick_is_counted_once() {
        let mut clock = LeaseClock { began: Duration::from_secs(7), counted: 0 };
        let mut at = |ticks: f64, tick| clock.missed_at(Duration::from_secs(7) + TICK.mul_f64(ticks), tick);
        assert_eq!(at(0.1, true), 0, "the first tick comes at once");
        assert_eq!(at(1.2, true), 0);
        assert_eq!(at(2.9, false), 0, "two were given");
        assert_eq!(at(3.1, false), 1, "the loop is late");
        assert_eq!(at(3.2, true), 0);
        assert_eq!(at(100.5, false), 96, "it stood still");
        assert_eq!(at(100.6, false), 0);
    }

    #[test]
    fn the_clock_moves() {
        let before = now();
        std::thread::sleep(TICK);
        assert!(now() - before >= TICK);
    }
}
