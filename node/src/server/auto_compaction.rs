//! Compaction without being asked: as etcd does it, at the same moments.
//!
//! By time, each member notes the revision of its state ten times in a period (or in an hour, if that is shorter), the leader or not, so that
//! a new leader goes on where the one before was. The leader compacts to the oldest note, once in a period (or an hour), and for the first
//! time when the process has seen a whole period. A note is never younger than the period, so nothing is compacted too early: after a
//! start, a stall or a change of leader it is later. By revisions, the leader looks every five minutes.

use std::collections::VecDeque;
use std::time::Duration;

use crate::retention::Retention;

const HOUR: Duration = Duration::from_hours(1);

/// How often the leader looks how many revisions there are.
const LOOKS_EVERY: Duration = Duration::from_mins(5);

/// So often in a period, or an hour, the revision is noted.
const NOTES: u32 = 10;

/// Says when to compact, and to which revision. Time is an argument, counted from anywhere.
#[derive(Debug)]
pub(crate) struct AutoCompaction {
    retention: Retention,
    /// When there is something to do again.
    next: Duration,
    /// The revisions that were noted, the oldest first.
    notes: VecDeque<i64>,
    /// When it was compacted last, or the process started.
    compacted: Duration,
    /// It has compacted before.
    has_compacted: bool,
    /// To which revision.
    last: i64,
}

impl AutoCompaction {
    /// Of a process that starts at `now` with a state of `revision`.
    pub(crate) fn new(retention: Retention, now: Duration, revision: i64) -> Self {
        let (next, notes) = (now, VecDeque::new());
        let mut this =
            AutoCompaction { retention, next, notes, compacted: now, has_compacted: false, last: 0 };
        this.note(now, revision);
        this
    }

    /// The revision to compact to, if one is due at `now` in a state of `revision` on the leader.
    pub(crate) fn due(&mut self, now: Duration, revision: i64, leads: bool) -> Option<i64> {
        if now < self.next {
            return None;
        }
        let due = if leads { self.target(now, revision) } else { None };
        if let Some(to) = due {
            (self.compacted, self.has_compacted, self.last) = (now, true, to);
        }
        self.note(now, revision);
        due
    }

    fn target(&self, now: Duration, revision: i64) -> Option<i64> {
        let target = match self.retention {
            Retention::Revisions(count) => revision - count,
            Retention::Period(period) => {
                let wait = if self.has_compacted { period.min(HOUR) } else { period };
                if now.saturating_sub(self.compacted) < wait {
                    return None;
                }
                *self.notes.front()?
            }
        };
        (target > 0 && target != self.last).then_some(target)
    }

    fn note(&mut self, now: Duration, revision: i64) {
        if let Retention::Period(period) = self.retention {
            self.notes.push_back(revision);
            let most = (period.as_nanos() / self.pause().as_nanos().max(1)) as usize + 1;
            while self.notes.len() > most {
                self.notes.pop_front();
            }
        }
        self.next = now + self.pause();
    }

    /// How long it has nothing to do.
    fn pause(&self) -> Duration {
        match self.retention {
            Retention::Revisions(_) => LOOKS_EVERY,
            Retention::Period(period) => period.min(HOUR) / NOTES,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: u64 = 60;

    /// What one member does that `leads` from some minute on: revisions are minutes, and one more at the start. (minute, compacted to).
    fn periodic(period: Duration, minutes: u64, leads: impl Fn(u64) -> bool) -> Vec<(u64, i64)> {
        let at = |minute: u64| Duration::from_secs(minute * MINUTE);
        let mut compaction = AutoCompaction::new(Retention::Period(period), at(0), 1);
        let due =
            |minute| Some((minute, compaction.due(at(minute), minute.cast_signed() + 1, leads(minute))?));
        (1..=minutes).filter_map(due).collect()
    }

    #[test]
    fn the_leader_compacts_to_one_period_ago() {
        let hour = periodic(HOUR, 185, |_| true);
        // As in etcd: the first after an hour to the beginning, and then each hour to the oldest of eleven notes.
        assert_eq!(hour, [(60, 1), (120, 55), (180, 115)]);
        let ten = periodic(Duration::from_mins(10), 31, |_| true);
        assert_eq!(ten, [(10, 1), (20, 10), (30, 20)]);
        let day = periodic(HOUR * 24, 26 * 60, |_| true);
        assert_eq!(day.iter().map(|(minute, _)| minute / 60).collect::<Vec<_>>(), [24, 25, 26]);
        for (minute, revision) in [hour, day].concat() {
            assert!(revision.cast_unsigned() + 60 <= minute + 1, "{revision} is too young at {minute}");
        }
    }

    #[test]
    fn a_new_leader_compacts_nothing_too_early() {
        // One that was started long before goes on at once, by its own notes.
        assert_eq!(periodic(HOUR, 150, |minute| minute >= 100), [(102, 37)]);
        // One that has just started waits for a whole period.
        assert_eq!(periodic(HOUR, 59, |_| true), []);
        assert_eq!(periodic(HOUR, 200, |_| false), []);
    }

    #[test]
    fn a_state_that_does_not_change_is_compacted_once() {
        let at = |minute: u64| Duration::from_secs(minute * MINUTE);
        let mut compaction = AutoCompaction::new(Retention::Period(HOUR), at(0), 7);
        let compacted: Vec<i64> = (0..600).filter_map(|minute| compaction.due(at(minute), 7, true)).collect();
        assert_eq!(compacted, [7]);
    }

    #[test]
    fn a_process_that_stood_still_compacts_later() {
        let at = |minute: u64| Duration::from_secs(minute * MINUTE);
        let mut compaction = AutoCompaction::new(Retention::Period(HOUR), at(0), 1);
        assert_eq!(compaction.due(at(6), 7, true), None);
        assert_eq!(compaction.due(at(500), 501, true), Some(1), "the oldest note, whatever came meanwhile");
        assert_eq!(compaction.due(at(559), 560, true), None);
    }

    #[test]
    fn so_many_revisions_are_kept() {
        let at = |minute: u64| Duration::from_secs(minute * MINUTE);
        let mut compaction = AutoCompaction::new(Retention::Revisions(100), at(0), 1);
        assert_eq!(compaction.due(at(4), 500, true), None, "it is not time yet");
        assert_eq!(compaction.due(at(5), 100, true), None);
        assert_eq!(compaction.due(at(10), 101, true), Some(1));
        assert_eq!(compaction.due(at(15), 101, true), None, "nothing is new");
        assert_eq!(compaction.due(at(20), 500, false), None);
        assert_eq!(compaction.due(at(25), 500, true), Some(400));
    }
}
