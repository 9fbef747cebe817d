//! Reading the shared state without keeping writers out for long.

use parking_lot::RwLock;
use quorate_api::etcdserverpb as pb;

use crate::kv::{KvError, RangeScan, ReadTxn, Reply, Response, Store};

/// Steps that are taken under one hold of the lock: some tens of microseconds. Writers wait for no more than one such piece of each client
/// runtime.
const PIECE: usize = 512;

/// More keys than this are sorted on another thread: some milliseconds.
const SORTED_HERE: usize = 10_000;

/// Answers a Range.
pub(super) async fn range(
    store: &RwLock<Store>,
    request: pb::RangeRequest,
) -> Result<pb::RangeResponse, KvError> {
    let scan = {
        let store = store.read();
        let mut scan = store.scan(request)?;
        // Almost all reads end here, with one hold of the lock.
        if scan.advance(&store, PIECE)? {
            return Ok(scan.finish());
        }
        scan
    };
    finish(store, scan).await
}

/// Answers a transaction that only reads: all of it at the revision at which its compares are made.
pub(super) async fn txn(store: &RwLock<Store>, request: &pb::TxnRequest) -> Result<pb::TxnResponse, KvError> {
    let mut txn = ReadTxn::new(&store.read(), request);
    while !txn.choose(&store.read(), PIECE)? {
        tokio::task::yield_now().await;
    }
    let mut ranges = Vec::new();
    for request in txn.ranges() {
        let scan = txn.scan(&store.read(), request)?;
        ranges.push(finish(store, scan).await?);
    }
    Ok(txn.finish(ranges))
}

/// Reads what the answer to an applied command still lacks.
pub(super) async fn rest(store: &RwLock<Store>, mut reply: Reply) -> Result<Response, KvError> {
    while !reply.is_whole() {
        reply.advance(&store.read(), PIECE)?;
        tokio::task::yield_now().await;
    }
    Ok(reply.finish())
}

/// Reads on to the end, piece by piece; between pieces, writers and the other requests of this thread get their turn.
async fn finish(store: &RwLock<Store>, mut scan: RangeScan) -> Result<pb::RangeResponse, KvError> {
    while !scan.advance(&store.read(), PIECE)? {
        tokio::task::yield_now().await;
    }
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
