//! The term of each entry, for a log that keeps none of its entries in memory.

use quorate_raft::{Entry, Index, LogId};

/// Terms along a log. They never fall, so they are few runs.
#[derive(Debug, Default)]
pub(super) struct Terms {
    /// The entry that the log begins after, and then the first entry of each term that follows.
    runs: Vec<LogId>,
}

impl Terms {
    /// Of a log that begins after `base`.
    pub(super) fn new<'a>(base: LogId, entries: impl IntoIterator<Item = &'a Entry>) -> Self {
        let mut terms = Self { runs: vec![base] };
        terms.append(entries);
        terms
    }

    /// Takes in consecutive entries, the first of which replaces what was at its index and behind.
    pub(super) fn append<'a>(&mut self, entries: impl IntoIterator<Item = &'a Entry>) {
        let mut entries = entries.into_iter().peekable();
        let Some(first) = entries.peek() else { return };
        self.runs.truncate(self.runs.partition_point(|run| run.index < first.index));
        for entry in entries {
            if self.runs.last().is_none_or(|run| run.term != entry.term) {
                self.runs.push(entry.id());
            }
        }
    }

    /// The name of the entry at `index`, which is in the log or the one that it begins after.
    pub(super) fn id_at(&self, index: Index) -> LogId {
        let run = self.runs[..self.runs.partition_point(|run| run.index <= index)].last();
        LogId { term: run.expect("no entry is before the one that the log begins after").term, index }
    }

    /// The log begins after `base` now, which is in it.
    pub(super) fn release(&mut self, base: LogId) {
        self.runs.drain(..self.runs.partition_point(|run| run.index <= base.index));
        self.runs.insert(0, base);
    }
}
