//! One revision in the making: what puts and deletions do to the state.

use bytes::Bytes;
use quorate_api::etcdserverpb as pb;

use super::history::Position;
use super::keys::Keys;
use super::late::LateRead;
use super::revision::Revision;
use super::steps::{BYTES_OF_A_STEP, Steps};
use super::store::Store;
use super::version::{MAX_NUMBER, Record, Version};
use super::{KvError, header};

/// What a put costs, in steps: its key is looked up, and three versions that lie before it.
const PUT: usize = 8;

/// What the deletion of a key costs, in steps.
const DELETION: usize = 8;

/// One revision in the making. Its versions are appended to the history at once; they can be seen when it is committed.
#[derive(Debug)]
pub(super) struct Writer {
    changes: u32,
    /// The command that brings it: its versions may lie in it.
    message: Bytes,
    /// Whether this member answers the command.
    pub(super) answers: bool,
    /// What remains to be read for the answer.
    pub(super) late: Vec<LateRead>,
}

/// A deletion under way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deletion {
    /// The point before it.
    before: Revision,
    deleted: i64,
}

impl Writer {
    pub(super) fn new(message: &Bytes, answers: bool) -> Self {
        Self { changes: 0, message: message.clone(), answers, late: Vec::new() }
    }

    /// The revision that operations see: the new one as soon as something has changed.
    pub(super) fn revision(&self, store: &Store) -> i64 {
        store.revision + i64::from(self.changes > 0)
    }

    /// Behind the last change.
    pub(super) fn point(&self, store: &Store) -> Revision {
        match self.changes.checked_sub(1) {
            Some(sub) => Revision { main: store.revision + 1, sub },
            None => Revision::end_of(store.revision),
        }
    }

    /// Makes the changes the current state, and returns its revision.
    pub(super) fn commit(&self, store: &mut Store) -> i64 {
        store.revision = self.revision(store);
        store.revision
    }

    /// Puts, after [`Store::check_put`] found nothing against it.
    pub(super) fn put(
        &mut self,
        store: &mut Store,
        request: &pb::PutRequest,
        steps: &mut Steps,
    ) -> pb::PutResponse {
        // The index may copy it.
        steps.take(PUT);
        steps.take_bytes(request.key.len());
        let modified = self.next_change(store);
        let last = store.index.get(&request.key);
        let previous = last.map(|at| store.history.newest(at)).filter(|version| !version.is_tombstone());
        let prev_kv = previous.filter(|_| request.prev_kv && self.answers).map(Version::key_value);
        let before = previous.map_or(0, |previous| previous.lease);
        let kept_lease = previous.filter(|_| request.ignore_lease).map(|previous| previous.lease);
        let record = Record {
            modified,
            created: previous.map_or(modified.main, |previous| previous.created),
            number: previous.map_or(1, |previous| (previous.number() + 1).min(MAX_NUMBER)),
            lease: kept_lease.unwrap_or(request.lease),
        };
        let version = if let Some(previous) = previous.filter(|_| request.ignore_value) {
            Version::keeping(previous, record)
        } else {
            let version = Version::sharing(&self.message, &request.key, &request.value, record);
            steps.take_bytes(version.copied_bytes());
            version
        };
        let position = store.append(version, last);
        store.index.put(&request.key, position);
        store.hang(&request.key, before, record.lease, steps);
        pb::PutResponse { header: Some(header(modified.main)), prev_kv }
    }

    /// Begins to delete what is there of a range.
    pub(super) fn begin_deletion(&self, store: &Store) -> Deletion {
        Deletion { before: self.point(store), deleted: 0 }
    }

    /// Goes on with that, for about as many steps as there are. Whether it is done.
    pub(super) fn delete(
        &mut self,
        store: &mut Store,
        request: &pb::DeleteRangeRequest,
        deletion: &mut Deletion,
        steps: &mut Steps,
    ) -> bool {
        let keys = Keys::new(&request.key, &request.range_end);
        // Where keys may hang on leases each is taken in hand once more.
        let share = if store.leases.is_empty() { 1 } else { 2 };
        let most = (steps.left() / DELETION / share).max(1);
        let bytes = steps.left().max(1).saturating_mul(BYTES_OF_A_STEP) / share;
        let (taken, done) = store.index.take_live(keys, most, bytes);
        steps.take(1);
        for (key, newest) in taken {
            let lease = if store.leases.is_empty() { 0 } else { store.history.newest(newest).lease };
            store.hang(&key, lease, 0, steps);
            self.bury(store, key, newest, steps);
            deletion.deleted += 1;
        }
        done
    }

    /// Deletes a key that was taken out of the index.
    pub(super) fn bury(&mut self, store: &mut Store, key: Box<[u8]>, newest: Position, steps: &mut Steps) {
        steps.take(DELETION);
        steps.take_bytes(key.len());
        let modified = self.next_change(store);
        let record = Record { modified, created: 0, number: 0, lease: 0 };
        let position = store.append(Version::new(&key, &[], record), Some(newest));
        store.index.delete(key, position);
    }

    /// The answer to a deletion that is done, as far as it is read now (see [`Self::range`]). `path` leads to its place in the answer of a
    /// transaction.
    pub(super) fn deleted(
        &mut self,
        store: &Store,
        request: &pb::DeleteRangeRequest,
        deletion: Deletion,
        path: Vec<usize>,
        steps: &mut Steps,
    ) -> pb::DeleteRangeResponse {
        let (revision, deleted) = (self.revision(store), deletion.deleted);
        let mut prev_kvs = Vec::new();
        if request.prev_kv && deleted > 0 && self.answers {
            let read = LateRead::deleted(request, deletion.before, revision, path);
            if request.range_end.is_empty() {
                prev_kvs = read.look_up(store, steps).kvs;
            } else {
                self.late.push(read);
            }
        }
        pb::DeleteRangeResponse { header: Some(header(revision)), deleted, prev_kvs }
    }

    /// The answer to a range of a transaction, as far as it is read now: `path` leads to its place in the answer. A single key is looked
    /// up at once, since that costs less than to come back for it.
    pub(super) fn range(
        &mut self,
        store: &Store,
        request: &pb::RangeRequest,
        path: Vec<usize>,
        steps: &mut Steps,
    ) -> pb::RangeResponse {
        if !self.answers {
            return pb::RangeResponse::default();
        }
        let read = LateRead::range(request, self.point(store), self.revision(store), path);
        if request.range_end.is_empty() {
            return read.look_up(store, steps);
        }
        self.late.push(read);
        pb::RangeResponse::default()
    }

    fn next_change(&mut self, store: &Store) -> Revision {
        let revision = Revision { main: store.revision + 1, sub: self.changes };
        self.changes += 1;
        revision
    }
}

impl Store {
    /// Whether the current state allows a put.
    pub(super) fn check_put(&self, request: &pb::PutRequest) -> Result<(), KvError> {
        if request.lease != 0 && self.leases.get(request.lease).is_none() {
            return Err(KvError::LeaseNotFound);
        }
        if (request.ignore_value || request.ignore_lease) && self.index.get_live(&request.key).is_none() {
            return Err(KvError::KeyNotFound);
        }
        Ok(())
    }
}
