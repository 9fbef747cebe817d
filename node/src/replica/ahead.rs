//! What a member's log holds and was not handed out to be applied: it is not committed, or not durable here.
//!
//! A request that is given up gives back what it took where it came in, and stays in the log. So what stands there counts for itself: with
//! a quorum, or a disk, that is slower than requests come, the log would grow for as long as they do.

use std::collections::VecDeque;

use quorate_raft::{Entry, Index, Write};

/// So many entries are counted together, or fewer of so many bytes: a little more than they are may count until all of them were handed out.
const COUNTED_TOGETHER: u64 = 256;
const BYTES_TOGETHER: u64 = 1 << 20;

/// Those entries, of whatever terms.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    /// In the order of the log.
    batches: VecDeque<Batch>,
    bytes: u64,
}

#[derive(Debug)]
struct Batch {
    first: Index,
    last: Index,
    bytes: u64,
}

impl Ahead {
    /// How many bytes they have ([`Entry::weight`]), about.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// This is being written.
    pub(super) fn written(&mut self, write: &Write) {
        if write.reset.is_some() {
            *self = Self::default();
        }
        self.appended(&write.entries);
    }

    /// These, which are consecutive, came to the log: the first one replaces whatever it held there and after.
    pub(super) fn appended(&mut self, entries: &[Entry]) {
        let Some(Entry { index: from, .. }) = entries.first() else { return };
        while let Some(batch) = self.batches.pop_back_if(|batch| batch.first >= *from) {
            self.bytes -= batch.bytes;
        }
        if let Some(cut) = self.batches.back_mut().filter(|batch| batch.last >= *from) {
            cut.last = from - 1;
        }
        for entry in entries {
            let (index, bytes) = (entry.index, entry.weight() as u64);
            let takes = |batch: &&mut Batch| {
                let is_of_these = batch.first >= *from;
                let few = batch.last - batch.first + 1 < COUNTED_TOGETHER;
                is_of_these && few && batch.bytes + bytes <= BYTES_TOGETHER
            };
            match self.batches.back_mut().filter(takes) {
                Some(batch) => {
                    batch.last = index;
                    batch.bytes += bytes;
                }
                None => self.batches.push_back(Batch { first: index, last: index, bytes }),
            }
            self.bytes += bytes;
        }
    }

    /// Everything up to entry `last` was handed out, or a snapshot covers it.
    pub(super) fn handed_out(&mut self, last: Index) {
        while let Some(batch) = self.batches.pop_front_if(|batch| batch.last <= last) {
            self.bytes -= batch.bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use quorate_raft::Payload;

    use super::*;

    fn entries(indices: std::ops::RangeInclusive<u64>) -> Vec<Entry> {
        entries_of(100, indices)
    }

    fn entries_of(bytes: usize, indices: std::ops::RangeInclusive<u64>) -> Vec<Entry> {
        indices
            .map(|index| Entry { term: 1, index, payload: Payload::Command(vec![0; bytes].into()) })
            .collect()
    }

    #[test]
    fn entries_count_until_they_are_handed_out_or_replaced() {
        let one = entries(1..=1)[0].weight() as u64;
        let mut ahead = Ahead::default();
        ahead.appended(&entries(1..=3));
        ahead.appended(&entries(4..=5));
        ahead.handed_out(2);
        assert_eq!(ahead.bytes(), 5 * one, "the first batch is not done");
        ahead.handed_out(3);
        assert_eq!(ahead.bytes(), 2 * one);
        ahead.appended(&entries(4..=1000));
        assert_eq!(ahead.bytes(), 997 * one, "they are in the place of the others");
        ahead.appended(&entries(10..=10));
        ahead.handed_out(10);
        assert_eq!(ahead.bytes(), 0);
    }

    /// Else clients of large values are refused for what was done already.
    #[test]
    fn large_entries_count_no_longer_than_each_is_there() {
        let one = entries_of(1 << 20, 1..=1)[0].weight() as u64;
        let mut ahead = Ahead::default();
        ahead.appended(&entries_of(1 << 20, 1..=64));
        for index in 1..=64 {
            ahead.handed_out(index);
            assert_eq!(ahead.bytes(), (64 - index) * one);
        }
    }
}
