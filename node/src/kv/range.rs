//! Range: reading a span of keys at one revision, in pieces if need be.

use bytes::Bytes;
use quorate_api::etcdserverpb::range_request::{SortOrder, SortTarget};
use quorate_api::etcdserverpb::{RangeRequest, RangeResponse};
use quorate_api::mvccpb::KeyValue;

use super::history::Version;
use super::keys::Keys;
use super::{KvError, Store, header};

/// A Range under way. It reads at the revision that was current when it began (or at the one asked for), however much
/// is written between its pieces; so a long one need not keep writers out.
#[derive(Debug)]
pub struct RangeScan<'r> {
    request: &'r RangeRequest,
    /// What is read.
    revision: i64,
    /// What the answer's header says.
    current: i64,
    /// As many keys and values are enough; the rest is only counted.
    enough: usize,
    kvs: Vec<KeyValue>,
    count: i64,
    /// The last key that was looked at.
    after: Option<Bytes>,
}

impl<'r> RangeScan<'r> {
    /// Begins a Range in a state whose current revision is `current`.
    pub(super) fn new(store: &Store, request: &'r RangeRequest, current: i64) -> Result<Self, KvError> {
        if request.revision > current {
            return Err(KvError::FutureRevision);
        }
        let revision = if request.revision > 0 { request.revision } else { current };
        if revision < store.compacted() {
            return Err(KvError::Compacted);
        }
        let enough = enough(request);
        Ok(Self { request, revision, current, enough, kvs: Vec::new(), count: 0, after: None })
    }

    /// Looks at up to `budget` more keys. Returns whether the end was reached.
    ///
    /// Fails with [`KvError::Compacted`] if the revision was compacted since the last piece.
    pub fn advance(&mut self, store: &Store, budget: usize) -> Result<bool, KvError> {
        if self.revision < store.compacted() {
            return Err(KvError::Compacted);
        }
        let keys = Keys::new(&self.request.key, &self.request.range_end);
        if let Keys::One(key) = keys {
            if let Some(version) = store.version(key, self.revision) {
                self.take(version);
            }
            return Ok(true);
        }
        let after = self.after.take();
        let mut left = budget;
        for (key, newest) in store.index.range(keys, after.as_deref()) {
            if let Some(version) = store.history.at(newest, self.revision) {
                self.take(version);
            }
            left -= 1;
            if left == 0 {
                self.after = Some(Bytes::copy_from_slice(key));
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Reads the rest in one piece.
    pub(super) fn run(mut self, store: &Store) -> Result<RangeResponse, KvError> {
        while !self.advance(store, usize::MAX)? {}
        Ok(self.finish())
    }

    /// The answer, once the end was reached.
    pub fn finish(mut self) -> RangeResponse {
        self.sort();
        let limit = usize::try_from(self.request.limit).unwrap_or(0);
        let more = limit > 0 && self.kvs.len() > limit;
        if more {
            self.kvs.truncate(limit);
        }
        if self.request.keys_only {
            for kv in &mut self.kvs {
                kv.value = Bytes::new();
            }
        }
        RangeResponse { header: Some(header(self.current)), kvs: self.kvs, more, count: self.count }
    }

    fn take(&mut self, version: &Version) {
        self.count += 1;
        if self.kvs.len() >= self.enough || !passes(self.request, version) {
            return;
        }
        // Values are needed for sorting by them, even where only keys are answered.
        let keys_only = self.request.keys_only && self.request.sort_target() != SortTarget::Value;
        self.kvs.push(if keys_only { version.key_only() } else { version.key_value() });
    }

    /// Sorts as asked for; equal elements stay in the order of their keys.
    fn sort(&mut self) {
        let target = self.request.sort_target();
        let by = |a: &KeyValue, b: &KeyValue| match target {
            SortTarget::Key => a.key.cmp(&b.key),
            SortTarget::Version => a.version.cmp(&b.version),
            SortTarget::Create => a.create_revision.cmp(&b.create_revision),
            SortTarget::Mod => a.mod_revision.cmp(&b.mod_revision),
            SortTarget::Value => a.value.cmp(&b.value),
        };
        match (self.request.sort_order(), target) {
            (SortOrder::None | SortOrder::Ascend, SortTarget::Key) => {}
            (SortOrder::None | SortOrder::Ascend, _) => self.kvs.sort_by(by),
            (SortOrder::Descend, _) => self.kvs.sort_by(|a, b| by(b, a)),
        }
    }
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
    within(request.min_mod_revision, request.max_mod_revision, version.modified.main)
        && within(request.min_create_revision, request.max_create_revision, version.created)
}
