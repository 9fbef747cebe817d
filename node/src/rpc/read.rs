//! Reading the shared state without keeping writers out for long.

use parking_lot::RwLock;
use quorate_api::etcdserverpb as pb;

use tonic::Status;

use super::arrival::Share;
use super::error::{answer_lost, answer_refused};
use crate::kv::{RangeScan, ReadTxn, Reply, Response, Store};

/// Steps that are taken under one hold of the lock: some tens of microseconds. Writers wait for no more than one such piece of each client
/// runtime.
const PIECE: usize = 512;

/// More keys than this are sorted on another thread: some hundred microseconds, unless they are large and alike.
const SORTED_HERE: usize = 1000;

/// Answers a Range. What it holds grows `share`.
pub(super) async fn range(
    store: &RwLock<Store>,
    request: pb::RangeRequest,
    share: &mut Share,
) -> Result<pb::RangeResponse, Status> {
    let scan = {
        let store = store.read();
        let mut scan = store.scan(request)?;
        // Almost all reads end here, with one hold of the lock.
        if scan.advance(&store, PIECE)? {
            share.reach(scan.held())?;
            return Ok(scan.finish());
        }
        scan
    };
    finish(store, scan, 0, share).await
}

/// Answers a transaction that only reads: all of it at the revision at which its compares are made.
pub(super) async fn txn(
    store: &RwLock<Store>,
    request: &pb::TxnRequest,
    share: &mut Share,
) -> Result<pb::TxnResponse, Status> {
    let mut txn = ReadTxn::new(&store.read(), request);
    while !txn.choose(&store.read(), PIECE)? {
        tokio::task::yield_now().await;
    }
    let mut ranges = Vec::new();
    for request in txn.ranges() {
        let scan = txn.scan(&store.read(), request)?;
        ranges.push(finish(store, scan, share.bytes(), share).await?);
    }
    Ok(txn.finish(ranges))
}

/// Reads what the answer to an applied command still lacks.
pub(super) async fn rest(
    store: &RwLock<Store>,
    mut reply: Reply,
    share: &mut Share,
) -> Result<Response, Status> {
    while !reply.is_whole() {
        reply.advance(&store.read(), PIECE).map_err(answer_lost)?;
        share.reach(reply.held()).map_err(|refusal| answer_refused(&refusal))?;
        tokio::task::yield_now().await;
    }
    Ok(reply.finish())
}

/// Reads on to the end, piece by piece; between pieces, writers and the other requests of this thread get their turn. Other parts of the
/// answer hold `before`.
async fn finish(
    store: &RwLock<Store>,
    mut scan: RangeScan,
    before: usize,
    share: &mut Share,
) -> Result<pb::RangeResponse, Status> {
    while !scan.advance(&store.read(), PIECE)? {
        share.reach(before + scan.held())?;
        tokio::task::yield_now().await;
    }
    share.reach(before + scan.held())?;
    if scan.unsorted() <= SORTED_HERE {
        return Ok(scan.finish());
    }
    // The other clients of this thread do not wait for it.
    match tokio::task::spawn_blocking(move || scan.finish()).await {
        Ok(response) => Ok(response),
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime ends, and this request with it.
            Err(_) => std::future::pending().await,
        },
    }
}

#[cfg(test)]
mod tests {
    use quorate_api::etcdserverpb::request_op::Request;
    use quorate_api::log::command::Operation;
    use tonic::Code;

    use super::*;
    use crate::kv::Applying;
    use crate::rpc::arrival::Budget;

    const KEYS: usize = 2000;

    fn store() -> RwLock<Store> {
        let mut store = Store::new();
        for number in 0..KEYS {
            let put = pb::PutRequest { key: format!("k{number}").into(), ..pb::PutRequest::default() };
            store.apply(&Operation::Put(put)).unwrap();
        }
        RwLock::new(store)
    }

    /// Of so many ranges over everything, and a deletion of nothing if it is to write.
    fn txn_of(ranges: usize, writes: bool) -> pb::TxnRequest {
        let op = |request| pb::RequestOp { request: Some(request) };
        let range =
            pb::RangeRequest { key: "\0".into(), range_end: "\0".into(), ..pb::RangeRequest::default() };
        let delete = pb::DeleteRangeRequest { key: "none".into(), ..pb::DeleteRangeRequest::default() };
        let mut success = vec![op(Request::RequestRange(range)); ranges];
        success.extend(writes.then(|| op(Request::RequestDeleteRange(delete))));
        pb::TxnRequest { success, ..pb::TxnRequest::default() }
    }

    /// Two ranges fit. More than fit are refused before they are gathered.
    #[tokio::test]
    async fn an_answer_is_refused_when_it_holds_too_much_and_not_later() {
        let store = store();
        let most = 3 * KEYS * size_of::<quorate_api::mvccpb::KeyValue>();
        let budget = Budget::new(most);
        let mut share = budget.share();
        assert_eq!(txn(&store, &txn_of(1, false), &mut share).await.unwrap().responses.len(), 1);
        drop(share);
        let mut share = budget.share();
        let refused = txn(&store, &txn_of(100, false), &mut share).await.unwrap_err();
        assert_eq!(refused.code(), Code::ResourceExhausted);
        assert!(refused.message().contains("(limit)"), "{refused}");
        assert!(share.bytes() <= most);

        let mut applying = Applying::new(Operation::Txn(txn_of(100, true)), &bytes::Bytes::new(), true);
        let reply = loop {
            if let Some(reply) = applying.step(&mut store.write(), usize::MAX) {
                break reply.unwrap();
            }
        };
        let mut share = budget.share();
        let refused = rest(&store, reply, &mut share).await.unwrap_err();
        assert_eq!(refused.message(), "etcdserver: request timed out", "it may have been done");
        assert!(share.bytes() <= most);
    }
}
