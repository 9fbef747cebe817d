use super::requests::*;
use crate::kv::check::{self, Invalid, MAX_REQUEST_BYTES, MAX_TXN_DEPTH, MAX_TXN_OPERATIONS};
use quorate_api::etcdserverpb as pb;
use quorate_api::etcdserverpb::request_op::Request;

#[test]
fn keys_must_be_there() {
    assert_eq!(check::range(&range("", "")), Err(Invalid::EmptyKey));
    assert_eq!(check::put(&put("", "")), Err(Invalid::EmptyKey));
    assert_eq!(check::delete_range(&delete("", "z")), Err(Invalid::EmptyKey));
    assert_eq!(check::txn(&txn([Request::RequestPut(put("", ""))])), Err(Invalid::EmptyKey));
    let compare = pb::TxnRequest { compare: vec![pb::Compare::default()], ..pb::TxnRequest::default() };
    assert_eq!(check::txn(&compare), Err(Invalid::EmptyKey));
}

#[test]
fn options_must_make_sense() {
    let value = pb::PutRequest { ignore_value: true, ..put("k", "v") };
    assert_eq!(check::put(&value), Err(Invalid::ValueProvided));
    let lease = pb::PutRequest { ignore_lease: true, lease: 1, ..put("k", "v") };
    assert_eq!(check::put(&lease), Err(Invalid::LeaseProvided));
    assert_eq!(check::range(&pb::RangeRequest { sort_order: 3, ..range("k", "") }), Err(Invalid::SortOption));
    assert_eq!(
        check::range(&pb::RangeRequest { sort_target: -1, ..range("k", "") }),
        Err(Invalid::SortOption)
    );
    let empty = pb::TxnRequest { success: vec![pb::RequestOp::default()], ..pb::TxnRequest::default() };
    assert_eq!(check::txn(&empty), Err(Invalid::EmptyOperation));
}

#[test]
fn nested_transactions_share_the_operations() {
    let ranges = |count| vec![Request::RequestRange(range("k", "")); count];
    let with_nested = |outer: usize, inner| {
        let nested = Request::RequestTxn(txn(ranges(inner)));
        check::txn(&txn(ranges(outer - 1).into_iter().chain([nested])))
    };
    assert_eq!(check::txn(&txn(ranges(MAX_TXN_OPERATIONS))), Ok(()));
    assert_eq!(check::txn(&txn(ranges(MAX_TXN_OPERATIONS + 1))), Err(Invalid::TooManyOperations));
    assert_eq!(with_nested(100, 28), Ok(()));
    assert_eq!(with_nested(100, 29), Err(Invalid::TooManyOperations));
}

/// 42 transactions of 43 transactions of 43 ranges are 128 on each way down, and 77,658 ranges in less than a request's bytes.
#[test]
fn nested_operations_are_bounded_in_their_sum() {
    use prost::Message;

    let everything = Request::RequestRange(range("\0", "\0"));
    let nest = |operation: &Request, count| Request::RequestTxn(txn(vec![operation.clone(); count]));
    let request = txn(vec![nest(&nest(&everything, 43), 43); 42]);
    assert!(request.encoded_len() < MAX_REQUEST_BYTES && !check::reads_only(&request));
    assert_eq!(check::txn(&request), Err(Invalid::TooManyOperations));

    let wide = |branch| pb::TxnRequest {
        success: operations(vec![everything.clone(); branch]),
        failure: operations(vec![everything.clone(); branch]),
        ..pb::TxnRequest::default()
    };
    assert_eq!(check::txn(&wide(MAX_TXN_OPERATIONS)), Ok(()));
    let siblings = |count, branch| txn(vec![Request::RequestTxn(wide(branch)); count]);
    assert_eq!(check::txn(&siblings(4, 63)), Ok(()), "4 + 4 * 126 operations");
    assert_eq!(check::txn(&siblings(4, 64)), Err(Invalid::TooManyOperations), "4 + 4 * 128 operations");
    let compare = pb::Compare { key: bytes("k"), ..pb::Compare::default() };
    let comparing = pb::TxnRequest { compare: vec![compare; 103], ..pb::TxnRequest::default() };
    let nested = |count| txn(vec![Request::RequestTxn(comparing.clone()); count]);
    assert_eq!(check::txn(&nested(4)), Ok(()));
    assert_eq!(check::txn(&nested(5)), Err(Invalid::TooManyOperations), "515 compares");
}

#[test]
fn the_deepest_transaction_can_be_read_from_the_log() {
    use prost::Message;
    use quorate_api::log::{Command, command::Operation};

    let deep = |depth| (1..depth).fold(txn([]), |inner, _| txn([Request::RequestTxn(inner)]));
    assert_eq!(check::txn(&deep(MAX_TXN_DEPTH + 1)), Err(Invalid::TooManyOperations));
    let deepest = deep(MAX_TXN_DEPTH);
    assert_eq!(check::txn(&deepest), Ok(()));
    let command = Command { origin: 1, request: 2, operation: Some(Operation::Txn(deepest)), format: 0 };
    assert_eq!(Command::decode(&command.encode_to_vec()[..]), Ok(command));
}

#[test]
fn no_key_may_be_changed_twice() {
    let put = |key| Request::RequestPut(put(key, ""));
    let delete = |key, end| Request::RequestDeleteRange(delete(key, end));
    let nested = |success: Vec<Request>, failure: Vec<Request>| {
        Request::RequestTxn(pb::TxnRequest { failure: operations(failure), ..txn(success) })
    };
    let twice: [Vec<Request>; 9] = [
        vec![put("a"), put("a")],
        vec![put("a"), delete("a", "")],
        vec![delete("a", "c"), put("b")],
        vec![delete("b", "c"), delete("a", "b"), delete("e", "f"), put("a")],
        vec![delete("a", "c"), delete("b", "e"), put("d")],
        vec![put("a"), nested(vec![put("a")], vec![])],
        vec![nested(vec![put("a")], vec![]), nested(vec![], vec![put("a")])],
        vec![nested(vec![delete("a", "")], vec![]), nested(vec![put("a")], vec![])],
        vec![nested(vec![nested(vec![], vec![delete("a", "b")])], vec![]), put("a")],
    ];
    for operations in twice {
        assert_eq!(check::txn(&txn(operations.clone())), Err(Invalid::DuplicateKey), "{operations:?}");
    }
    let once: [Vec<Request>; 7] = [
        vec![put("a"), delete("b", ""), put("c")],
        vec![delete("a", "c"), put("c")],
        vec![delete("b", "a"), put("a"), put("b")],
        vec![delete("a", "\0"), put("b")],
        vec![delete("a", "c"), delete("b", "d")],
        vec![nested(vec![put("a")], vec![put("a")])],
        vec![nested(vec![put("a")], vec![]), nested(vec![delete("a", "")], vec![])],
    ];
    for operations in once {
        assert_eq!(check::txn(&txn(operations.clone())), Ok(()), "{operations:?}");
    }
}

#[test]
fn reading_transactions_are_told_apart() {
    let local = pb::RangeRequest { serializable: true, ..range("k", "") };
    assert!(check::reads_only(&txn([])));
    assert!(!check::is_serializable(&txn([])), "its compares read");
    assert!(check::is_serializable(&txn([Request::RequestRange(local.clone())])));
    let mixed = txn([Request::RequestRange(local), Request::RequestRange(range("k", ""))]);
    assert!(check::reads_only(&mixed) && !check::is_serializable(&mixed));
    assert!(!check::reads_only(&txn([Request::RequestTxn(txn([]))])), "a nested one counts as writing");
}
