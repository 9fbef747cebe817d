//! Which entries of the log are kept behind a snapshot, for members that are a little behind.

use std::collections::VecDeque;

use quorate_raft::{Entry, Index};

/// One entry in so many bytes is remembered.
const STEP: u64 = 1 << 20;

/// Remembers where in the log the last bytes before the applied index begin.
#[derive(Debug)]
pub(super) struct Tail {
    /// How many bytes of entries are kept.
    bytes: u64,
    /// Entries with [`STEP`] bytes from each to the next, oldest first.
    marks: VecDeque<Index>,
    /// Since the newest mark.
    weight: u64,
}

impl Tail {
    pub(super) fn new(bytes: u64) -> Self {
        Self { bytes, marks: VecDeque::new(), weight: 0 }
    }

    /// Entry `index`, of `weight` bytes, was applied.
    pub(super) fn applied(&mut self, index: Index, weight: u64) {
        self.weight += weight;
        if self.weight >= STEP.min(self.bytes.max(1)) {
            self.weight = 0;
            self.marks.push_back(index);
            self.marks.drain(..self.marks.len().saturating_sub(self.most()));
        }
    }

    /// So many marks span what is kept.
    fn most(&self) -> usize {
        (self.bytes / STEP).max(1) as usize + 1
    }

    /// The log begins anew.
    pub(super) fn reset(&mut self) {
        self.marks.clear();
        self.weight = 0;
    }

    /// The newest entry that need not be kept when there is a snapshot at `snapshot`.
    pub(super) fn before(&self, snapshot: Index) -> Index {
        let oldest = self.marks.front().filter(|_| self.marks.len() == self.most());
        oldest.copied().unwrap_or(0).min(snapshot)
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
