//! What clients ask, in the words of the etcd API, and what its answers tell them: every one says what the keys held before.

use crate::linearizability::kv::{Cell, Input, Key, Output, Value};
use quorate_api::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use quorate_api::etcdserverpb::request_op::Request as Operation;
use quorate_api::etcdserverpb::response_op::Response;
use quorate_api::etcdserverpb::{
    Compare, DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse, RangeRequest, RangeResponse,
    RequestOp, ResponseHeader, TxnRequest, TxnResponse,
};
use quorate_api::mvccpb::KeyValue;

/// A request of the API.
#[derive(Debug, Clone)]
pub enum Request {
    /// Reads one key.
    Range(RangeRequest),
    /// Writes one.
    Put(PutRequest),
    /// Deletes one.
    Delete(DeleteRangeRequest),
    /// Everything else.
    Txn(TxnRequest),
}

/// The answer says what it should not: what, in words.
pub type Wrong = String;

/// The request that does `input`. A serializable one may be answered from the past.
pub fn request(input: &Input, serializable: bool) -> Request {
    let plain = |operations: Vec<Operation>| Request::Txn(txn(Vec::new(), operations, Vec::new()));
    match input {
        Input::Get(keys) if keys.len() == 1 => Request::Range(range(keys[0], serializable)),
        Input::Put(keys, value) if keys.len() == 1 => Request::Put(put(keys[0], *value)),
        Input::Delete(key) => Request::Delete(delete(*key)),
        Input::Get(keys) => {
            plain(keys.iter().map(|key| Operation::RequestRange(range(*key, serializable))).collect())
        }
        Input::Put(keys, value) => {
            plain(keys.iter().map(|key| Operation::RequestPut(put(*key, *value))).collect())
        }
        Input::Swap { key, expected, new } => Request::Txn(txn(
            vec![holds(*key, *expected)],
            vec![Operation::RequestPut(put(*key, *new))],
            vec![Operation::RequestRange(range(*key, false))],
        )),
    }
}

/// What an answer to a range tells.
pub fn ranged(answer: RangeResponse) -> Result<Output, Wrong> {
    output(answer.header.as_ref(), &[answer.kvs], true)
}

/// What an answer to a put tells.
pub fn written(answer: PutResponse) -> Result<Output, Wrong> {
    output(answer.header.as_ref(), &[answer.prev_kv.into_iter().collect()], true)
}

/// What an answer to a deletion tells.
pub fn deleted(answer: DeleteRangeResponse) -> Result<Output, Wrong> {
    output(answer.header.as_ref(), &[answer.prev_kvs], true)
}

/// What an answer to a transaction tells.
pub fn transacted(answer: TxnResponse) -> Result<Output, Wrong> {
    let mut seen = Vec::new();
    for response in answer.responses {
        seen.push(match response.response {
            Some(Response::ResponseRange(range)) => range.kvs,
            Some(Response::ResponsePut(put)) => put.prev_kv.into_iter().collect(),
            other => return Err(format!("a transaction of puts and ranges answers {other:?}")),
        });
    }
    output(answer.header.as_ref(), &seen, answer.succeeded)
}

fn txn(compare: Vec<Compare>, success: Vec<Operation>, failure: Vec<Operation>) -> TxnRequest {
    let operations = |requests: Vec<Operation>| {
        requests.into_iter().map(|request| RequestOp { request: Some(request) }).collect()
    };
    TxnRequest { compare, success: operations(success), failure: operations(failure) }
}

fn output(header: Option<&ResponseHeader>, seen: &[Vec<KeyValue>], done: bool) -> Result<Output, Wrong> {
    let header = header.ok_or("an answer without a header")?;
    let seen = seen.iter().map(|found| cell(found)).collect::<Result<_, _>>()?;
    Ok(Output { revision: header.revision, seen, done })
}

/// What a key held, of which this was found.
pub fn cell(found: &[KeyValue]) -> Result<Option<Cell>, Wrong> {
    let [kv] = found else {
        return if found.is_empty() { Ok(None) } else { Err("one key was asked for, more came".into()) };
    };
    let text = std::str::from_utf8(&kv.value).ok().and_then(|text| text.parse().ok());
    let value = text.map(Value).ok_or_else(|| format!("nobody wrote {:?}", kv.value))?;
    let KeyValue { create_revision, mod_revision, version, .. } = *kv;
    Ok(Some(Cell { value, create_revision, mod_revision, version }))
}

/// A key.
pub fn name(key: Key) -> bytes::Bytes {
    format!("key/{}", key.0).into()
}

/// A value. Some are long: an entry with one takes several sectors of a disk.
pub fn text(value: Value) -> bytes::Bytes {
    let digits = if value.0.is_multiple_of(5) { 1500 } else { 1 };
    format!("{:0digits$}", value.0).into()
}

fn range(key: Key, serializable: bool) -> RangeRequest {
    RangeRequest { key: name(key), serializable, ..RangeRequest::default() }
}

fn put(key: Key, value: Value) -> PutRequest {
    PutRequest { key: name(key), value: text(value), prev_kv: true, ..PutRequest::default() }
}

fn delete(key: Key) -> DeleteRangeRequest {
    DeleteRangeRequest { key: name(key), prev_kv: true, ..DeleteRangeRequest::default() }
}

/// That a key holds a value, or is not there.
pub fn holds(key: Key, value: Option<Value>) -> Compare {
    let (target, union) = match value {
        Some(value) => (CompareTarget::Value, TargetUnion::Value(text(value))),
        None => (CompareTarget::Version, TargetUnion::Version(0)),
    };
    let result = CompareResult::Equal.into();
    Compare { result, target: target.into(), key: name(key), target_union: Some(union), ..Compare::default() }
}
