//! Large writes, until a disk is full.

use std::sync::Arc;
use std::time::Duration;

use quorate_api::etcdserverpb::PutRequest;
use quorate_api::etcdserverpb::kv_client::KvClient;
use quorate_tests::clients::endpoint;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tonic::{Code, Status};

use crate::cluster::Cluster;
use crate::network::Number;

/// A key that the clients, whose history is checked, do not know.
const KEY: &str = "filler";
const LARGE: usize = 1 << 20;
/// More than the rest of a segment of the log and two more of them: whoever goes on without room has found another way.
const ENOUGH: usize = 200 * LARGE;
/// More than a disk of 50 MB/s writes in a second; all at once would ask more of the machine than of its disk.
const AT_ONCE: usize = 64;
/// A large write takes a machine that is loaded a while.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Writes until the disk of `node` was full and the node has ended, or writes are refused, or enough was written. Whether they were
/// refused: a node that sees its disk fill up says so before it is full.
pub(crate) async fn fill(cluster: &mut Cluster, node: Number) -> bool {
    let (mut written, mut at) = (0, 0);
    while written < ENOUGH {
        if let Some(words) = cluster.last_words(node) {
            eprintln!("node-{node} has ended after {written} bytes more: {words}");
            return false;
        }
        match put(cluster, at, LARGE).await {
            Ok(()) => written += LARGE,
            Err(status) if is_full(&status) => {
                eprintln!("a write was refused after {written} bytes more: {}", status.message());
                return true;
            }
            // Another node may know a leader.
            Err(status) => {
                eprintln!("node-{at} does not take a large write: {}", status.message());
                at = (at + 1) % cluster.members.len();
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        cluster.assert_alive();
    }
    eprintln!("{written} bytes were written after its disk was full, and node-{node} still runs");
    false
}

/// Writes `count` large values through `node`, [`AT_ONCE`] of them at a time, and waits for all answers. Some may be refused, or come too late for their
/// client: that is for who counts on them.
pub(crate) async fn many(cluster: &Cluster, node: Number, count: usize) {
    let channel = endpoint(cluster.members[node].settings.client).timeout(PATIENCE).connect_lazy();
    let turns = Arc::new(Semaphore::new(AT_ONCE));
    let mut puts = JoinSet::new();
    for number in 0..count {
        let key = format!("{KEY}-{number}").into();
        let request = PutRequest { key, value: vec![b'f'; LARGE].into(), ..PutRequest::default() };
        let mut client = KvClient::new(channel.clone());
        let turns = Arc::clone(&turns);
        puts.spawn(async move {
            let _turn = turns.acquire().await.expect("it is never closed");
            client.put(request).await.is_ok()
        });
    }
    let answers = puts.join_all().await;
    let taken = answers.iter().filter(|taken| **taken).count();
    eprintln!("{taken} of {count} large values were taken");
    assert!(taken > 0, "none was taken");
}

/// Writes so many bytes through `node`.
pub(crate) async fn put(cluster: &Cluster, node: Number, size: usize) -> Result<(), Status> {
    let endpoint = endpoint(cluster.members[node].settings.client).timeout(PATIENCE);
    let request = PutRequest { key: KEY.into(), value: vec![b'f'; size].into(), ..PutRequest::default() };
    KvClient::new(endpoint.connect_lazy()).put(request).await.map(drop)
}

fn is_full(status: &Status) -> bool {
    status.code() == Code::ResourceExhausted && status.message().contains("space")
}
