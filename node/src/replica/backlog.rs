//! What is committed and not applied yet, on one member: how much it is, for how long it has waited, and whether it becomes less.

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
    /// The tick of the applier's last step, or of when there was something to do for it again.
    stepped: u64,
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

    /// For how many ticks the applier has made no step, though there was something to do.
    pub fn stood_still(&self) -> u64 {
        if self.batches.is_empty() { 0 } else { self.now - self.stepped }
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

    /// The applier has made a step, after which the state holds everything up to entry `applied`. What is applied in part counts as a
    /// whole until it is done.
    pub(super) fn applied(&mut self, applied: Index) {
        self.stepped = self.now;
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
        if self.batches.is_empty() {
            self.stepped = self.now;
        }
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

    /// A long entry is many steps, and an applier that has nothing to do is not one that does nothing.
    #[test]
    fn applier_stands_still_only_while_it_makes_no_step_and_has_work() {
        let mut backlog = Backlog::default();
        let wait = |backlog: &mut Backlog, ticks| (0..ticks).for_each(|_| backlog.tick());
        wait(&mut backlog, 100);
        assert_eq!(backlog.stood_still(), 0);
        backlog.handed_out(&entries(1..=1));
        wait(&mut backlog, 7);
        backlog.handed_out(&entries(2..=2));
        assert_eq!(backlog.stood_still(), 7, "more work is no step");
        backlog.applied(0);
        wait(&mut backlog, 3);
        assert_eq!((backlog.waited(), backlog.stood_still()), (10, 3), "a part of an entry is one");
        backlog.applied(2);
        wait(&mut backlog, 5);
        assert_eq!(backlog.stood_still(), 0);
    }
}
