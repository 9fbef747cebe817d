//! By how much an operation may make the state larger: whoever admits requests adds it up, and what may make it larger at all is refused
//! while NOSPACE is raised.

use quorate_api::etcdserverpb as pb;
use quorate_api::etcdserverpb::request_op::Request;
use quorate_api::log::command::Operation;

use super::check::MAX_REQUEST_BYTES;
use super::sizes;
use super::version::VERSION_BYTES;
use crate::leases;

/// The most bytes by which `operation` makes the state larger, as they are accounted; 0 if it puts nothing. Of a transaction the branch that
/// may make it larger counts, as in etcd: so one that puts in either branch is never taken for one that does not.
pub fn growth(operation: &Operation) -> u64 {
    match operation {
        Operation::Put(request) => of_put(request),
        Operation::Txn(request) => of_txn(request),
        Operation::LeaseGrant(_) => leases::LEASE_BYTES,
        Operation::DeleteRange(_)
        | Operation::LeaseRevoke(_)
        | Operation::ExpireLease(_)
        | Operation::Compact(_)
        | Operation::RaiseLevel(_)
        | Operation::Alarm(_)
        | Operation::CheckQuota(_) => 0,
    }
}

/// A version, and a place in the index. A deletion is a version too, and not counted: it is a way out. What a put keeps is as large as any
/// value may be: how large it is will only be known where it is applied.
fn of_put(request: &pb::PutRequest) -> u64 {
    let value = if request.ignore_value { MAX_REQUEST_BYTES } else { request.value.len() };
    let hanging = if request.lease == 0 { 0 } else { leases::hanging(&request.key) };
    (request.key.len() + value) as u64 + VERSION_BYTES + sizes::place(&request.key) + hanging
}

fn of_txn(request: &pb::TxnRequest) -> u64 {
    let of = |operations: &[pb::RequestOp]| operations.iter().map(of_operation).sum::<u64>();
    of(&request.success).max(of(&request.failure))
}

fn of_operation(operation: &pb::RequestOp) -> u64 {
    match &operation.request {
        Some(Request::RequestPut(request)) => of_put(request),
        Some(Request::RequestTxn(request)) => of_txn(request),
        Some(Request::RequestRange(_) | Request::RequestDeleteRange(_)) | None => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::Store;

    fn op(request: Request) -> pb::RequestOp {
        pb::RequestOp { request: Some(request) }
    }

    fn put(key: &'static str, value: &'static str) -> pb::PutRequest {
        pb::PutRequest { key: key.into(), value: value.into(), ..pb::PutRequest::default() }
    }

    #[test]
    fn a_new_key_grows_by_what_was_counted_on() {
        let mut store = Store::new();
        for operation in [
            Operation::Put(put("key", "value")),
            Operation::Txn(pb::TxnRequest {
                success: vec![op(Request::RequestPut(put("a", "1"))), op(Request::RequestPut(put("b", "")))],
                ..pb::TxnRequest::default()
            }),
        ] {
            let before = store.size_in_use();
            store.apply(&operation).expect("plain puts");
            assert_eq!(store.size_in_use() - before, growth(&operation));
        }
    }

    #[test]
    fn a_put_that_keeps_the_value_grows_by_no_more_than_was_counted_on() {
        let mut store = Store::new();
        let large = pb::PutRequest { value: vec![7; MAX_REQUEST_BYTES - 100].into(), ..put("key", "") };
        store.apply(&Operation::Put(large)).expect("a plain put");
        let keeps = Operation::Put(pb::PutRequest { ignore_value: true, ..put("key", "") });
        let before = store.size_in_use();
        store.apply(&keeps).expect("the key is there");
        assert!((1..=growth(&keeps)).contains(&(store.size_in_use() - before)));
    }

    #[test]
    fn a_put_counts_wherever_it_is() {
        let delete = op(Request::RequestDeleteRange(pb::DeleteRangeRequest::default()));
        let inner = pb::TxnRequest {
            failure: vec![op(Request::RequestPut(put("k", "")))],
            ..pb::TxnRequest::default()
        };
        let outer = |inner| {
            let success = vec![delete.clone(), op(Request::RequestTxn(inner))];
            Operation::Txn(pb::TxnRequest { success, ..pb::TxnRequest::default() })
        };
        assert!(growth(&outer(inner)) > 0);
        assert_eq!(growth(&outer(pb::TxnRequest { success: vec![delete.clone()], ..Default::default() })), 0);
    }
}
