//! How much time has really passed: what leases are judged by.
//!
//! The loop's ticks are counted when it gets to them, and a machine that stalls does not make up for them. A lease must not outlive
//! that: the clock here goes on while the process stands still, and while the machine sleeps. It does not while a virtual machine is
//! paused or moved by its host: leases are not for such.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use super::timing::TICK;

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

    /// How many ticks have passed that were not counted.
    pub(crate) fn missed(&mut self) -> u64 {
        self.missed_at(now())
    }

    /// The loop counts a tick itself: one at the most that was counted already.
    pub(crate) fn ticked(&mut self) {
        self.counted += 1;
    }

    fn missed_at(&mut self, now: Duration) -> u64 {
        let passed = (now.saturating_sub(self.began).as_millis() / TICK.as_millis()) as u64;
        let missed = passed.saturating_sub(self.counted);
        self.counted += missed;
        missed
    }
}

fn now() -> Duration {
    Duration::try_from(clock_gettime(ClockId::Boottime))
        .expect("the time since the machine started is not negative")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tick_is_counted_once() {
        let mut clock = LeaseClock { began: Duration::from_secs(7), counted: 0 };
        let missed =
            |clock: &mut LeaseClock, ticks| clock.missed_at(Duration::from_secs(7) + TICK.mul_f64(ticks));
        assert_eq!(missed(&mut clock, 0.1), 0);
        clock.ticked();
        assert_eq!(missed(&mut clock, 1.2), 0, "the loop's own");
        assert_eq!(missed(&mut clock, 2.1), 1, "the loop is late");
        clock.ticked();
        assert_eq!(missed(&mut clock, 3.9), 0);
        assert_eq!(missed(&mut clock, 100.5), 97, "it stood still");
        assert_eq!(missed(&mut clock, 100.6), 0);
    }

    #[test]
    fn the_clock_moves() {
        let before = now();
        std::thread::sleep(TICK);
        assert!(now() >= before + TICK);
    }
}
