//! A restart with much data: how long until each node answers, and how much memory it takes.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::try_join_all;
use quorate_api::etcdserverpb::RangeRequest;
use tokio::time::timeout;

use crate::client::Connection;
use crate::cluster::Cluster;
use crate::data;
use crate::load::{self, VALUE, key, largest};
use crate::report::Run;
use crate::written::Written;

/// How long an answer may take; then it is asked for again.
const ANSWER: Duration = Duration::from_secs(2);
const AGAIN: Duration = Duration::from_millis(5);
/// No answer after this long is an error.
const LIMIT: Duration = Duration::from_mins(10);

/// Writes `keys` keys, stops all nodes in order, starts them, and times each until its first linearizable read.
pub(crate) fn run(mut cluster: Cluster, keys: usize) -> Result<Run, String> {
    let runtime = load::runtime()?;
    let leader = runtime.block_on(cluster.leader())?;
    let keys: Vec<Bytes> = (0..keys).map(key).collect();
    let last = keys.last().cloned().ok_or("too small a scale: there is nothing to write")?;
    eprintln!("  writes {} keys of {VALUE} B", keys.len());
    let value = Bytes::from(vec![b'v'; VALUE]);
    let (before, bytes) = (Written::now(&cluster)?, keys.len() * load::user_bytes());
    runtime.block_on(data::put_all(cluster.clients()[leader], keys, value))?;
    load::settle(&cluster)?;
    let written = Written::now(&cluster)?.since(&before).for_each(bytes as f64);
    let resident_mib = largest(&cluster.processes())?;
    eprintln!("  stops all nodes, and starts them");
    cluster.stop()?;
    let mut started = Vec::new();
    for node in 0..cluster.size() {
        started.push(Instant::now());
        cluster.restart(node)?;
    }
    let nodes = cluster.clients().into_iter().zip(started);
    let answers = nodes.map(|(client, started)| first_read(client, last.clone(), started));
    let read_s = runtime.block_on(try_join_all(answers));
    cluster.assert_alive()?;
    let restarted_mib = largest(&cluster.processes())?;
    Ok(Run::Restart { read_s: read_s?, written, resident_mib, restarted_mib })
}

/// The seconds since `started` until the node answers a linearizable read of `key`.
pub(crate) async fn first_read(client: SocketAddr, key: Bytes, started: Instant) -> Result<f64, String> {
    loop {
        match timeout(ANSWER, read(client, key.clone())).await {
            Ok(Ok(true)) => return Ok(started.elapsed().as_secs_f64()),
            Ok(Ok(false)) => return Err(format!("{client} has lost what was written")),
            Ok(Err(reason)) if started.elapsed() > LIMIT => {
                return Err(format!("{client} does not answer: {reason}"));
            }
            Err(_) if started.elapsed() > LIMIT => return Err(format!("{client} does not answer")),
            _ => tokio::time::sleep(AGAIN).await,
        }
    }
}

async fn read(client: SocketAddr, key: Bytes) -> Result<bool, String> {
    let request = RangeRequest { key, ..RangeRequest::default() };
    let answer = Connection::kv(client).await?.range(request).await.map_err(|status| status.to_string())?;
    Ok(!answer.get_ref().kvs.is_empty())
}
