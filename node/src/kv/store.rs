//! The state at one applied index, and what commands do to it.

use std::borrow::Borrow;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use quorate_api::etcdserverpb as pb;
use quorate_api::log::command::Operation;
use quorate_api::snapshot as wire;
use quorate_raft::LogId;

use super::alarms::Alarms;
use super::applying::Applying;
use super::compaction::Compaction;
use super::history::{History, Position};
use super::index::Index;
use super::keys::Keys;
use super::pins::Pin;
use super::range::RangeScan;
use super::rebuild::{BURIED, lease_to_copy};
use super::revision::{INITIAL, Revision};
use super::sizes::Sizes;
use super::steps::Steps;
use super::version::Version;
use super::{KvError, Response};
use crate::leases::Leases;
use crate::level::{FIRST, Level};

/// The replicated state at one applied index: every key with its history.
///
/// Applying is deterministic: the same operations make the same state and the same answers on every member. An operation
/// either changes the state as a whole, in one new revision, or not at all.
#[derive(Debug)]
pub struct Store {
    pub(super) index: Index,
    pub(super) history: History,
    pub(super) revision: i64,
    pub(super) compaction: Compaction,
    pub(super) sizes: Sizes,
    /// The weight of the entries since the last point at which a snapshot was due, in bytes.
    pub(super) weight: u64,
    /// What was kept at that point, in bytes.
    pub(super) kept_at_point: u64,
    /// The newest entry of the log that it holds.
    pub(super) applied: LogId,
    /// Of the cluster: see [`crate::level`].
    pub(super) level: Level,
    /// While an entry is being applied: the number behind the newest version before it. What follows cannot be seen yet.
    pub(super) unfinished: Option<u64>,
    /// The snapshot under way.
    pub(super) snapshot: Weak<Pin>,
    pub(super) alarms: Alarms,
    pub(super) leases: Leases,
    incarnation: Incarnation,
}

/// What is read for a copy under one hold of the lock, in bytes, and a version more.
const COPIED_BYTES: u64 = 256 << 10;

/// Tells one state from another that takes its place.
#[derive(Debug, Clone, Default)]
pub struct Incarnation(Arc<()>);

impl PartialEq for Incarnation {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Incarnation {}

impl Default for Store {
    fn default() -> Self {
        Self::new()
    }
}

impl Store {
    /// An empty state, at revision 1 and of the first level.
    pub fn new() -> Self {
        Self {
            index: Index::default(),
            history: History::default(),
            revision: INITIAL,
            compaction: Compaction::default(),
            sizes: Sizes::default(),
            weight: 0,
            kept_at_point: 0,
            applied: LogId::default(),
            level: FIRST,
            unfinished: None,
            snapshot: Weak::new(),
            alarms: Alarms::new(),
            leases: Leases::default(),
            incarnation: Incarnation::default(),
        }
    }

    /// Which state this is. Another one never compares as equal.
    pub fn incarnation(&self) -> Incarnation {
        self.incarnation.clone()
    }

    /// The newest entry of the log that it holds, as was said last by [`Self::applied_up_to`].
    pub fn applied(&self) -> LogId {
        self.applied
    }

    /// Everything up to entry `id` is applied.
    pub fn applied_up_to(&mut self, id: LogId) {
        self.applied = id;
    }

    /// The level of the cluster. What is applied next is done as this level says.
    pub fn level(&self) -> Level {
        self.level
    }

    /// The number behind that of the newest version that can be seen.
    pub fn end(&self) -> u64 {
        self.unfinished.unwrap_or_else(|| self.history.end())
    }

    /// Whether no entry is applied in part: only then is the accounted size that of an entry of the log.
    pub fn is_between_entries(&self) -> bool {
        self.unfinished.is_none()
    }

    /// What the state is beside its versions.
    pub fn summary(&self) -> wire::State {
        super::snapshot::state_to_wire(self)
    }

    /// Takes in the next version of a state that was written down: its key's newest.
    pub(super) fn take_back(&mut self, wire: &wire::Version) -> Position {
        let previous = self.index.get(&wire.key);
        let before = previous.and_then(|at| self.history.get(at));
        let version = super::snapshot::version_from_wire(wire, before);
        let deleted = version.is_tombstone();
        let position = self.append(version, previous);
        if deleted {
            let live = self.index.take_live(Keys::One(&wire.key), 1, usize::MAX).0.pop();
            let key = live.map_or_else(|| Box::from(&wire.key[..]), |(key, _)| key);
            self.index.delete(key, position);
        } else {
            self.index.put(&wire.key, position);
        }
        position
    }

    /// Appends a version behind its key's version `previous`.
    pub(super) fn append(&mut self, version: Version, previous: Option<Position>) -> Position {
        self.sizes.add(&version, self.history.makes_key(previous));
        self.history.push(version, previous)
    }

    /// For a copy that has everything before number `from`: up to `most` deletions that were removed before it could get them, or else
    /// versions in order, and the number to go on from.
    pub fn copy_from(&mut self, from: u64, most: usize) -> (Vec<wire::Version>, u64) {
        if from == 1 {
            self.leases.begin_copy();
        }
        let some = most.min(self.compaction.buried.len());
        let bury = |deletion| wire::Version { number: BURIED, ..super::snapshot::version_to_wire(&deletion) };
        let mut versions: Vec<_> = self.compaction.buried.drain(..some).map(bury).collect();
        // Also in the middle of an entry: a lease that ends is there until all that hangs on it is gone.
        versions.extend(self.leases.take_uncopied(most - some).into_iter().map(lease_to_copy));
        let (mut next, mut bytes) = (self.end(), 0);
        for (at, version) in self.history.iter_from(from) {
            if versions.len() >= most || bytes >= COPIED_BYTES || at.number() >= self.end() {
                next = next.min(at.number());
                break;
            }
            bytes += version.size();
            versions.push(super::snapshot::version_to_wire(version));
        }
        self.compaction.copied = Some(next);
        (versions, next)
    }

    /// Whether a copy that has everything before number `next` has everything.
    pub fn is_copied(&self, next: u64) -> bool {
        next == self.end() && self.compaction.buried.is_empty() && self.leases.is_copied()
    }

    /// There is no copy any more.
    pub fn end_copy(&mut self) {
        self.compaction.copied = None;
        self.compaction.buried.clear();
        self.leases.end_copy();
    }

    /// The current revision.
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// The bytes that the state takes, history included, as they are accounted (`kv/sizes.rs`). Never 0: etcdctl divides by it.
    pub fn size(&self) -> u64 {
        self.sizes.all() + self.leases.bytes()
    }

    /// The part of [`Self::size`] that the last compaction leaves. The same on every member at the same applied index.
    pub fn size_in_use(&self) -> u64 {
        self.sizes.in_use() + self.leases.bytes()
    }

    /// The revision below which reads fail; negative if nothing was compacted.
    pub fn compacted(&self) -> i64 {
        self.compaction.revision
    }

    /// Applies one operation in one go, and reads what its answer tells. The same outcome as that of an [`Applying`] whose late reads
    /// are done before anything else is applied.
    pub fn apply(&mut self, operation: &Operation) -> Result<Response, KvError> {
        let mut applying = Applying::new(operation.clone(), &Bytes::new(), true);
        let mut applied = loop {
            if let Some(outcome) = applying.step(self, usize::MAX) {
                break outcome?;
            }
        };
        while !applied.advance(self, usize::MAX)? {}
        // There is nobody to be told.
        self.leases.take_changes();
        Ok(applied.finish())
    }

    /// Reads a range in one piece.
    pub fn range(&self, request: &pb::RangeRequest) -> Result<pb::RangeResponse, KvError> {
        self.scan(request)?.run(self)
    }

    /// Begins to read a range in pieces, at the revision that is current now or the one that is asked for.
    pub fn scan<R: Borrow<pb::RangeRequest>>(&self, request: R) -> Result<RangeScan<R>, KvError> {
        RangeScan::new(self, request, Revision::end_of(self.revision), self.revision)
    }

    /// Leaves `by` revisions out, which another history may have used, and gives up everything before: whoever knows that one is told that
    /// it is compacted. False, and nothing is done, when `by` is not positive or revisions would end.
    pub fn leap(&mut self, by: i64) -> bool {
        let Some(revision) = self.revision.checked_add(by).filter(|_| by > 0) else { return false };
        self.revision = revision;
        self.compact(revision, &mut Steps::new(usize::MAX)).is_ok()
    }

    /// What `key` held at `point`.
    pub(super) fn version(&self, key: &[u8], point: Revision, steps: &mut Steps) -> Option<&Version> {
        let newest = if self.is_newest(point) { self.index.get_live(key) } else { self.index.get(key) };
        self.history.at(newest?, point, steps)
    }

    /// The keys of a range that may have existed at `point`, with their newest versions, in order. With `after`, only those behind it.
    pub(super) fn keys_at<'a, 'k>(
        &'a self,
        keys: Keys<'k>,
        after: Option<&'k [u8]>,
        point: Revision,
    ) -> impl Iterator<Item = (&'a [u8], Position)> + use<'a, 'k> {
        self.index.range(keys, after, !self.is_newest(point))
    }

    /// Whether all that was done can be seen at `point`: then what was deleted is not there.
    fn is_newest(&self, point: Revision) -> bool {
        self.history.newest_revision() <= point
    }
}
