//! The writes that wait for the log's disk, and how many of them make one group.
//!
//! A group is one frame: one write and one fsync. Everything that waits could be one, but then a disk that is busy with a large one
//! could not be told from one that hangs: while it writes, all that is admitted gathers, and is the next. So a group has a size, and
//! what is durable is reported group by group, a part of a write if need be.
//!
//! The queue has no limit of its own. A follower's holds what leaders have on their way to it
//! ([`quorate_raft::Config::max_inflight_bytes`]), a leader's what its log holds ahead of what it has handed out to be applied, with which
//! it takes in no more requests (`replica/ahead.rs`): what waits here is among that. The simulator writes in the same groups.

use std::collections::VecDeque;

use quorate_raft::{Index, Write, WriteId};

/// Writes in order.
#[derive(Debug, Default)]
pub struct WriteQueue {
    waiting: VecDeque<Write>,
}

/// What is written together.
#[derive(Debug)]
pub struct Group {
    /// In order. Not empty.
    pub writes: Vec<Write>,
    /// What is durable when it is.
    pub durable: Durable,
}

/// What the replica is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durable {
    /// This write, and all before it ([`quorate_raft::Raft::persisted`]).
    Write(WriteId),
    /// All before this write, and of that one what it has up to this entry ([`quorate_raft::Raft::persisted_part`]).
    Part(WriteId, Index),
}

impl WriteQueue {
    /// Adds the next write.
    pub fn push(&mut self, write: Write) {
        self.waiting.push_back(write);
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Takes the next group: what waits, but no more than `bytes` of entries, or one entry that is larger. None when nothing waits.
    pub fn take(&mut self, bytes: usize) -> Option<Group> {
        let mut left = bytes;
        let mut writes = Vec::new();
        while let Some(next) = self.waiting.front_mut() {
            let weight = next.weight();
            if weight > left {
                // A part fills the group, if there is anything to fill.
                let part = if writes.is_empty() { next.take_beginning(left) } else { None };
                if let Some(part) = part {
                    let last = part.entries.last().expect("a part has an entry").index;
                    let durable = Durable::Part(part.id, last);
                    return Some(Group { writes: vec![part], durable });
                }
                if !writes.is_empty() {
                    break;
                }
            }
            left = left.saturating_sub(weight);
            writes.extend(self.waiting.pop_front());
        }
        let durable = Durable::Write(writes.last()?.id);
        Some(Group { writes, durable })
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use quorate_raft::{Entry, HardState, Payload};

    use super::*;

    /// Of entries of 100 bytes.
    fn write(id: u64, first: Index, count: u64) -> Write {
        let command = Payload::Command(Bytes::from_static(&[0; 68]));
        let entry = |index| Entry { term: 1, index, payload: command.clone() };
        let hard_state = Some(HardState { term: 1, ..HardState::default() });
        Write {
            id: WriteId(id),
            hard_state,
            reset: None,
            lost: None,
            entries: (first..first + count).map(entry).collect(),
        }
    }

    fn groups(queue: &mut WriteQueue, bytes: usize) -> Vec<(Vec<Index>, Durable)> {
        let group = |queue: &mut WriteQueue| {
            let Group { writes, durable } = queue.take(bytes)?;
            let indices = writes.iter().flat_map(|write| &write.entries).map(|entry| entry.index).collect();
            Some((indices, durable))
        };
        std::iter::from_fn(|| group(queue)).collect()
    }

    #[test]
    fn writes_are_grouped_up_to_a_size() {
        let mut queue = WriteQueue::default();
        assert!(queue.take(100).is_none());
        for (id, first, count) in [(1, 1, 2), (2, 3, 0), (3, 3, 1), (4, 4, 2)] {
            queue.push(write(id, first, count));
        }
        let found = groups(&mut queue, 350);
        assert_eq!(
            found,
            [(vec![1, 2, 3], Durable::Write(WriteId(3))), (vec![4, 5], Durable::Write(WriteId(4)))]
        );
        assert!(queue.is_empty());
    }

    #[test]
    fn a_large_write_is_written_in_parts_its_hard_state_with_the_first() {
        let mut queue = WriteQueue::default();
        queue.push(write(1, 1, 5));
        queue.push(write(2, 6, 1));
        let first = queue.take(250).unwrap();
        assert!(first.writes[0].hard_state.is_some());
        assert_eq!(first.durable, Durable::Part(WriteId(1), 2));
        let second = queue.take(250).unwrap();
        assert!(second.writes[0].hard_state.is_none());
        assert_eq!(second.durable, Durable::Part(WriteId(1), 4));
        assert_eq!(groups(&mut queue, 250), [(vec![5, 6], Durable::Write(WriteId(2)))]);
    }

    #[test]
    fn an_entry_that_is_larger_than_a_group_is_one() {
        let mut queue = WriteQueue::default();
        queue.push(write(1, 1, 2));
        let expected = [(vec![1], Durable::Part(WriteId(1), 1)), (vec![2], Durable::Write(WriteId(1)))];
        assert_eq!(groups(&mut queue, 10), expected);
    }
}
