use super::requests::*;
use crate::kv::revision::INITIAL;
use crate::kv::{KvError, Store};
use quorate_api::etcdserverpb as pb;

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
