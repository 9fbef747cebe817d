//! The log in memory.

use crate::{Entry, Index, LogId, Term};

/// A member's log: `base` and the consecutive entries after it.
///
/// `base` names the last entry that is no longer held, (0, 0) while all are. Everything up to it is committed. Only its name
/// is kept, so that the entry after it can still be checked against it.
///
/// Invariants: indices are consecutive; terms never fall. Payloads are reference counted: handing out entries copies none.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Log {
    base: LogId,
    entries: Vec<Entry>,
}

impl Log {
    /// The log of `entries`, which follow `base`.
    pub(crate) fn new(base: LogId, entries: impl IntoIterator<Item = Entry>) -> Self {
        let mut log = Self { base, entries: Vec::new() };
        entries.into_iter().for_each(|entry| log.append(entry));
        log
    }

    /// The log from a disk that may hold a snapshot of everything up to `snapshot`. The first entry may be any up to the one
    /// after it; of one before, only the name is kept, for what precedes it is not known.
    pub(crate) fn restored(snapshot: Option<LogId>, entries: Vec<Entry>) -> Self {
        let first = entries.first().map_or(1, |entry| entry.index);
        match snapshot {
            Some(snapshot) if entries.is_empty() || first > snapshot.index => Self::new(snapshot, entries),
            Some(_) if first > 1 => Self::new(entries[0].id(), entries.into_iter().skip(1)),
            _ => Self::new(LogId::default(), entries),
        }
    }

    /// The newest entry that is no longer held.
    pub(crate) fn base(&self) -> LogId {
        self.base
    }

    /// The entries after `index` that are held.
    pub(crate) fn after(&self, index: Index) -> &[Entry] {
        let start =
            self.position(index + 1).unwrap_or(if index < self.base.index { 0 } else { self.entries.len() });
        &self.entries[start..]
    }

    /// The name of the newest entry.
    pub(crate) fn last(&self) -> LogId {
        self.entries.last().map_or(self.base, Entry::id)
    }

    /// The term of the entry at `index`; none if it is not there, or no longer.
    pub(crate) fn term_at(&self, index: Index) -> Option<Term> {
        if index == self.base.index {
            return Some(self.base.term);
        }
        self.position(index).map(|at| self.entries[at].term)
    }

    /// Whether the log holds `id`, and so all that precedes it (Log Matching; Raft paper, 5.3). What lies before `base` is
    /// committed, so every leader holds the same there.
    pub(crate) fn contains(&self, id: LogId) -> bool {
        id.index < self.base.index || self.term_at(id.index) == Some(id.term)
    }

    /// The entries of `from..=to` that fit into `max_bytes`, and at least one if the range holds any.
    pub(crate) fn slice(&self, from: Index, to: Index, max_bytes: usize) -> Vec<Entry> {
        let Some(start) = self.position(from) else { return Vec::new() };
        let end = self.position(to.min(self.last().index)).map_or(start, |at| at + 1);
        let candidates = self.entries.get(start..end).unwrap_or_default();
        let mut bytes = 0;
        let fitting = candidates.iter().take_while(|entry| {
            bytes += entry.weight();
            bytes <= max_bytes
        });
        let count = fitting.count().max(1).min(candidates.len());
        candidates[..count].to_vec()
    }

    /// The newest entry at or before `limit.index` whose term is not beyond `limit.term`: nothing after it can agree with a
    /// log that holds `limit` and whose terms, like all logs' terms, never fall. A conflict is found in one exchange for
    /// each term, not for each entry (Raft paper, end of 5.3). None if that lies before `base`.
    pub(crate) fn agreement(&self, limit: LogId) -> Option<LogId> {
        let held = limit.index.min(self.last().index).checked_sub(self.base.index)?;
        let within = &self.entries[..usize::try_from(held).expect("no more than is in memory")];
        match within.partition_point(|entry| entry.term <= limit.term) {
            0 => Some(self.base).filter(|base| base.term <= limit.term),
            count => Some(within[count - 1].id()),
        }
    }

    /// Adds one entry at the end.
    pub(crate) fn append(&mut self, entry: Entry) {
        let last = self.last();
        assert_eq!(entry.index, last.index + 1, "the log has no gaps");
        assert!(
            entry.term >= last.term,
            "terms never fall along the log: {} after {}",
            entry.term,
            last.term
        );
        self.entries.push(entry);
    }

    /// Cuts off the entries from `from` on.
    pub(crate) fn truncate(&mut self, from: Index) {
        assert!(from > self.base.index, "what is compacted is committed: it cannot be cut off");
        let keep = self.position(from).expect("only what is there is cut off");
        self.entries.truncate(keep);
    }

    /// Lets the entries up to `index` go. They are committed, and in a snapshot.
    pub(crate) fn compact(&mut self, index: Index) {
        if let Some(at) = self.position(index) {
            self.base = self.entries[at].id();
            self.entries.drain(..=at);
        }
    }

    fn position(&self, index: Index) -> Option<usize> {
        let offset = index.checked_sub(self.base.index + 1)?;
        usize::try_from(offset).ok().filter(|at| *at < self.entries.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Payload;

    /// A log from the terms of its entries.
    fn log(terms: &[Term]) -> Log {
        let entry =
            |(at, term): (usize, &Term)| Entry { term: *term, index: at as u64 + 1, payload: Payload::Noop };
        Log::new(LogId::default(), terms.iter().enumerate().map(entry))
    }

    #[test]
    fn agreement_skips_whole_terms() {
        let log = log(&[1, 1, 4, 4, 4, 6]);
        let agreement = |term, index| log.agreement(LogId { term, index });
        assert_eq!(agreement(5, 6), Some(LogId { term: 4, index: 5 }));
        assert_eq!(agreement(3, 6), Some(LogId { term: 1, index: 2 }));
        assert_eq!(agreement(9, 3), Some(LogId { term: 4, index: 3 }));
        assert_eq!(agreement(0, 6), Some(LogId::default()));
        assert_eq!(agreement(9, 99), Some(LogId { term: 6, index: 6 }));
    }

    #[test]
    fn slices_hold_at_least_one_entry() {
        let log = log(&[1, 1, 1]);
        assert_eq!(log.slice(2, 3, 0).len(), 1);
        assert_eq!(log.slice(1, 3, usize::MAX).len(), 3);
        assert_eq!(log.slice(1, 99, usize::MAX).len(), 3);
        assert!(log.slice(4, 9, usize::MAX).is_empty());
        assert!(log.slice(3, 2, usize::MAX).is_empty());
    }

    #[test]
    fn after_a_compacted_prefix_the_base_still_checks() {
        let base = LogId { term: 3, index: 10 };
        let mut log = Log::new(base, []);
        assert_eq!(log.last(), base);
        log.append(Entry { term: 4, index: 11, payload: Payload::Noop });
        assert_eq!(
            (log.term_at(9), log.term_at(10), log.term_at(11), log.term_at(12)),
            (None, Some(3), Some(4), None)
        );
        assert!(log.contains(LogId { term: 3, index: 10 }) && !log.contains(LogId { term: 2, index: 10 }));
        assert_eq!(log.agreement(LogId { term: 3, index: 11 }), Some(base));
        assert_eq!(log.agreement(LogId { term: 2, index: 11 }), None);
        assert_eq!(log.agreement(LogId { term: 3, index: 9 }), None);
        log.truncate(11);
        assert_eq!(log.last(), base);
    }

    #[test]
    fn compaction_keeps_the_name_of_the_last_that_went() {
        let mut log = log(&[1, 1, 4, 4]);
        log.compact(3);
        assert_eq!((log.base(), log.last()), (LogId { term: 4, index: 3 }, LogId { term: 4, index: 4 }));
        assert_eq!((log.after(0).len(), log.after(3).len(), log.after(4).len()), (1, 1, 0));
        log.compact(2);
        assert_eq!(log.base().index, 3);
        log.compact(4);
        assert_eq!((log.base(), log.last()), (LogId { term: 4, index: 4 }, LogId { term: 4, index: 4 }));
    }

    #[test]
    fn a_restored_log_begins_where_its_entries_do() {
        let snapshot = Some(LogId { term: 1, index: 2 });
        let entries = log(&[1, 1, 4]).entries;
        assert_eq!(Log::restored(None, entries.clone()).base(), LogId::default());
        assert_eq!(Log::restored(snapshot, entries.clone()).base(), LogId::default());
        assert_eq!(Log::restored(snapshot, entries[1..].to_vec()).base(), LogId { term: 1, index: 2 });
        assert_eq!(Log::restored(snapshot, entries[2..].to_vec()).last(), LogId { term: 4, index: 3 });
        assert_eq!(Log::restored(snapshot, Vec::new()).last(), LogId { term: 1, index: 2 });
    }
}
