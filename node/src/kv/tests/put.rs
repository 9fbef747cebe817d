use std::collections::BTreeSet;

use parking_lot::RwLock;
use quorate_api::etcdserverpb as pb;

use super::requests::*;
use crate::kv::revision::INITIAL;
use crate::kv::snapshot::Restore;
use crate::kv::{KvError, Rebuild, Store};

#[test]
fn every_put_makes_a_revision_even_of_the_same_value() {
    let mut store = Store::new();
    assert_eq!(store.revision(), INITIAL);
    for expected in 2..5 {
        let response = apply_put(&mut store, put("k", "v")).expect("a plain put");
        assert_eq!(revision(response.header.as_ref()), expected);
    }
    let response = store.range(&range("k", "")).expect("a plain range");
    let kv = &response.kvs[0];
    assert_eq!((kv.create_revision, kv.mod_revision, kv.version), (2, 4, 3));
}

#[test]
fn a_key_made_anew_counts_from_one_again() {
    let mut store = store_with(&["k"]);
    apply_delete(&mut store, delete("k", ""));
    apply_put(&mut store, put("k", "again")).expect("a plain put");
    let response = store.range(&range("k", "")).expect("a plain range");
    let kv = &response.kvs[0];
    assert_eq!((kv.create_revision, kv.mod_revision, kv.version), (4, 4, 1));
}

#[test]
fn the_previous_pair_comes_if_asked_for_and_there() {
    let mut store = Store::new();
    let asking = pb::PutRequest { prev_kv: true, ..put("k", "new") };
    assert_eq!(apply_put(&mut store, asking.clone()).expect("a plain put").prev_kv, None);
    let previous = apply_put(&mut store, asking).expect("a plain put").prev_kv.expect("it is there");
    assert_eq!((previous.value, previous.mod_revision), (bytes("new"), 2));
}

#[test]
fn ignoring_the_value_keeps_it() {
    let mut store = store_with(&["k"]);
    apply_put(&mut store, pb::PutRequest { ignore_value: true, ..put("k", "") }).expect("the key is there");
    let response = store.range(&range("k", "")).expect("a plain range");
    assert_eq!((&response.kvs[0].value, response.kvs[0].version), (&bytes("k"), 2));
}

/// A put of a few bytes makes a version that is as large as the value that it keeps: 1,000 of them were a gigabyte of copies.
#[test]
fn versions_that_keep_a_value_share_it_and_are_accounted_in_full() {
    const VALUE: usize = 1 << 20;
    let mut store = Store::new();
    let first = pb::PutRequest { value: vec![7; VALUE].into(), ..put("k", "") };
    apply_put(&mut store, first).expect("a plain put");
    for _ in 0..1000 {
        let before = store.size_in_use();
        apply_put(&mut store, pb::PutRequest { ignore_value: true, ..put("k", "") })
            .expect("the key is there");
        assert!(store.size_in_use() - before >= VALUE as u64, "snapshots write each in full");
    }
    assert_eq!(buffers(&store), 1);
    assert_eq!((store.sizes, store.size()), (store.count(), store.size_in_use()));

    // A start from a snapshot, and one from a copy, take no more memory.
    let (state, size) = (store.summary(), store.size());
    let mut copy = Rebuild::default();
    let (mut next, end) = (1, store.end());
    while next < end {
        let (versions, then) = store.copy_from(next, 256);
        for version in &versions {
            copy.push(version).expect("they are in order");
        }
        next = then;
    }
    let rebuilt = copy.finish(&state, store.applied()).expect("the same state");
    assert_eq!((buffers(&rebuilt), rebuilt.size()), (1, size));

    let store = RwLock::new(store);
    let mut source = store.write().snapshot(1 << 20).expect("no other is under way");
    let mut restore = Restore::new();
    while let Some(piece) = source.next_piece(&store).expect("it is not replaced") {
        restore.push(&piece).expect("what was encoded");
    }
    let restored = restore.finish().expect("all of it");
    drop(source);
    assert_eq!((buffers(&restored), restored.size()), (1, size));

    // What compactions leave is one buffer again, also of a key whose value came in a message.
    let mut store = store.into_inner();
    let current = store.revision();
    apply_compact(&mut store, current).expect("the current revision");
    while store.collect(10_000) == crate::kv::Collected::More {}
    apply_put(&mut store, pb::PutRequest { ignore_value: true, ..put("k", "") }).expect("the key is there");
    assert_eq!((buffers(&store), store.sizes), (1, store.count()));
}

/// How many buffers the values of all versions lie in.
fn buffers(store: &Store) -> usize {
    let values = store.history.iter_from(0).map(|(_, version)| version.shared_value());
    values.map(|value| value.as_ptr().addr()).collect::<BTreeSet<_>>().len()
}

#[test]
fn what_is_refused_changes_nothing() {
    let mut store = store_with(&["gone"]);
    apply_delete(&mut store, delete("gone", ""));
    let cases = [
        (pb::PutRequest { ignore_value: true, ..put("k", "") }, KvError::KeyNotFound),
        (pb::PutRequest { ignore_lease: true, ..put("gone", "") }, KvError::KeyNotFound),
        (pb::PutRequest { lease: 7, ..put("k", "") }, KvError::LeaseNotFound),
    ];
    for (request, error) in cases {
        assert_eq!(apply_put(&mut store, request), Err(error));
    }
    assert_eq!(store.revision(), 3);
}
