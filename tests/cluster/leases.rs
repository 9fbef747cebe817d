//! Leases while leaders are killed and paused: none ends before its time, counted from when its client asked for what was acknowledged last, and each ends
//! when it is heard of no more.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures::{StreamExt as _, stream};
use quorate_api::etcdserverpb::kv_client::KvClient;
use quorate_api::etcdserverpb::lease_client::LeaseClient;
use quorate_api::etcdserverpb::{
    LeaseGrantRequest, LeaseKeepAliveRequest, LeaseLeasesRequest, PutRequest, RangeRequest,
};
use quorate_tests::clients::endpoint;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tonic::{Code, Status};

use crate::cluster::eventually;
use crate::scenario::Scenario;

/// How long each lives when nothing is heard, in seconds: longer than an election, and than a pause.
const TTL: i64 = 5;

/// How long an answer may take: the node may be paused.
const PATIENCE: Duration = Duration::from_secs(1);

/// Who keeps a lease alive, with a key that hangs on it, through whichever node answers.
struct Holder {
    nodes: Vec<SocketAddr>,
    at: usize,
    key: String,
    /// Of its first lease.
    id: i64,
}

impl Holder {
    /// Holds a lease until it is to stop, and another one when that has ended. How often one was renewed.
    async fn run(mut self, stop: Arc<AtomicBool>) -> usize {
        let (mut id, mut renewed) = (self.id, 0);
        let mut lives_until = self.hold(id).await;
        while !stop.load(Ordering::Relaxed) {
            let asked = Instant::now();
            match self.renew(id).await {
                Ok(0) => {
                    let early = lives_until.saturating_duration_since(Instant::now());
                    assert!(early.is_zero(), "lease {id} has ended {early:?} early");
                    id += 100;
                    lives_until = self.hold(id).await;
                }
                Ok(ttl) => {
                    assert_eq!(ttl, TTL);
                    lives_until = asked + Duration::from_secs(TTL.unsigned_abs());
                    renewed += 1;
                }
                Err(_) => self.at = (self.at + 1) % self.nodes.len(),
            }
            if let Ok(is_there) = self.read().await {
                // The read began before it was answered.
                let is_over = Instant::now() >= lives_until;
                assert!(is_there || is_over, "the key of lease {id} has gone early");
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        renewed
    }

    /// Has a lease granted, and a key hung on it. Until when it lives at least.
    async fn hold(&mut self, id: i64) -> Instant {
        let end = Instant::now() + Duration::from_mins(1);
        loop {
            let asked = Instant::now();
            match self.grant(id).await {
                // It may have been granted before, and the key be put only now.
                Ok(()) => return asked,
                Err(status) => assert!(asked < end, "no lease is granted: {status}"),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn grant(&mut self, id: i64) -> Result<(), Status> {
        self.at = (self.at + 1) % self.nodes.len();
        let channel = endpoint(self.nodes[self.at]).connect_lazy();
        let grant = LeaseClient::new(channel.clone()).lease_grant(LeaseGrantRequest { id, ttl: TTL }).await;
        // It may have been granted when that was tried before.
        if let Some(status) = grant.err().filter(|status| status.code() != Code::FailedPrecondition) {
            return Err(status);
        }
        let put = PutRequest { key: self.key.clone().into(), lease: id, ..PutRequest::default() };
        KvClient::new(channel).put(put).await.map(drop)
    }

    async fn renew(&self, id: i64) -> Result<i64, Status> {
        let late = |_| Status::deadline_exceeded("nothing is told");
        let mut client = LeaseClient::new(endpoint(self.nodes[self.at]).connect_lazy());
        let requests = stream::iter([LeaseKeepAliveRequest { id }]).chain(stream::pending());
        let mut answers =
            timeout(PATIENCE, client.lease_keep_alive(requests)).await.map_err(late)??.into_inner();
        let answer = timeout(PATIENCE, answers.message()).await.map_err(late)??;
        answer.map(|answer| answer.ttl).ok_or_else(|| Status::unavailable("the stream has ended"))
    }

    async fn read(&self) -> Result<bool, Status> {
        let late = |_| Status::deadline_exceeded("nothing is told");
        let mut client = KvClient::new(endpoint(self.nodes[self.at]).connect_lazy());
        let range = RangeRequest { key: self.key.clone().into(), ..RangeRequest::default() };
        let answer = timeout(PATIENCE, client.range(range)).await.map_err(late)??;
        Ok(answer.into_inner().count > 0)
    }
}

#[tokio::test]
async fn no_lease_ends_early_and_each_ends_while_leaders_are_killed() {
    let mut scenario = Scenario::start("no_lease_ends_early_and_each_ends_while_leaders_are_killed").await;
    let (nodes, stop) = (scenario.cluster.clients(), Arc::new(AtomicBool::new(false)));
    let holders: Vec<JoinHandle<usize>> = (0..nodes.len())
        .zip(1000..)
        .map(|(at, id)| {
            let holder = Holder { nodes: nodes.clone(), at, key: format!("held-{at}"), id };
            tokio::spawn(holder.run(Arc::clone(&stop)))
        })
        .collect();
    scenario.trouble_leaders(Scenario::rounds(4)).await;
    stop.store(true, Ordering::Relaxed);
    for holder in holders {
        assert!(holder.await.expect("it ends") > 0, "each was renewed");
    }
    eventually("the end of all leases", async || {
        let channel = endpoint(nodes[0]).connect_lazy();
        let leases = LeaseClient::new(channel.clone()).lease_leases(LeaseLeasesRequest {}).await;
        let leases = leases.map_err(|status| status.to_string())?.into_inner().leases;
        let range =
            RangeRequest { key: "held-".into(), range_end: "held.".into(), ..RangeRequest::default() };
        let kept = KvClient::new(channel).range(range).await.map_err(|status| status.to_string())?;
        let kept = kept.into_inner().kvs;
        if leases.is_empty() && kept.is_empty() { Ok(()) } else { Err(format!("{leases:?} and {kept:?}")) }
    })
    .await;
    scenario.finish().await;
}
