//! Which entries of the log are kept behind a snapshot, for members that are a little behind; and more of them for one that is fetching a
//! snapshot, so that it need not fetch the next one at once.

use std::collections::VecDeque;

use quorate_raft::{Entry, Index};

/// One entry in so many bytes is remembered.
const STEP: u64 = 1 << 20;

/// How many times as much is kept for a member that is fetching a snapshot, if that is more than the snapshot itself has. A member gets
/// through with it if it fetches faster than others write: then less than a snapshot's worth is written meanwhile. And where more is, the
/// next snapshot is the shorter way; so the log never takes more memory than the state.
const FETCHING: u64 = 4;

/// Remembers where in the log the last bytes before the committed index begin.
#[derive(Debug)]
pub(super) struct Tail {
    /// How many bytes of entries are kept.
    bytes: u64,
    /// Entries with [`STEP`] bytes from each to the next, oldest first.
    marks: VecDeque<Index>,
    /// Since the newest mark.
    weight: u64,
    /// What the newest snapshot has, in bytes.
    snapshot: u64,
}

impl Tail {
    pub(super) fn new(bytes: u64) -> Self {
        Self { bytes, marks: VecDeque::new(), weight: 0, snapshot: 0 }
    }

    /// Entry `index`, of `weight` bytes, is committed.
    pub(super) fn committed(&mut self, index: Index, weight: u64) {
        self.weight += weight;
        if self.weight >= STEP.min(self.bytes.max(1)) {
            self.weight = 0;
            self.marks.push_back(index);
            self.marks.drain(..self.marks.len().saturating_sub(self.most()));
        }
    }

    /// The newest snapshot has so many bytes.
    pub(super) fn snapshot_bytes(&mut self, bytes: u64) {
        self.snapshot = bytes;
    }

    /// So many marks span what may be kept.
    fn most(&self) -> usize {
        Self::marks_of((FETCHING * self.bytes).max(self.snapshot))
    }

    fn marks_of(bytes: u64) -> usize {
        (bytes / STEP).max(1) as usize + 1
    }

    /// The log begins anew.
    pub(super) fn reset(&mut self) {
        self.marks.clear();
        self.weight = 0;
    }

    /// The newest entry that need not be kept when there is a snapshot at `snapshot`, while a member may be fetching the one at `fetched`.
    pub(super) fn before(&self, snapshot: Index, fetched: Option<Index>) -> Index {
        let usual = self.back(Self::marks_of(self.bytes));
        let kept = fetched.map_or(usual, |fetched| usual.min(fetched).max(self.back(self.most())));
        kept.min(snapshot)
    }

    /// The entry that so many marks go back to; 0 if there are fewer.
    fn back(&self, marks: usize) -> Index {
        self.marks.len().checked_sub(marks).map_or(0, |at| self.marks[at])
    }
}

/// The newest entry that need not be kept when there is a snapshot at `snapshot`, in a log that was read from the disk.
pub(super) fn before(entries: &[Entry], snapshot: Index, bytes: u64) -> Index {
    let mut weight = 0;
    let covered = entries.iter().rev().skip_while(|entry| entry.index > snapshot);
    let beyond = covered.skip_while(|entry| {
        weight += entry.weight() as u64;
        weight <= bytes
    });
    beyond.map(|entry| entry.index).next().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_is_kept_for_a_member_that_fetches() {
        let mut tail = Tail::new(2 * STEP);
        assert_eq!(tail.before(9, None), 0, "nothing is known");
        (1..=20).for_each(|index| tail.committed(index, STEP));
        assert_eq!(tail.before(20, None), 18);
        assert_eq!(tail.before(15, None), 15, "what the snapshot does not cover stays");
        assert_eq!(tail.before(20, Some(16)), 16);
        assert_eq!(tail.before(20, Some(19)), 18, "it may be a little behind then");
        assert_eq!(tail.before(20, Some(3)), 12, "not without bound");
        tail.snapshot_bytes(15 * STEP);
        (21..=40).for_each(|index| tail.committed(index, STEP));
        assert_eq!(tail.before(40, Some(30)), 30);
        assert_eq!(tail.before(40, Some(3)), 25, "as much as a snapshot has");
        assert_eq!(tail.before(40, None), 38);
    }
}
