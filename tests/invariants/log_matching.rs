//! Log Matching: an entry's term and index stand for one entry, and for all that precede it (Raft paper, figure 3).

use std::collections::BTreeMap;

use quorate_raft::{Entry, LogId, MemberId, Term};

use super::member::Name;

#[derive(Debug, Default)]
pub(crate) struct LogMatching {
    /// Every entry that ever stood in a log, with the term of its predecessor.
    entries: BTreeMap<LogId, (Name, Term)>,
}

impl LogMatching {
    /// An entry came into a log, behind one of the term `previous`. Returns whether nobody had it before.
    pub(crate) fn appended(&mut self, id: MemberId, entry: &Entry, name: Name, previous: Term) -> bool {
        let mut new = false;
        let known = *self.entries.entry(entry.id()).or_insert_with(|| {
            new = true;
            (name, previous)
        });
        assert_eq!(
            known,
            (name, previous),
            "LOG MATCHING: {id} has another entry at {:?}, or behind another one",
            entry.id()
        );
        new
    }
}
