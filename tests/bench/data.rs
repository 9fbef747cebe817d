//! A lot of data, as fast as it goes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use quorate_api::etcdserverpb::kv_client::KvClient;
use quorate_api::etcdserverpb::request_op::Request as OperationRequest;
use quorate_api::etcdserverpb::{PutRequest, RequestOp, TxnRequest};
use tokio::task::JoinSet;

use crate::client::Connection;

/// Puts in one transaction: etcd takes no more than 128.
const TOGETHER: usize = 100;
/// Transactions on their way at once.
const SIDE_BY_SIDE: usize = 8;
/// How often it says how far it is.
const TELL: Duration = Duration::from_secs(5);

/// Puts each of `keys` once, through the node at `address`.
pub(crate) async fn put_all(address: SocketAddr, keys: Vec<Bytes>, value: Bytes) -> Result<(), String> {
    let (begun, keys, next) = (Instant::now(), Arc::new(keys), Arc::new(AtomicUsize::new(0)));
    let kv = Connection::kv(address).await?;
    let mut writers = JoinSet::new();
    for _ in 0..SIDE_BY_SIDE {
        writers.spawn(writer(kv.clone(), Arc::clone(&keys), Arc::clone(&next), value.clone()));
    }
    let mut told = tokio::time::interval_at((begun + TELL).into(), TELL);
    loop {
        tokio::select! {
            ended = writers.join_next() => match ended {
                Some(ended) => ended.map_err(|error| error.to_string())??,
                None => return Ok(()),
            },
            _ = told.tick() => {
                let done = next.load(Ordering::Relaxed).min(keys.len());
                eprintln!("  {done} of {} keys are written after {:.0} s", keys.len(), begun.elapsed().as_secs_f64());
            }
        }
    }
}

/// Takes what nobody has taken yet, until nothing is left.
async fn writer(
    mut kv: KvClient<Connection>,
    keys: Arc<Vec<Bytes>>,
    next: Arc<AtomicUsize>,
    value: Bytes,
) -> Result<(), String> {
    loop {
        let begin = next.fetch_add(TOGETHER, Ordering::Relaxed);
        let Some(rest) = keys.get(begin..).filter(|rest| !rest.is_empty()) else { return Ok(()) };
        let put =
            |key: &Bytes| PutRequest { key: key.clone(), value: value.clone(), ..PutRequest::default() };
        let operation = |key| RequestOp { request: Some(OperationRequest::RequestPut(put(key))) };
        let success = rest.iter().take(TOGETHER).map(operation).collect();
        let txn = TxnRequest { success, ..TxnRequest::default() };
        kv.txn(txn).await.map_err(|status| format!("cannot write the keys: {status}"))?;
    }
}
