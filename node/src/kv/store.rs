//! The state at one applied index, and what commands do to it.

use std::sync::Arc;

use bytes::Bytes;
use quorate_api::etcdserverpb as pb;
use quorate_api::log::command::Operation;
use quorate_api::snapshot as wire;
use quorate_raft::LogId;

use super::compaction::Compaction;
use super::history::{History, Position, Version};
use super::index::Index;
use super::keys::Keys;
use super::range::RangeScan;
use super::rebuild::BURIED;
use super::revision::{INITIAL, Revision};
use super::txn::Plan;
use super::{KvError, Response, header};
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

/// Bytes of versions: keys, values and the record of each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Sizes {
    /// Of all that are here.
    pub(super) held: u64,
    /// Of those that the last compaction leaves. The same on every member; what is removed later than elsewhere does not show.
    pub(super) kept: u64,
}

impl Sizes {
    pub(super) fn add(&mut self, version: &Version) {
        self.held += version.size();
        self.kept += version.size();
    }
}

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

    /// The number behind that of the newest version.
    pub fn end(&self) -> u64 {
        self.history.end()
    }

    /// What the state is beside its versions.
    pub fn summary(&self) -> wire::State {
        super::snapshot::state_to_wire(self)
    }

    /// Takes in the next version of a state that was written down, with a buffer of its own: its key's newest.
    pub(super) fn take_back(&mut self, wire: wire::Version) -> Position {
        let position = self.history.next_position();
        let previous = self.index.insert(&wire.key, position);
        let mut version = super::snapshot::version_from_wire(wire, previous);
        version.own_bytes();
        self.sizes.add(&version);
        self.history.push(version)
    }

    /// For a copy that has everything before number `from`: deletions that were removed before it could get them, then up to `most`
    /// versions in order, and the number to go on from.
    pub fn copy_from(&mut self, from: u64, most: usize) -> (Vec<wire::Version>, u64) {
        let buried = std::mem::take(&mut self.compaction.buried);
        let bury = |deletion| wire::Version { number: BURIED, ..super::snapshot::version_to_wire(deletion) };
        let mut versions: Vec<_> = buried.iter().map(bury).collect();
        let (mut next, mut bytes) = (self.end(), 0);
        for (count, (at, version)) in self.history.iter_from(from).enumerate() {
            if count == most || bytes >= COPIED_BYTES {
                next = at.number();
                break;
            }
            bytes += version.size();
            versions.push(super::snapshot::version_to_wire(version));
        }
        self.compaction.copied = Some(next);
        (versions, next)
    }

    /// Nobody makes a copy any more.
    pub fn end_copy(&mut self) {
        self.compaction.copied = None;
        self.compaction.buried.clear();
    }

    /// The current revision.
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// The bytes that the state takes, history included: keys, values and the record of each version. Never 0: etcdctl divides
    /// by it.
    pub fn size(&self) -> u64 {
        self.sizes.held + size_of::<Self>() as u64
    }

    /// The part of [`Self::size`] that the last compaction leaves. The same on every member at the same applied index.
    pub fn size_in_use(&self) -> u64 {
        self.sizes.kept + size_of::<Self>() as u64
    }

    /// The revision below which reads fail; negative if nothing was compacted.
    pub fn compacted(&self) -> i64 {
        self.compaction.revision
    }

    /// Applies one operation. It was found valid (see [`super::check`]) before it was proposed; one that was not does no
    /// harm, but its outcome is only defined to be the same everywhere.
    pub fn apply(&mut self, operation: &Operation) -> Result<Response, KvError> {
        match operation {
            Operation::Put(request) => self.put(request).map(Response::Put),
            Operation::DeleteRange(request) => Ok(Response::DeleteRange(self.delete_range(request))),
            Operation::Txn(request) => self.txn(request).map(Response::Txn),
            Operation::Compact(request) => self.compact(request.revision).map(Response::Compact),
            Operation::RaiseLevel(raise) => {
                self.level = self.level.max(raise.to);
                Ok(Response::RaiseLevel(self.level))
            }
        }
    }

    /// Reads a range in one piece.
    pub fn range(&self, request: &pb::RangeRequest) -> Result<pb::RangeResponse, KvError> {
        self.scan(request)?.run(self)
    }

    /// Begins to read a range in pieces, at the revision that is current now or the one that is asked for.
    pub fn scan<'r>(&self, request: &'r pb::RangeRequest) -> Result<RangeScan<'r>, KvError> {
        RangeScan::new(self, request, self.revision)
    }

    /// What `key` held at `revision`.
    pub(super) fn version(&self, key: &[u8], revision: i64) -> Option<&Version> {
        self.history.at(self.index.get(key)?, revision)
    }

    fn put(&mut self, request: &pb::PutRequest) -> Result<pb::PutResponse, KvError> {
        self.check_put(request)?;
        let mut writer = Writer::new(self);
        let response = writer.put(request);
        writer.commit();
        Ok(response)
    }

    fn delete_range(&mut self, request: &pb::DeleteRangeRequest) -> pb::DeleteRangeResponse {
        let mut writer = Writer::new(self);
        let response = writer.delete_range(request);
        writer.commit();
        response
    }

    fn txn(&mut self, request: &pb::TxnRequest) -> Result<pb::TxnResponse, KvError> {
        let plan = Plan::new(self, request);
        plan.check(self)?;
        let mut writer = Writer::new(self);
        let mut response = plan.execute(&mut writer)?;
        response.header = Some(header(writer.commit()));
        Ok(response)
    }

    /// Whether the current state allows a put.
    pub(super) fn check_put(&self, request: &pb::PutRequest) -> Result<(), KvError> {
        if request.lease != 0 {
            return Err(KvError::LeaseNotFound);
        }
        if (request.ignore_value || request.ignore_lease)
            && self.version(&request.key, self.revision).is_none()
        {
            return Err(KvError::KeyNotFound);
        }
        Ok(())
    }
}

/// One revision in the making.
#[derive(Debug)]
pub(super) struct Writer<'s> {
    store: &'s mut Store,
    changes: u32,
}

impl<'s> Writer<'s> {
    fn new(store: &'s mut Store) -> Self {
        Self { store, changes: 0 }
    }

    /// The revision that operations see: the new one as soon as something has changed.
    fn revision(&self) -> i64 {
        self.store.revision + i64::from(self.changes > 0)
    }

    /// Makes the changes the current state, and returns its revision.
    fn commit(self) -> i64 {
        self.store.revision = self.revision();
        self.store.revision
    }

    /// Reads, with what this revision has changed so far.
    pub(super) fn range(&self, request: &pb::RangeRequest) -> Result<pb::RangeResponse, KvError> {
        RangeScan::new(self.store, request, self.revision())?.run(self.store)
    }

    /// Puts, after `check_put` found nothing against it.
    pub(super) fn put(&mut self, request: &pb::PutRequest) -> pb::PutResponse {
        let modified = self.next_change();
        let Store { index, history, sizes, .. } = &mut *self.store;
        let newest = index.get_mut(&request.key);
        let last = newest.as_deref().copied();
        let previous = last.map(|at| history.newest(at)).filter(|version| !version.is_tombstone());
        let prev_kv = previous.filter(|_| request.prev_kv).map(Version::key_value);
        let version = next_version(request, modified, previous, last);
        sizes.add(&version);
        let position = history.push(version);
        match newest {
            Some(newest) => *newest = position,
            None => {
                index.insert(&request.key, position);
            }
        }
        pb::PutResponse { header: Some(header(modified.main)), prev_kv }
    }

    /// Deletes what is there of a range.
    pub(super) fn delete_range(&mut self, request: &pb::DeleteRangeRequest) -> pb::DeleteRangeResponse {
        let keys = Keys::new(&request.key, &request.range_end);
        let main = self.store.revision + 1;
        let Store { index, history, sizes, .. } = &mut *self.store;
        let mut response = pb::DeleteRangeResponse::default();
        for newest in index.range_mut(keys) {
            let version = history.newest(*newest);
            if version.is_tombstone() {
                continue;
            }
            if request.prev_kv {
                response.prev_kvs.push(version.key_value());
            }
            let tombstone = Version {
                key: version.key.clone(),
                value: Bytes::new(),
                modified: Revision { main, sub: self.changes },
                created: 0,
                number: 0,
                lease: 0,
                previous: Some(*newest),
            };
            sizes.add(&tombstone);
            *newest = history.push(tombstone);
            self.changes += 1;
            response.deleted += 1;
        }
        response.header = Some(header(self.revision()));
        response
    }

    fn next_change(&mut self) -> Revision {
        let revision = Revision { main: self.store.revision + 1, sub: self.changes };
        self.changes += 1;
        revision
    }
}

/// What a put makes of a key, given what it held and where its last version lies, be it a tombstone.
fn next_version(
    request: &pb::PutRequest,
    modified: Revision,
    previous: Option<&Version>,
    last: Option<Position>,
) -> Version {
    let kept_value = previous.filter(|_| request.ignore_value).map(|previous| previous.value.clone());
    let kept_lease = previous.filter(|_| request.ignore_lease).map(|previous| previous.lease);
    Version {
        key: request.key.clone(),
        value: kept_value.unwrap_or_else(|| request.value.clone()),
        modified,
        created: previous.map_or(modified.main, |previous| previous.created),
        number: previous.map_or(1, |previous| previous.number + 1),
        lease: kept_lease.unwrap_or(request.lease),
        previous: last,
    }
}
