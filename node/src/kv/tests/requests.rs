//! Requests and answers in few words.

use bytes::Bytes;
use quorate_api::etcdserverpb as pb;
use quorate_api::etcdserverpb::request_op::Request;
use quorate_api::log::RaiseLevel;
use quorate_api::log::command::Operation;

use crate::kv::{KvError, Response, Store};
use crate::level::Level;

pub(super) fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

pub(super) fn put(key: &str, value: &str) -> pb::PutRequest {
    pb::PutRequest { key: bytes(key), value: bytes(value), ..pb::PutRequest::default() }
}

pub(super) fn delete(key: &str, range_end: &str) -> pb::DeleteRangeRequest {
    pb::DeleteRangeRequest { key: bytes(key), range_end: bytes(range_end), prev_kv: false }
}

pub(super) fn range(key: &str, range_end: &str) -> pb::RangeRequest {
    pb::RangeRequest { key: bytes(key), range_end: bytes(range_end), ..pb::RangeRequest::default() }
}

pub(super) fn txn(success: impl IntoIterator<Item = Request>) -> pb::TxnRequest {
    pb::TxnRequest { success: operations(success), ..pb::TxnRequest::default() }
}

pub(super) fn operations(requests: impl IntoIterator<Item = Request>) -> Vec<pb::RequestOp> {
    requests.into_iter().map(|request| pb::RequestOp { request: Some(request) }).collect()
}

pub(super) fn apply_put(store: &mut Store, request: pb::PutRequest) -> Result<pb::PutResponse, KvError> {
    match store.apply(&Operation::Put(request))? {
        Response::Put(response) => Ok(response),
        other => panic!("not the answer to a put: {other:?}"),
    }
}

pub(super) fn apply_delete(store: &mut Store, request: pb::DeleteRangeRequest) -> pb::DeleteRangeResponse {
    match store.apply(&Operation::DeleteRange(request)) {
        Ok(Response::DeleteRange(response)) => response,
        other => panic!("not the answer to a deletion: {other:?}"),
    }
}

pub(super) fn apply_txn(store: &mut Store, request: pb::TxnRequest) -> Result<pb::TxnResponse, KvError> {
    match store.apply(&Operation::Txn(request))? {
        Response::Txn(response) => Ok(response),
        other => panic!("not the answer to a transaction: {other:?}"),
    }
}

pub(super) fn apply_compact(store: &mut Store, revision: i64) -> Result<pb::CompactionResponse, KvError> {
    match store.apply(&Operation::Compact(pb::CompactionRequest { revision, physical: false }))? {
        Response::Compact(response) => Ok(response),
        other => panic!("not the answer to a compaction: {other:?}"),
    }
}

/// A store of this level.
pub(super) fn store_at(level: Level) -> Store {
    let mut store = Store::new();
    store.apply(&Operation::RaiseLevel(RaiseLevel { to: level })).expect("it is never refused");
    store
}

/// A store that these keys were put into, each at a revision of its own, with the key as its value.
pub(super) fn store_with(keys: &[&str]) -> Store {
    let mut store = Store::new();
    for key in keys {
        apply_put(&mut store, put(key, key)).expect("a plain put");
    }
    store
}

/// The keys of an answer.
pub(super) fn keys(response: &pb::RangeResponse) -> Vec<&str> {
    response.kvs.iter().map(|kv| std::str::from_utf8(&kv.key).expect("keys of tests are text")).collect()
}

pub(super) fn revision(header: Option<&pb::ResponseHeader>) -> i64 {
    header.expect("answers have a header").revision
}
