//! Range: reading a span of keys at one point of the history, in pieces if need be.

use std::borrow::Borrow;
use std::sync::Arc;

use bytes::Bytes;
use quorate_api::etcdserverpb::range_request::{SortOrder, SortTarget};
use quorate_api::etcdserverpb::{RangeRequest, RangeResponse};
use quorate_api::mvccpb::KeyValue;

use super::keys::Keys;
use super::pins::Pin;
use super::revision::Revision;
use super::steps::Steps;
use super::version::Version;
use super::{KvError, Store, header};

/// A Range under way. It reads at the revision that was current when it began (or at the one asked for), however much
/// is written between its pieces; so a long one need not keep writers out.
///
/// One that does not end with its first piece pins its revision: a compaction meanwhile does not end it, as it does not end one of
/// etcd's, which reads in one go.
#[derive(Debug)]
pub struct RangeScan<R: Borrow<RangeRequest> = RangeRequest> {
    request: R,
    /// What is read.
    point: Revision,
    /// What the answer's header says.
    current: i64,
    /// As many keys and values are enough; the rest is only counted.
    enough: usize,
    kvs: Vec<KeyValue>,
    count: i64,
    /// The last key that was looked at.
    after: Option<Box<[u8]>>,
    pin: Option<Arc<Pin>>,
}

impl<R: Borrow<RangeRequest>> RangeScan<R> {
    /// Begins a Range at `point`, where the current revision was `current`, or at the earlier revision that it asks for.
    pub(super) fn new(store: &Store, request: R, point: Revision, current: i64) -> Result<Self, KvError> {
        let asked = request.borrow().revision;
        if asked > current {
            return Err(KvError::FutureRevision);
        }
        let point = if asked > 0 { Revision::end_of(asked) } else { point };
        if !store.can_read(point, None) {
            return Err(KvError::Compacted);
        }
        Ok(Self::pinned(request, point, current, None))
    }

    /// Begins a Range at `point`, which `pin` keeps; whatever revision the request asks for.
    pub(super) fn pinned(request: R, point: Revision, current: i64, pin: Option<Arc<Pin>>) -> Self {
        let enough = enough(request.borrow());
        Self { request, point, current, enough, kvs: Vec::new(), count: 0, after: None, pin }
    }

    /// Takes up to `steps` steps more, and a key's worth beyond. Returns whether the end was reached.
    ///
    /// Fails with [`KvError::Compacted`] if the revision was compacted since the last piece, and its pin is of no use: another state has
    /// taken the place of the one that it was pinned in, or memory is short ([`super::garbage`]).
    pub fn advance(&mut self, store: &Store, steps: usize) -> Result<bool, KvError> {
        if !store.can_read(self.point, self.pin.as_deref()) {
            return Err(KvError::Compacted);
        }
        let ended = self.read(store, &mut Steps::new(steps));
        if !ended && self.pin.is_none() {
            self.pin = Some(Arc::new(store.pin(self.point.whole())));
        }
        Ok(ended)
    }

    /// The same for one whose answer is taken as it is read ([`Self::take`]). It has no order but that of its keys, and no filters.
    #[must_use]
    pub fn in_chunks(self) -> Self {
        let request = self.request.borrow();
        let limit = usize::try_from(request.limit).ok().filter(|limit| *limit > 0);
        let enough = if request.count_only { 0 } else { limit.unwrap_or(usize::MAX) };
        Self { enough, ..self }
    }

    /// Takes what has been read.
    pub fn take(&mut self) -> Vec<KeyValue> {
        let mut kvs = std::mem::take(&mut self.kvs);
        self.enough -= kvs.len();
        if self.request.borrow().keys_only {
            for kv in &mut kvs {
                kv.value = Bytes::new();
            }
        }
        kvs
    }

    /// Once the end was reached: the revision that was current at its beginning, how many keys there are, and whether that is more than
    /// was asked for.
    pub fn told(&self) -> (i64, i64, bool) {
        let request = self.request.borrow();
        let more = request.limit > 0 && !request.count_only && self.count > request.limit;
        (self.current, self.count, more)
    }

    /// What the answer holds so far beside what it shares with the state, in bytes.
    pub fn held(&self) -> usize {
        self.kvs.capacity() * size_of::<KeyValue>()
    }

    fn read(&mut self, store: &Store, steps: &mut Steps) -> bool {
        let Self { request, point, enough, kvs, count, after, .. } = self;
        let request: &RangeRequest = (*request).borrow();
        let mut take = |version: &Version| {
            *count += 1;
            if kvs.len() < *enough && passes(request, version) {
                kvs.push(answered(request, version));
            }
        };
        let keys = Keys::new(&request.key, &request.range_end);
        if let Keys::One(key) = keys {
            if let Some(version) = store.version(key, *point, steps) {
                take(version);
            }
            return true;
        }
        let from = after.take();
        for (key, newest) in store.keys_at(keys, from.as_deref(), *point) {
            if let Some(version) = store.history.at(newest, *point, steps) {
                take(version);
            }
            steps.take(1);
            if steps.are_used_up() {
                *after = Some(key.into());
                return false;
            }
        }
        true
    }

    /// Reads a single key.
    pub(super) fn look_up(mut self, store: &Store, steps: &mut Steps) -> RangeResponse {
        debug_assert!(self.request.borrow().range_end.is_empty());
        self.read(store, steps);
        self.finish()
    }

    /// Reads the rest in one piece.
    pub(super) fn run(mut self, store: &Store) -> Result<RangeResponse, KvError> {
        while !self.advance(store, usize::MAX)? {}
        Ok(self.finish())
    }

    /// How many keys and values are to be sorted for the answer; 0 if they lie in its order.
    pub fn unsorted(&self) -> usize {
        let request = self.request.borrow();
        let in_order = request.sort_target() == SortTarget::Key && request.sort_order() != SortOrder::Descend;
        if in_order { 0 } else { self.kvs.len() }
    }

    /// The answer, once the end was reached.
    pub fn finish(mut self) -> RangeResponse {
        self.sort();
        let request = self.request.borrow();
        let limit = usize::try_from(request.limit).unwrap_or(0);
        let more = limit > 0 && self.kvs.len() > limit;
        if more {
            self.kvs.truncate(limit);
        }
        if request.keys_only {
            for kv in &mut self.kvs {
                kv.value = Bytes::new();
            }
        }
        RangeResponse { header: Some(header(self.current)), kvs: self.kvs, more, count: self.count }
    }

    /// Sorts as asked for; equal elements stay in the order of their keys.
    fn sort(&mut self) {
        let request = self.request.borrow();
        let target = request.sort_target();
        let by = |a: &KeyValue, b: &KeyValue| match target {
            SortTarget::Key => a.key.cmp(&b.key),
            SortTarget::Version => a.version.cmp(&b.version),
            SortTarget::Create => a.create_revision.cmp(&b.create_revision),
            SortTarget::Mod => a.mod_revision.cmp(&b.mod_revision),
            SortTarget::Value => a.value.cmp(&b.value),
        };
        match (request.sort_order(), target) {
            (SortOrder::None | SortOrder::Ascend, SortTarget::Key) => {}
            (SortOrder::None | SortOrder::Ascend, _) => self.kvs.sort_by(by),
            (SortOrder::Descend, _) => self.kvs.sort_by(|a, b| by(b, a)),
        }
    }
}

/// What the answer says of a version. Values are needed for sorting by them, even where only keys are answered.
fn answered(request: &RangeRequest, version: &Version) -> KeyValue {
    let keys_only = request.keys_only && request.sort_target() != SortTarget::Value;
    if keys_only { version.key_only() } else { version.key_value() }
}

/// How many keys and values the answer can be made of: one more than the limit, to know whether there are more. All, where
/// filters or an order of its own decide which ones the answer holds. An order by something else than the key that
/// leaves its direction open sorts what lies before the cut, as etcd does.
fn enough(request: &RangeRequest) -> usize {
    if request.count_only {
        return 0;
    }
    let in_key_order = match request.sort_order() {
        SortOrder::None => true,
        SortOrder::Ascend => request.sort_target() == SortTarget::Key,
        SortOrder::Descend => false,
    };
    match usize::try_from(request.limit) {
        Ok(limit) if limit > 0 && in_key_order && !has_filters(request) => limit.saturating_add(1),
        _ => usize::MAX,
    }
}

fn has_filters(request: &RangeRequest) -> bool {
    request.min_mod_revision != 0
        || request.max_mod_revision != 0
        || request.min_create_revision != 0
        || request.max_create_revision != 0
}

/// Whether the filters by revision let `version` pass. Zero is no filter.
fn passes(request: &RangeRequest, version: &Version) -> bool {
    let within =
        |min: i64, max: i64, revision: i64| (min == 0 || revision >= min) && (max == 0 || revision <= max);
    within(request.min_mod_revision, request.max_mod_revision, version.modified().main)
        && within(request.min_create_revision, request.max_create_revision, version.created)
}
