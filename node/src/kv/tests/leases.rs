//! Leases and the keys that hang on them, against a model that is too simple to be wrong.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use parking_lot::RwLock;
use proptest::collection::vec;
use proptest::prelude::*;
use quorate_api::etcdserverpb as pb;
use quorate_api::etcdserverpb::request_op::Request;
use quorate_api::log::ExpireLease;
use quorate_api::log::command::Operation;

use super::model::{key, operations_of, range_end};
use super::requests::*;
use crate::kv::snapshot::{Restore, RestoreError};
use crate::kv::steps::looks;
use crate::kv::{Applying, KvError, Rebuild, Response, Store};
use crate::leases::{Change, HANGING_BYTES, LEASE_BYTES};
use crate::level::NEWEST;

fn grant(id: i64) -> Operation {
    Operation::LeaseGrant(pb::LeaseGrantRequest { id, ttl: 60 })
}

fn revoke(id: i64) -> Operation {
    Operation::LeaseRevoke(pb::LeaseRevokeRequest { id })
}

fn expire(id: i64, grant: u64) -> Operation {
    Operation::ExpireLease(ExpireLease { id, grant })
}

fn put_with(key: &str, lease: i64) -> pb::PutRequest {
    pb::PutRequest { lease, ..put(key, "v") }
}

fn keys_of(store: &Store, id: i64) -> Vec<Vec<u8>> {
    store.leases().keys(id, None).map(<[u8]>::to_vec).collect()
}

#[test]
fn what_hangs_on_a_lease_goes_with_it_in_one_revision_and_in_order() {
    let mut store = store_at(NEWEST);
    store.apply(&grant(7)).expect("it is new");
    for key in ["b", "a", "c"] {
        apply_put(&mut store, put_with(key, 7)).expect("the lease is there");
    }
    apply_put(&mut store, put("d", "stays")).expect("a plain put");
    let before = store.revision();
    let Ok(Response::LeaseRevoke(response)) = store.apply(&revoke(7)) else { panic!("it is there") };
    assert_eq!((response.header.expect("there is one").revision, store.revision()), (before + 1, before + 1));
    let deleted: Vec<_> = store.history.iter_from(1).filter(|(_, version)| version.is_tombstone()).collect();
    assert_eq!(deleted.iter().map(|(_, version)| version.key()).collect::<Vec<_>>(), [b"a", b"b", b"c"]);
    assert!(deleted.iter().all(|(_, version)| version.modified().main == before + 1));
    assert_eq!(store.apply(&revoke(7)), Err(KvError::LeaseNotFound));
    assert_eq!(store.range(&range("\0", "\0")).expect("the newest").count, 1);
}

#[test]
fn a_lease_without_keys_ends_without_a_revision() {
    let mut store = store_at(NEWEST);
    store.apply(&grant(7)).expect("it is new");
    let before = store.revision();
    assert!(store.apply(&revoke(7)).is_ok());
    assert_eq!(store.revision(), before);
}

#[test]
fn a_key_hangs_on_the_lease_that_it_was_put_with_last() {
    let mut store = store_at(NEWEST);
    (1..=2).for_each(|id| drop(store.apply(&grant(id)).expect("it is new")));
    apply_put(&mut store, put_with("k", 1)).expect("the lease is there");
    apply_put(&mut store, put_with("k", 2)).expect("the lease is there");
    assert_eq!((keys_of(&store, 1).len(), keys_of(&store, 2)), (0, vec![b"k".to_vec()]));
    let keeps = pb::PutRequest { ignore_lease: true, ..put("k", "w") };
    apply_put(&mut store, keeps).expect("the key is there");
    assert_eq!(keys_of(&store, 2), [b"k"], "as it did");
    apply_put(&mut store, put("k", "x")).expect("a plain put");
    assert_eq!(keys_of(&store, 2).len(), 0, "a put without a lease takes it off");
    assert_eq!(apply_put(&mut store, put_with("k", 3)), Err(KvError::LeaseNotFound));
}

/// What the leader proposed for one grant may come behind another one.
#[test]
fn the_end_of_one_grant_does_nothing_to_the_next_of_the_same_id() {
    let mut store = store_at(NEWEST);
    store.apply(&grant(7)).expect("it is new");
    store.apply(&revoke(7)).expect("it is there");
    store.apply(&grant(7)).expect("there is none any more");
    apply_put(&mut store, put_with("k", 7)).expect("the lease is there");
    assert_eq!(store.apply(&expire(7, 1)), Err(KvError::LeaseNotFound));
    assert_eq!(keys_of(&store, 7), [b"k"]);
    assert!(store.apply(&expire(7, 2)).is_ok());
    assert!(store.leases().is_empty());
}

#[test]
fn a_transaction_with_a_lease_that_does_not_exist_changes_nothing() {
    let mut store = store_at(NEWEST);
    let before = store.revision();
    let puts = txn([Request::RequestPut(put("a", "1")), Request::RequestPut(put_with("b", 9))]);
    assert_eq!(apply_txn(&mut store, puts), Err(KvError::LeaseNotFound));
    assert_eq!(store.revision(), before);
}

#[test]
fn a_lease_with_many_keys_ends_in_pieces_that_show_nothing_of_it() {
    let mut store = store_at(NEWEST);
    store.apply(&grant(7)).expect("it is new");
    for number in 0..20_000 {
        apply_put(&mut store, put_with(&format!("{number:05}"), 7)).expect("the lease is there");
    }
    let before = store.range(&range("\0", "\0")).expect("the newest").count;
    let mut applying = Applying::new(revoke(7), &Bytes::new(), true);
    let mut pieces = 0;
    while looks::hold(|| applying.step(&mut store, 4096)).is_none() {
        pieces += 1;
        let all = pb::RangeRequest { count_only: true, ..range("\0", "\0") };
        assert_eq!(store.range(&all).expect("the newest").count, before);
    }
    assert!(pieces > 10, "{pieces}");
    assert_eq!(store.range(&range("\0", "\0")).expect("the newest").count, 0);
}

/// A copy that is brought up to date between the pieces of an entry has all that came before it, and nothing of it.
#[test]
fn a_copy_in_the_middle_of_the_end_of_a_lease_has_the_lease_and_its_keys() {
    let mut store = store_at(NEWEST);
    for id in [7, 8] {
        store.apply(&grant(id)).expect("it is new");
    }
    for key in ["a", "b", "c"] {
        apply_put(&mut store, put_with(key, 7)).expect("the lease is there");
    }
    let mut applying = Applying::new(revoke(7), &Bytes::new(), true);
    assert!(applying.step(&mut store, 1).is_none());
    let (copy, next) = keep(&mut store, Rebuild::default(), 1);
    let copied = copy.finish(&store.summary(), store.applied()).expect("what was copied");
    assert_eq!((keys_of(&copied, 7).len(), copied.leases().len()), (3, 2));
    while applying.step(&mut store, 1).is_none() {}
    assert!(!store.is_copied(next));
}

#[test]
fn a_snapshot_with_a_key_that_hangs_on_no_lease_is_refused() {
    let mut store = store_at(NEWEST);
    store.apply(&grant(7)).expect("it is new");
    apply_put(&mut store, put_with("k", 7)).expect("the lease is there");
    store.leases_mut().end(7);
    let store = RwLock::new(store);
    let mut source = store.write().snapshot(1 << 16).expect("no other is under way");
    let mut restore = Restore::new();
    while let Some(piece) = source.next_piece(&store).expect("it is not replaced") {
        restore.push(&piece).expect("each record by itself is whole");
    }
    assert_eq!(restore.finish().map(drop), Err(RestoreError::Impossible("a key that hangs on no lease")));
}

/// What happens to the store.
#[derive(Debug, Clone)]
enum Step {
    Grant(i64),
    Revoke(i64),
    Expire(i64, u64),
    Change(Vec<Request>),
    Compact(i64),
}

fn id() -> impl Strategy<Value = i64> {
    -1..3_i64
}

fn change() -> impl Strategy<Value = Request> {
    let put = (key(), id(), any::<bool>()).prop_map(|(key, lease, ignores)| {
        let lease = if ignores { 0 } else { lease };
        Request::RequestPut(pb::PutRequest { key, lease, ignore_lease: ignores, ..pb::PutRequest::default() })
    });
    let delete = (key(), range_end()).prop_map(|(key, range_end)| {
        Request::RequestDeleteRange(pb::DeleteRangeRequest { key, range_end, prev_kv: false })
    });
    prop_oneof![3 => put, 1 => delete]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => id().prop_map(Step::Grant),
        1 => id().prop_map(Step::Revoke),
        1 => (id(), 0..6_u64).prop_map(|(id, grant)| Step::Expire(id, grant)),
        6 => vec(change(), 0..4).prop_map(Step::Change),
        1 => (0..4_i64).prop_map(Step::Compact),
    ]
}

/// The leases, and on which of them each key hangs; 0 for none.
#[derive(Debug, Default, Clone)]
struct Model {
    leases: BTreeMap<i64, u64>,
    granted: u64,
    keys: BTreeMap<Bytes, i64>,
}

impl Model {
    fn end(&mut self, id: i64) {
        self.leases.remove(&id);
        self.keys.retain(|_, lease| *lease != id);
    }

    /// Whether it is done, or changes nothing.
    fn change(&mut self, changes: &[Request]) -> bool {
        let before = self.clone();
        let mut deleted_from: Option<&Bytes> = None;
        for change in changes {
            match change {
                Request::RequestPut(put) => {
                    let there = self.keys.get(&put.key).copied();
                    // What is kept must be there before the transaction, and what it names too.
                    let may_be_gone = deleted_from.is_some_and(|start| *start <= put.key);
                    let keeps = put.ignore_lease && (may_be_gone || !before.keys.contains_key(&put.key));
                    if keeps || (put.lease != 0 && !self.leases.contains_key(&put.lease)) {
                        *self = before;
                        return false;
                    }
                    let lease = if put.ignore_lease { there.unwrap_or(0) } else { put.lease };
                    self.keys.insert(put.key.clone(), lease);
                }
                Request::RequestDeleteRange(delete) => {
                    self.keys.retain(|key, _| match &delete.range_end[..] {
                        [] => *key != delete.key,
                        [0] => *key < delete.key,
                        end => *key < delete.key || &key[..] >= end,
                    });
                    if delete.range_end[..] == [0] {
                        let lowest = deleted_from.map_or(&delete.key, |start| start.min(&delete.key));
                        deleted_from = Some(lowest);
                    }
                }
                _ => unreachable!("only puts and deletions are generated"),
            }
        }
        true
    }

    fn take(&mut self, step: &Step) -> bool {
        match step {
            Step::Grant(id) => {
                let grants = *id != 0 && !self.leases.contains_key(id);
                if grants {
                    self.granted += 1;
                    self.leases.insert(*id, self.granted);
                }
                grants
            }
            Step::Revoke(id) => {
                let ends = self.leases.contains_key(id);
                if ends {
                    self.end(*id);
                }
                ends
            }
            Step::Expire(id, grant) => {
                let ends = self.leases.get(id) == Some(grant);
                if ends {
                    self.end(*id);
                }
                ends
            }
            Step::Change(changes) => self.change(changes),
            Step::Compact(_) => true,
        }
    }
}

/// Does `operation` in pieces of so many steps. Whether it was not refused.
fn apply(store: &mut Store, operation: Operation, piece: usize) -> bool {
    let mut applying = Applying::new(operation, &Bytes::new(), false);
    loop {
        if let Some(outcome) = applying.step(store, piece) {
            return outcome.is_ok();
        }
    }
}

/// The same state again, of its snapshot.
fn restored(store: &RwLock<Store>) -> Store {
    let mut source = store.write().snapshot(64).expect("no other is under way");
    let mut restore = Restore::new();
    while let Some(piece) = source.next_piece(store).expect("it is not replaced") {
        restore.push(&piece).expect("what was encoded");
    }
    restore.finish().expect("all of it")
}

fn agrees(store: &Store, model: &Model) {
    let leases: BTreeMap<i64, u64> =
        store.leases().iter_from(i64::MIN).map(|grant| (grant.id, grant.number)).collect();
    assert_eq!(leases, model.leases);
    for id in model.leases.keys() {
        let hang: BTreeSet<&Bytes> =
            model.keys.iter().filter(|(_, lease)| *lease == id).map(|(key, _)| key).collect();
        assert!(store.leases().keys(*id, None).eq(hang.iter().map(|key| &key[..])), "of lease {id}");
    }
    let hanging: u64 = model
        .keys
        .iter()
        .filter(|(_, lease)| **lease != 0)
        .map(|(key, _)| key.len() as u64 + HANGING_BYTES)
        .sum();
    assert_eq!(store.leases().bytes(), model.leases.len() as u64 * LEASE_BYTES + hanging);
    let named: Vec<_> = store.range(&range("\0", "\0")).expect("the newest").kvs;
    assert!(named.iter().map(|kv| (&kv.key, &kv.lease)).eq(&model.keys));
}

proptest! {
    #[test]
    fn leases_agree_with_the_model_whatever_is_restored(
        steps in vec((step(), 1..20_usize), 0..40),
        kept in any::<prop::sample::Index>(),
    ) {
        let (mut store, mut model) = (store_at(NEWEST), Model::default());
        let (mut copy, mut next) = (Rebuild::default(), 1);
        let mut told = BTreeMap::new();
        for (at, (step, piece)) in steps.iter().enumerate() {
            let expected = model.take(step);
            let operation = match step.clone() {
                Step::Grant(id) => grant(id),
                Step::Revoke(id) => revoke(id),
                Step::Expire(id, grant) => expire(id, grant),
                Step::Change(changes) => Operation::Txn(operations_of(changes)),
                Step::Compact(back) => {
                    let revision = store.revision() - back;
                    Operation::Compact(pb::CompactionRequest { revision, physical: false })
                }
            };
            let is_done = apply(&mut store, operation, *piece);
            prop_assert!(is_done == expected || matches!(step, Step::Compact(_)), "{:?}", step);
            agrees(&store, &model);
            for change in store.leases_mut().take_changes() {
                match change {
                    Change::Granted(grant) => drop(told.insert(grant.id, grant.number)),
                    Change::Ended(grant) => drop(told.remove(&grant.id)),
                    Change::Replaced => unreachable!("nothing takes its place"),
                }
            }
            prop_assert_eq!(&told, &model.leases);
            if at == kept.index(steps.len()) {
                // From here on a copy follows.
                (copy, next) = keep(&mut store, copy, next);
            }
        }
        (copy, _) = keep(&mut store, copy, next);
        let summary = store.summary();
        agrees(&copy.finish(&summary, store.applied()).expect("what was copied"), &model);
        let store = RwLock::new(store);
        agrees(&restored(&store), &model);
    }
}

/// Brings a copy up to date.
fn keep(store: &mut Store, mut copy: Rebuild, mut next: u64) -> (Rebuild, u64) {
    loop {
        let (versions, then) = store.copy_from(next, 3);
        for version in &versions {
            copy.push(version).expect("in order");
        }
        next = then;
        if store.is_copied(next) {
            return (copy, next);
        }
    }
}
