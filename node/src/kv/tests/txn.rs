use super::requests::*;
use crate::kv::{KvError, ReadTxn, Store};
use quorate_api::etcdserverpb as pb;
use quorate_api::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use quorate_api::etcdserverpb::request_op::Request;
use quorate_api::etcdserverpb::response_op::Response;

fn compare(key: &str, target: CompareTarget, result: CompareResult, with: TargetUnion) -> pb::Compare {
    pb::Compare {
        result: result as i32,
        target: target as i32,
        key: bytes(key),
        target_union: Some(with),
        ..pb::Compare::default()
    }
}

fn holds(store: &Store, compare: pb::Compare) -> bool {
    let request = pb::TxnRequest { compare: vec![compare], ..pb::TxnRequest::default() };
    ReadTxn::run(store, &request).expect("nothing that could be refused").succeeded
}

#[test]
fn one_transaction_is_one_revision_and_sees_itself() {
    let mut store = store_with(&["a"]);
    let request = txn([
        Request::RequestRange(range("b", "")),
        Request::RequestPut(put("b", "1")),
        Request::RequestRange(range("a", "\0")),
        Request::RequestDeleteRange(delete("a", "")),
    ]);
    let response = apply_txn(&mut store, request).expect("a plain transaction");
    assert_eq!((revision(response.header.as_ref()), store.revision()), (3, 3));
    let revisions: Vec<_> = response
        .responses
        .iter()
        .map(|operation| match &operation.response {
            Some(Response::ResponseRange(range)) => (revision(range.header.as_ref()), range.count),
            Some(Response::ResponsePut(put)) => (revision(put.header.as_ref()), 0),
            Some(Response::ResponseDeleteRange(delete)) => (revision(delete.header.as_ref()), delete.deleted),
            other => panic!("not asked for: {other:?}"),
        })
        .collect();
    assert_eq!(revisions, [(2, 0), (3, 0), (3, 2), (3, 1)]);
}

#[test]
fn a_key_deleted_and_put_in_one_transaction_is_made_anew() {
    let mut store = store_with(&["a"]);
    // A deletion "from the key on" is the one that may meet a put of the same transaction.
    let request = txn([Request::RequestDeleteRange(delete("a", "\0")), Request::RequestPut(put("a", "1"))]);
    apply_txn(&mut store, request).expect("a plain transaction");
    let response = store.range(&range("a", "")).expect("a plain range");
    assert_eq!((response.kvs[0].create_revision, response.kvs[0].version), (3, 1));
    let old = store.range(&pb::RangeRequest { revision: 2, ..range("a", "") }).expect("a past revision");
    assert_eq!(old.kvs[0].value, bytes("a"));
}

#[test]
fn a_transaction_fails_whole() {
    let mut store = store_with(&["a"]);
    let keep = |key| Request::RequestPut(pb::PutRequest { ignore_value: true, ..put(key, "") });
    let future = Request::RequestRange(pb::RangeRequest { revision: 3, ..range("a", "") });
    let ancient = Request::RequestRange(pb::RangeRequest { revision: -2, ..range("a", "") });
    let nested = Request::RequestTxn(txn([keep("missing")]));
    let everything_gone = Request::RequestDeleteRange(delete("a", "\0"));
    let cases = [
        (vec![keep("missing")], KvError::KeyNotFound),
        (vec![nested], KvError::KeyNotFound),
        (vec![future], KvError::FutureRevision),
        (vec![ancient], KvError::Compacted),
        (vec![everything_gone, keep("a")], KvError::KeyNotFound),
    ];
    for (operations, error) in cases {
        let operations = [Request::RequestPut(put("b", "1"))].into_iter().chain(operations);
        assert_eq!(apply_txn(&mut store, txn(operations)), Err(error));
    }
    assert_eq!(store.revision(), 2);
    assert_eq!(store.range(&range("b", "")).expect("a plain range").count, 0);
}

/// Before the first compaction -1 is no revision that was compacted; after it, it is.
#[test]
fn a_negative_revision_counts_as_compacted_in_a_transaction() {
    let mut store = store_with(&["a"]);
    let before = txn([Request::RequestRange(pb::RangeRequest { revision: -1, ..range("a", "") })]);
    apply_txn(&mut store, before.clone()).expect("as if none was asked for");
    apply_compact(&mut store, 1).expect("a revision that exists");
    assert_eq!(apply_txn(&mut store, before), Err(KvError::Compacted));
}

#[test]
fn all_compares_see_the_state_before_nested_ones_too() {
    let mut store = Store::new();
    let b_is_there = compare("b", CompareTarget::Version, CompareResult::Greater, TargetUnion::Version(0));
    let nested = pb::TxnRequest {
        compare: vec![b_is_there],
        success: operations([Request::RequestPut(put("c", "then"))]),
        failure: operations([Request::RequestPut(put("c", "else"))]),
    };
    let request = txn([Request::RequestPut(put("b", "1")), Request::RequestTxn(nested)]);
    let response = apply_txn(&mut store, request).expect("a plain transaction");
    match &response.responses[1].response {
        Some(Response::ResponseTxn(nested)) => {
            assert!(!nested.succeeded);
            assert_eq!(nested.header, Some(pb::ResponseHeader::default()), "as etcd's");
        }
        other => panic!("not the answer to a transaction: {other:?}"),
    }
    assert_eq!(store.range(&range("c", "")).expect("a plain range").kvs[0].value, bytes("else"));
}

#[test]
fn a_missing_key_compares_as_zeros_but_has_no_value() {
    use CompareResult::{Equal, Less, NotEqual};
    let store = store_with(&["a"]);
    assert!(holds(&store, compare("k", CompareTarget::Version, Equal, TargetUnion::Version(0))));
    assert!(holds(&store, compare("k", CompareTarget::Mod, Less, TargetUnion::ModRevision(1))));
    assert!(holds(&store, compare("k", CompareTarget::Lease, Equal, TargetUnion::Lease(0))));
    assert!(!holds(&store, compare("k", CompareTarget::Value, Equal, TargetUnion::Value(bytes("")))));
    assert!(!holds(&store, compare("k", CompareTarget::Value, NotEqual, TargetUnion::Value(bytes("")))));
}

#[test]
fn a_compare_of_a_range_must_hold_for_every_key() {
    let store = store_with(&["a", "b"]);
    let of_range = |revision| pb::Compare {
        range_end: bytes("\0"),
        ..compare("a", CompareTarget::Mod, CompareResult::Less, TargetUnion::ModRevision(revision))
    };
    assert!(holds(&store, of_range(4)));
    assert!(!holds(&store, of_range(3)));
}

#[test]
fn an_operand_of_another_target_counts_as_zero() {
    let store = store_with(&["a"]);
    let other = compare("a", CompareTarget::Version, CompareResult::Greater, TargetUnion::ModRevision(9));
    assert!(holds(&store, other));
}

#[test]
fn a_transaction_without_changes_makes_no_revision() {
    let mut store = store_with(&["a"]);
    let request = txn([Request::RequestDeleteRange(delete("b", ""))]);
    let response = apply_txn(&mut store, request).expect("a plain transaction");
    assert_eq!((revision(response.header.as_ref()), store.revision()), (2, 2));
}
