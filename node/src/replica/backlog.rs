//! What is committed and not applied yet, on one member: how much it is, and for how long it has waited.

use std::collections::VecDeque;

use quorate_raft::{Entry, Index};

/// The entries that were handed out to be applied, and are not yet. They stand in the log as well, so what they hold is here once.
#[derive(Debug, Default)]
pub struct Backlog {
    /// In the order of the log.
    batches: VecDeque<Batch>,
    entries: u64,
    bytes: u64,
    now: u64,
}

#[derive(Debug)]
struct Batch {
    /// Its newest entry.
    last: Index,
    entries: u64,
    bytes: u64,
    /// The tick at which it was handed out.
    since: u64,
}

impl Backlog {
    /// How many entries they are, about.
    pub fn entries(&self) -> u64 {
        self.entries
    }

    /// How many bytes they have ([`Entry::weight`]), about.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// For how many ticks the oldest has waited: so far is the state behind what is committed.
    pub fn waited(&self) -> u64 {
        self.batches.front().map_or(0, |batch| self.now - batch.since)
    }

    /// These are handed out now.
    pub(super) fn handed_out(&mut self, entries: &[Entry]) {
        let bytes = entries.iter().map(|entry| entry.weight() as u64).sum();
        let last = entries.last().map_or(0, |entry| entry.index);
        self.push(last, entries.len() as u64, bytes);
    }

    /// A state is handed out that covers everything up to entry `last`.
    pub(super) fn replaced(&mut self, last: Index) {
        self.push(last, 1, 0);
    }

    /// The state holds everything up to entry `applied`. What is applied in part counts as a whole until it is done.
    pub(super) fn applied(&mut self, applied: Index) {
        while let Some(batch) = self.batches.pop_front_if(|batch| batch.last <= applied) {
            self.entries -= batch.entries;
            self.bytes -= batch.bytes;
        }
    }

    /// Time passes.
    pub(super) fn tick(&mut self) {
        self.now += 1;
    }

    fn push(&mut self, last: Index, entries: u64, bytes: u64) {
        self.entries += entries;
        self.bytes += bytes;
        self.batches.push_back(Batch { last, entries, bytes, since: self.now });
    }
}

#[cfg(test)]
mod tests {
    use quorate_raft::Payload;

    use super::*;

    fn entries(indices: std::ops::RangeInclusive<u64>) -> Vec<Entry> {
        indices
            .map(|index| Entry { term: 1, index, payload: Payload::Command(vec![0; 100].into()) })
            .collect()
    }

    #[test]
    fn backlog_waits_since_its_oldest_batch() {
        let mut backlog = Backlog::default();
        backlog.handed_out(&entries(1..=3));
        backlog.tick();
        backlog.handed_out(&entries(4..=4));
        backlog.tick();
        assert_eq!((backlog.entries(), backlog.waited()), (4, 2));
        backlog.applied(2);
        assert_eq!((backlog.entries(), backlog.waited()), (4, 2), "the first batch is not done");
        backlog.applied(3);
        assert_eq!((backlog.entries(), backlog.waited()), (1, 1));
        backlog.replaced(9);
        backlog.applied(9);
        assert_eq!((backlog.entries(), backlog.bytes(), backlog.waited()), (0, 0, 0));
    }
}
