//! What has been handed out to be written, and how much of it is durable.

use std::collections::VecDeque;

use crate::log::Log;
use crate::{HardState, Index, LogId, Write, WriteId};

/// The proof that a write, and every write before it, is durable. Only [`Writes`] makes one, and only from a completion
/// that was reported (or from what was restored, which needs none).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Durable {
    through: WriteId,
}

impl Durable {
    /// Whether `id` is among what is durable.
    pub(crate) fn covers(self, id: WriteId) -> bool {
        id <= self.through
    }
}

/// The order of writes, and which prefix of the log is durable.
///
/// Writes are numbered in the order in which leaders' entries were accepted, so a number stands for one content of the log.
/// When a later leader's entries replace a tail that is still being written, what the writes under way count for is cut back
/// with it: their late completion is never taken for that of their successors, which come with a write of their own
/// (failures 14 and 15).
///
/// Invariants: `durable` and every `end` are at or before the end of the log, and never fall from one write to the next;
/// whatever follows `unwritten` has not been handed out.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Writes {
    issued: WriteId,
    persisted: WriteId,
    under_way: VecDeque<UnderWay>,
    /// The prefix of the current log that is durable.
    durable: Index,
    /// The first entry that no write has carried yet.
    unwritten: Index,
    /// A snapshot has taken the place of the whole log, and no write has said so yet.
    reset: Option<LogId>,
    /// What the member owes has changed, and no write has said so yet.
    lost: Option<LogId>,
    /// What the newest write says of term, vote and commit.
    hard_state: HardState,
    /// The write that carries the newest term and vote, and what the member owes.
    term_and_vote: WriteId,
    /// Ticks for which the oldest write under way has not come back.
    waited: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct UnderWay {
    id: WriteId,
    /// The prefix of the current log that is durable once this write is.
    end: Index,
}

impl Writes {
    /// After a restart: all that was read is durable.
    pub(crate) fn new(hard_state: HardState, last: Index) -> Self {
        Self {
            issued: WriteId::default(),
            persisted: WriteId::default(),
            under_way: VecDeque::new(),
            durable: last,
            unwritten: last + 1,
            reset: None,
            lost: None,
            hard_state,
            term_and_vote: WriteId::default(),
            waited: 0,
        }
    }

    /// The prefix of the log that is durable.
    pub(crate) fn durable(&self) -> Index {
        self.durable
    }

    /// The proof of all that is durable by now.
    pub(crate) fn proof(&self) -> Durable {
        Durable { through: self.persisted }
    }

    /// The write with which `state`'s term and vote are durable, and what the member owes: once it has told that it lacks something, it must
    /// not come back and take itself for whole. Its leader would hold less against it than before.
    pub(crate) fn of_term_and_vote(&self, state: HardState) -> WriteId {
        if self.has_newer_promise(state) { self.following() } else { self.term_and_vote }
    }

    /// The write with which everything up to now is durable.
    pub(crate) fn of_everything(&self, state: HardState, log: &Log) -> WriteId {
        if self.is_due(state, log) { self.following() } else { self.issued }
    }

    /// Whether there is something to write. A commit that moved alone is not: it can be learned again.
    pub(crate) fn is_due(&self, state: HardState, log: &Log) -> bool {
        self.has_newer_promise(state) || self.reset.is_some() || self.unwritten <= log.last().index
    }

    /// The member owes everything up to `lost` from now on. The next write says so, before any entry that may make it good.
    pub(crate) fn owes(&mut self, lost: LogId) {
        self.lost = Some(lost);
    }

    /// How many ticks the oldest write has been under way; 0 when there is none.
    pub(crate) fn waited(&self) -> u32 {
        self.waited
    }

    /// A tick has passed.
    pub(crate) fn tick(&mut self) {
        self.waited = if self.under_way.is_empty() { 0 } else { self.waited.saturating_add(1) };
    }

    /// The log was cut back to before `from`.
    pub(crate) fn truncated(&mut self, from: Index) {
        let keep = from - 1;
        self.durable = self.durable.min(keep);
        self.unwritten = self.unwritten.min(from);
        for write in &mut self.under_way {
            write.end = write.end.min(keep);
        }
    }

    /// A snapshot of everything up to `id`, itself durable, takes the place of the whole log. What is being written belongs to
    /// the log that was: it counts for nothing beyond.
    pub(crate) fn reset(&mut self, id: LogId) {
        self.reset = Some(id);
        self.durable = id.index;
        self.unwritten = id.index + 1;
        for write in &mut self.under_way {
            write.end = id.index;
        }
    }

    /// The next write, if one is due. Term, vote and entries are one unit in it: no entry of a term is durable before the
    /// term itself (failures 1 and 4).
    pub(crate) fn next(&mut self, state: HardState, log: &Log) -> Option<Write> {
        if !self.is_due(state, log) {
            return None;
        }
        let end = log.last().index;
        self.issued = self.following();
        if self.has_newer_promise(state) {
            self.term_and_vote = self.issued;
        }
        let hard_state = (state != self.hard_state).then_some(state);
        let entries = log.slice(self.unwritten, end, usize::MAX);
        self.hard_state = state;
        self.unwritten = end + 1;
        self.under_way.push_back(UnderWay { id: self.issued, end });
        Some(Write { id: self.issued, hard_state, reset: self.reset.take(), lost: self.lost.take(), entries })
    }

    /// Write `id`, and all before it, are durable. Returns whether that is news.
    pub(crate) fn persisted(&mut self, id: WriteId) -> bool {
        assert!(id <= self.issued, "write {} was never handed out, {} is the newest", id.0, self.issued.0);
        if id <= self.persisted {
            return false;
        }
        self.persisted = id;
        self.waited = 0;
        while let Some(write) = self.under_way.pop_front_if(|write| write.id <= id) {
            assert!(write.end >= self.durable, "what is durable stays durable");
            self.durable = write.end;
        }
        true
    }

    /// All writes before `id` are durable, and of that one the beginning, up to entry `index`. Returns whether that is news. What it
    /// has replaced since counts for nothing, as in [`Self::persisted`].
    pub(crate) fn persisted_part(&mut self, id: WriteId, index: Index) -> bool {
        let before = WriteId(id.0.saturating_sub(1));
        let is_news = self.persisted(before);
        let Some(write) = self.under_way.front().filter(|write| write.id == id) else { return is_news };
        self.waited = 0;
        let durable = self.durable.max(index.min(write.end));
        std::mem::replace(&mut self.durable, durable) != durable || is_news
    }

    /// Numbers the writes anew, as if those that are durable had never been, and counts no further than it makes a
    /// difference. Returns what was taken off each number.
    pub(crate) fn renumber(&mut self, patience: u32) -> u64 {
        let offset = self.persisted.0;
        for id in [&mut self.issued, &mut self.persisted, &mut self.term_and_vote] {
            id.0 = id.0.saturating_sub(offset);
        }
        for write in &mut self.under_way {
            write.id.0 -= offset;
        }
        self.waited = self.waited.min(patience);
        offset
    }

    fn following(&self) -> WriteId {
        WriteId(self.issued.0 + 1)
    }

    fn has_newer_promise(&self, state: HardState) -> bool {
        (state.term, state.vote) != (self.hard_state.term, self.hard_state.vote) || self.lost.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Entry, Payload};

    fn entry(term: u64, index: Index) -> Entry {
        Entry { term, index, payload: Payload::Noop }
    }

    #[test]
    fn late_completions_do_not_count_for_successors() {
        let state = HardState { term: 1, ..HardState::default() };
        let mut log = Log::new(LogId::default(), [entry(1, 1)]);
        let mut writes = Writes::new(state, 1);
        (2..=5).for_each(|index| log.append(entry(1, index)));
        assert_eq!(writes.next(state, &log).unwrap().id, WriteId(1));
        log.truncate(3);
        writes.truncated(3);
        (3..=4).for_each(|index| log.append(entry(2, index)));
        let state = HardState { term: 2, ..state };
        assert_eq!(writes.next(state, &log).unwrap().entries, vec![entry(2, 3), entry(2, 4)]);
        assert!(writes.persisted(WriteId(1)));
        assert_eq!(writes.durable(), 2);
        assert!(!writes.persisted(WriteId(1)));
        assert!(writes.persisted(WriteId(2)));
        assert_eq!(writes.durable(), 4);
    }

    #[test]
    fn a_part_of_a_write_counts_up_to_what_was_replaced_and_shows_that_the_disk_gets_on() {
        let state = HardState { term: 1, ..HardState::default() };
        let mut log = Log::new(LogId::default(), [entry(1, 1)]);
        let mut writes = Writes::new(state, 1);
        (2..=9).for_each(|index| log.append(entry(1, index)));
        let promised = writes.of_everything(state, &log);
        writes.next(state, &log).unwrap();
        (0..3).for_each(|_| writes.tick());
        assert!(writes.persisted_part(WriteId(1), 4));
        assert_eq!((writes.durable(), writes.waited()), (4, 0));
        assert!(!writes.proof().covers(promised), "not all of it is durable");
        log.truncate(7);
        writes.truncated(7);
        log.append(entry(2, 7));
        assert!(writes.persisted_part(WriteId(1), 8), "entries 7 and 8 are others now");
        assert_eq!(writes.durable(), 6);
        assert!(!writes.persisted_part(WriteId(1), 9), "nothing more of it counts");
        assert!(writes.persisted(WriteId(1)));
        assert_eq!(writes.durable(), 6);
        let state = HardState { term: 2, ..state };
        writes.next(state, &log).unwrap();
        assert!(!writes.persisted_part(WriteId(1), 5), "late");
        assert!(writes.persisted(WriteId(2)));
        assert_eq!(writes.durable(), 7);
    }

    #[test]
    fn a_commit_alone_makes_no_write() {
        let state = HardState { term: 1, ..HardState::default() };
        let mut log = Log::new(LogId::default(), [entry(1, 1)]);
        let mut writes = Writes::new(state, 1);
        let state = HardState { commit: 1, ..state };
        assert!(writes.next(state, &log).is_none());
        log.append(entry(1, 2));
        assert_eq!(writes.next(state, &log).unwrap().hard_state, Some(state));
        log.append(entry(1, 3));
        assert_eq!(writes.next(state, &log).unwrap().hard_state, None);
    }
}
