//! The store against a list of all versions that is searched from end to end.

use std::cmp::Ordering;

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use quorate_api::etcdserverpb as pb;
use quorate_api::etcdserverpb::request_op::Request;
use quorate_api::log::RaiseLevel;
use quorate_api::log::command::Operation;
use quorate_api::mvccpb::KeyValue;

use super::requests::{apply_compact, apply_txn, operations};
use crate::kv::{Collected, KvError, Store};

/// Every version that ever was; a deletion has version 0.
#[derive(Default)]
struct Model {
    versions: Vec<KeyValue>,
    compacted: i64,
    /// Deletions below this revision are given up.
    deletions: i64,
}

/// What happens to the store.
#[derive(Debug, Clone)]
enum Step {
    Change(Vec<Request>),
    /// So many revisions before the current one.
    Compact(i64),
    Collect(usize),
    RaiseLevel,
}

impl Model {
    /// The versions that the last compaction leaves.
    fn kept(&self) -> impl Iterator<Item = &KeyValue> {
        let replaced = |at: usize, kv: &KeyValue| {
            let later = &self.versions[at + 1..];
            later.iter().any(|other| other.key == kv.key && other.mod_revision <= self.compacted)
        };
        self.versions.iter().enumerate().filter_map(move |(at, kv)| {
            // A deletion at the compacted revision itself is still to be seen by a watch.
            let kept = match kv.mod_revision.cmp(&self.compacted) {
                Ordering::Greater => true,
                Ordering::Equal if kv.version == 0 => kv.mod_revision >= self.deletions,
                _ => kv.version > 0 && !replaced(at, kv),
            };
            kept.then_some(kv)
        })
    }

    fn get(&self, key: &[u8], revision: i64) -> Option<&KeyValue> {
        let newest = self.versions.iter().rev().find(|kv| kv.key == key && kv.mod_revision <= revision);
        newest.filter(|kv| kv.version > 0)
    }

    fn keys(&self, key: &[u8], range_end: &[u8], revision: i64) -> Vec<KeyValue> {
        let within = |other: &[u8]| match range_end {
            [] => other == key,
            [0] => other >= key,
            end => other >= key && other < end,
        };
        let mut keys: Vec<_> =
            self.versions.iter().map(|kv| kv.key.clone()).filter(|key| within(key)).collect();
        keys.sort();
        keys.dedup();
        keys.iter().filter_map(|key| self.get(key, revision)).cloned().collect()
    }

    fn put(&mut self, request: &pb::PutRequest, revision: i64) {
        let previous = self.get(&request.key, revision);
        self.versions.push(KeyValue {
            key: request.key.clone(),
            value: request.value.clone(),
            create_revision: previous.map_or(revision, |previous| previous.create_revision),
            version: previous.map_or(1, |previous| previous.version + 1),
            mod_revision: revision,
            lease: 0,
        });
    }

    fn delete(&mut self, request: &pb::DeleteRangeRequest, revision: i64) {
        for KeyValue { key, .. } in self.keys(&request.key, &request.range_end, revision) {
            self.versions.push(KeyValue { key, mod_revision: revision, ..KeyValue::default() });
        }
    }

    /// Does a transaction of puts and deletions, and returns the revision after it.
    fn apply(&mut self, requests: &[Request], current: i64) -> i64 {
        let before = self.versions.len();
        for request in requests {
            match request {
                Request::RequestPut(put) => self.put(put, current + 1),
                Request::RequestDeleteRange(delete) => self.delete(delete, current + 1),
                _ => unreachable!("only puts and deletions are generated"),
            }
        }
        current + i64::from(self.versions.len() > before)
    }
}

pub(super) fn key() -> impl Strategy<Value = Bytes> {
    "[ab]{1,2}".prop_map(|key| Bytes::from(key.into_bytes()))
}

pub(super) fn range_end() -> impl Strategy<Value = Bytes> {
    prop_oneof![Just(Bytes::new()), Just(Bytes::from_static(b"\0")), key()]
}

pub(super) fn change() -> impl Strategy<Value = Request> {
    let put = (key(), "[0-9]?").prop_map(|(key, value)| {
        let value = Bytes::from(value.into_bytes());
        Request::RequestPut(pb::PutRequest { key, value, ..pb::PutRequest::default() })
    });
    let delete = (key(), range_end()).prop_map(|(key, range_end)| {
        Request::RequestDeleteRange(pb::DeleteRangeRequest { key, range_end, prev_kv: false })
    });
    prop_oneof![3 => put, 1 => delete]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => vec(change(), 0..4).prop_map(Step::Change),
        1 => (0..8_i64).prop_map(Step::Compact),
        1 => (0..20_usize).prop_map(Step::Collect),
        1 => Just(Step::RaiseLevel),
    ]
}

/// Takes a step in the store and in the model.
fn take(store: &mut Store, model: &mut Model, step: Step) {
    let current = store.revision();
    match step {
        Step::Change(changes) => {
            let expected = model.apply(&changes, current);
            apply_txn(store, operations_of(changes)).expect("nothing that could be refused");
            assert_eq!(store.revision(), expected);
        }
        Step::Compact(back) => {
            let revision = current - back;
            let expected = if revision <= store.compacted() { Err(KvError::Compacted) } else { Ok(()) };
            assert_eq!(apply_compact(store, revision).map(drop), expected);
            if expected.is_ok() {
                model.compacted = revision;
                model.deletions = if store.level() < 2 { revision + 1 } else { revision };
            }
        }
        Step::Collect(steps) => drop(store.collect(steps)),
        Step::RaiseLevel => drop(store.apply(&Operation::RaiseLevel(RaiseLevel { to: 2 }))),
    }
}

pub(super) fn operations_of(changes: Vec<Request>) -> pb::TxnRequest {
    pb::TxnRequest { success: operations(changes), ..pb::TxnRequest::default() }
}

fn question() -> impl Strategy<Value = pb::RangeRequest> {
    (key(), range_end(), 0..20_i64, 0..4_i64).prop_map(|(key, range_end, revision, limit)| pb::RangeRequest {
        key,
        range_end,
        revision,
        limit,
        ..pb::RangeRequest::default()
    })
}

proptest! {
    #[test]
    fn the_store_agrees_with_the_model(
        steps in vec(step(), 0..30),
        questions in vec(question(), 1..20),
        piece in 1..5_usize,
    ) {
        let (mut store, mut model) = (Store::new(), Model::default());
        for step in steps {
            take(&mut store, &mut model, step);
            let versions: usize = model.kept().map(|kv| kv.key.len() + kv.value.len() + 112).sum();
            // The index holds the keys that exist, and counts others again until their deletion is given up.
            let deletions = model.kept().filter(|kv| kv.version == 0).map(|kv| kv.key.clone());
            let existing = model.keys(b"\0", b"\0", i64::MAX).into_iter().map(|kv| kv.key);
            let places: usize = deletions.chain(existing).map(|key| key.len() + 96).sum();
            prop_assert_eq!(store.size_in_use(), (1024 + versions + places) as u64);
            prop_assert!(store.size() >= store.size_in_use());
        }
        let current = store.revision();
        for question in questions {
            let revision = if question.revision == 0 { current } else { question.revision };
            if revision > current {
                prop_assert_eq!(store.range(&question), Err(KvError::FutureRevision));
                continue;
            }
            if revision < store.compacted() {
                prop_assert_eq!(store.range(&question), Err(KvError::Compacted));
                continue;
            }
            let mut kvs = model.keys(&question.key, &question.range_end, revision);
            let count = kvs.len();
            let limit = if question.limit == 0 { count } else { usize::try_from(question.limit).unwrap() };
            kvs.truncate(limit);
            let mut scan = store.scan(&question).expect("a revision that exists");
            while !scan.advance(&store, piece).expect("nothing was compacted") {}
            let response = scan.finish();
            prop_assert_eq!(&response.kvs, &kvs);
            prop_assert_eq!((response.count, response.more), (i64::try_from(count).unwrap(), count > limit));
        }
        prop_assert_eq!(store.collect(usize::MAX), Collected::All);
        prop_assert_eq!(store.size(), store.size_in_use());
        prop_assert_eq!(store.count(), store.sizes, "counted anew it is the same");
        prop_assert_eq!(store.history.iter_from(0).count(), model.kept().count());
    }
}
