//! Reading the shared state without keeping writers out for long.

use parking_lot::RwLock;
use quorate_api::etcdserverpb as pb;

use crate::kv::{KvError, RangeScan, ReadTxn, Store};

/// Keys that are looked at under one hold of the lock: some tens of microseconds.
const PIECE: usize = 256;

/// Answers a Range.
pub(super) async fn range(
    store: &RwLock<Store>,
    request: &pb::RangeRequest,
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

/// Answers a transaction that only reads: all of it at the revision at which its compares were made.
pub(super) async fn txn(store: &RwLock<Store>, request: &pb::TxnRequest) -> Result<pb::TxnResponse, KvError> {
    let txn = ReadTxn::new(&store.read(), request)?;
    let mut ranges = Vec::new();
    for request in txn.ranges() {
        let scan = txn.scan(&store.read(), request)?;
        ranges.push(finish(store, scan).await?);
    }
    Ok(txn.finish(ranges))
}

/// Reads on to the end, piece by piece; between pieces, writers and the other requests of this thread get their turn.
async fn finish(store: &RwLock<Store>, mut scan: RangeScan<'_>) -> Result<pb::RangeResponse, KvError> {
    loop {
        let ended = scan.advance(&store.read(), PIECE)?;
        if ended {
            return Ok(scan.finish());
        }
        tokio::task::yield_now().await;
    }
}
