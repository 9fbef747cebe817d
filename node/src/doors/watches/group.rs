//! Watches that want the same, and what has changed for them lately, laid down once for all of them.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use prost::encoding::message;
use quorate_api::mvccpb::Event;

use super::filter::Filter;

/// A stream of watches.
pub(super) type StreamId = u64;

/// The field `events` of `etcdserverpb.WatchResponse`.
const EVENTS: u32 = 11;

/// Events as they stand in an answer, one field after the other.
#[derive(Debug, Clone, Default)]
pub struct Events {
    /// The fields.
    pub fields: Bytes,
    /// Where each of them ends, in `fields`.
    pub ends: Vec<usize>,
}

/// Events that are being laid down.
#[derive(Debug, Default)]
pub(super) struct Draft {
    fields: BytesMut,
    /// The revision of each, and where it ends.
    places: Vec<Place>,
}

#[derive(Debug, Clone, Copy)]
struct Place {
    revision: i64,
    end: usize,
}

/// What has changed for a group in some revisions.
#[derive(Debug, Clone)]
pub(super) struct Batch {
    fields: Bytes,
    places: Arc<[Place]>,
}

/// Watches that want the same.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) filter: Filter,
    pub(super) members: BTreeSet<(StreamId, i64)>,
    /// What has changed lately. What is older is read from the history.
    batches: VecDeque<Batch>,
    /// The number of the first of them, counted from the group's first one.
    first: u64,
}

impl Draft {
    /// Adds a change that was made in `revision`.
    pub(super) fn add(&mut self, revision: i64, event: &Event) {
        message::encode(EVENTS, event, &mut self.fields);
        self.places.push(Place { revision, end: self.fields.len() });
    }

    /// What it takes, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.fields.len() + self.places.len() * size_of::<Place>()
    }

    /// The revision of the last event.
    pub(super) fn last(&self) -> Option<i64> {
        self.places.last().map(|place| place.revision)
    }

    /// Leaves out what was added of `revision`.
    pub(super) fn forget(&mut self, revision: i64) {
        self.places.truncate(self.places.partition_point(|place| place.revision < revision));
        self.fields.truncate(self.places.last().map_or(0, |place| place.end));
    }

    /// As a whole. It is empty afterwards.
    pub(super) fn finish(&mut self) -> Batch {
        let fields = std::mem::take(&mut self.fields).freeze();
        Batch { fields, places: std::mem::take(&mut self.places).into() }
    }
}

impl Batch {
    /// What it takes, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.fields.len() + self.places.len() * size_of::<Place>()
    }

    /// The revision of the first event.
    pub(super) fn first(&self) -> i64 {
        self.places.first().map_or(i64::MAX, |place| place.revision)
    }

    /// The revision of the last event.
    pub(super) fn last(&self) -> i64 {
        self.places.last().map_or(0, |place| place.revision)
    }

    /// The events from revision `next` on.
    pub(super) fn since(&self, next: i64) -> Events {
        let passed = self.places.partition_point(|place| place.revision < next);
        let from = passed.checked_sub(1).map_or(0, |at| self.places[at].end);
        let ends = self.places[passed..].iter().map(|place| place.end - from).collect();
        Events { fields: self.fields.slice(from..), ends }
    }
}

impl Group {
    pub(super) fn new(filter: Filter) -> Self {
        Self { filter, members: BTreeSet::new(), batches: VecDeque::new(), first: 0 }
    }

    /// The number of the batch that comes next.
    pub(super) fn next(&self) -> u64 {
        self.first + self.batches.len() as u64
    }

    /// Adds what has changed. Its number.
    pub(super) fn push(&mut self, batch: Batch) -> u64 {
        self.batches.push_back(batch);
        self.next() - 1
    }

    /// The batch with this number. None if it was dropped.
    pub(super) fn batch(&self, number: u64) -> Option<&Batch> {
        self.batches.get(usize::try_from(number.checked_sub(self.first)?).ok()?)
    }

    /// Drops the oldest batch if it has this number: bytes that are given back.
    pub(super) fn drop_batch(&mut self, number: u64) -> usize {
        if number != self.first {
            return 0;
        }
        let Some(batch) = self.batches.pop_front() else { return 0 };
        self.first += 1;
        batch.bytes()
    }

    /// Something was not laid down: whoever has not got beyond it reads it from the history. Bytes that are given back.
    pub(super) fn skip(&mut self) -> usize {
        let bytes = self.bytes();
        self.first = self.next() + 1;
        self.batches.clear();
        bytes
    }

    /// All that its batches take, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.batches.iter().map(Batch::bytes).sum()
    }
}
