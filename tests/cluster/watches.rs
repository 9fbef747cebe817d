//! Watches while nodes are killed and paused: each tells every change once, in order, whichever node it goes on at.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use futures::{StreamExt as _, stream};
use quorate_api::etcdserverpb::kv_client::KvClient;
use quorate_api::etcdserverpb::watch_client::WatchClient;
use quorate_api::etcdserverpb::watch_request::RequestUnion;
use quorate_api::etcdserverpb::{RangeRequest, WatchCreateRequest, WatchRequest};
use quorate_api::mvccpb::Event;
use quorate_tests::clients::endpoint;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tonic::Status;

use crate::cluster::eventually;
use crate::scenario::Scenario;

/// How long a stream may be silent while clients write: its node may be paused.
const SILENCE: Duration = Duration::from_secs(2);

/// What one watch was told, and where it goes on.
struct Watcher {
    nodes: Vec<SocketAddr>,
    at: usize,
    /// The first revision that it has not been told of.
    next: Arc<AtomicI64>,
    told: Vec<Event>,
}

impl Watcher {
    /// Is told what changes until all up to revision `end` has been, once that is known.
    async fn run(mut self, end: Arc<AtomicI64>) -> Vec<Event> {
        while !self.is_done(&end) {
            if let Err(status) = self.watch(&end).await {
                eprintln!("watch at {} goes on elsewhere: {status}", self.nodes[self.at]);
            }
            self.at = (self.at + 1) % self.nodes.len();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.told
    }

    fn is_done(&self, end: &AtomicI64) -> bool {
        self.next.load(Ordering::Relaxed) > end.load(Ordering::Relaxed)
    }

    /// Watches at one node, from where it is.
    async fn watch(&mut self, end: &AtomicI64) -> Result<(), Status> {
        let create = WatchCreateRequest {
            key: vec![0].into(),
            range_end: vec![0].into(),
            start_revision: self.next.load(Ordering::Relaxed),
            prev_kv: true,
            ..WatchCreateRequest::default()
        };
        let create = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
        // The stream stays open for as long as its requests do.
        let requests = stream::iter([create]).chain(stream::pending());
        let mut client = WatchClient::new(endpoint(self.nodes[self.at]).connect_lazy());
        let silent = |_| Status::deadline_exceeded("nothing is told");
        let mut answers = timeout(SILENCE, client.watch(requests)).await.map_err(silent)??.into_inner();
        while !self.is_done(end) {
            let Some(answer) = timeout(SILENCE, answers.message()).await.map_err(silent)?? else {
                return Ok(());
            };
            assert!(!answer.canceled, "{answer:?}");
            for event in answer.events {
                let revision = event.kv.as_ref().expect("it is about a key").mod_revision;
                assert!(revision >= self.next.load(Ordering::Relaxed), "told once: {event:?}");
                self.told.push(event);
            }
            if let Some(last) = self.told.last().and_then(|event| event.kv.as_ref()) {
                // Revisions are told as a whole.
                self.next.store(last.mod_revision + 1, Ordering::Relaxed);
            }
        }
        Ok(())
    }
}

async fn revision(scenario: &Scenario) -> i64 {
    eventually("a read", async || {
        let mut failed = String::new();
        for address in scenario.cluster.clients() {
            let mut client = KvClient::new(endpoint(address).connect_lazy());
            match client.range(RangeRequest { key: "?".into(), ..RangeRequest::default() }).await {
                Ok(answer) => return Ok(answer.into_inner().header.expect("a header").revision),
                Err(status) => failed = status.to_string(),
            }
        }
        Err(failed)
    })
    .await
}

#[tokio::test]
async fn watches_go_on_at_any_node_while_leaders_are_killed() {
    let mut scenario = Scenario::start("watches_go_on_at_any_node_while_leaders_are_killed").await;
    let (from, end) = (revision(&scenario).await + 1, Arc::new(AtomicI64::new(i64::MAX)));
    let nodes = scenario.cluster.clients();
    let watchers: Vec<(Arc<AtomicI64>, JoinHandle<Vec<Event>>)> = (0..nodes.len())
        .map(|at| {
            let next = Arc::new(AtomicI64::new(from));
            let watcher = Watcher { nodes: nodes.clone(), at, next: Arc::clone(&next), told: Vec::new() };
            (next, tokio::spawn(watcher.run(Arc::clone(&end))))
        })
        .collect();
    scenario.trouble_leaders(Scenario::rounds(4)).await;
    let last = revision(&scenario).await;
    end.store(last, Ordering::Relaxed);
    let mut told = Vec::new();
    for (_, watcher) in watchers {
        let events = timeout(Duration::from_mins(1), watcher).await.expect("all is told").expect("it ends");
        let upto = |event: &Event| event.kv.as_ref().is_some_and(|kv| kv.mod_revision <= last);
        told.push(events.into_iter().filter(upto).collect::<Vec<_>>());
    }
    assert!(!told[0].is_empty());
    // Each revision between is told: every write of these clients changes something.
    let revisions: Vec<i64> =
        told[0].iter().filter_map(|event| Some(event.kv.as_ref()?.mod_revision)).collect();
    assert!(revisions.is_sorted());
    let mut distinct = revisions.clone();
    distinct.dedup();
    assert_eq!(distinct, (from..=last).collect::<Vec<_>>());
    for other in &told[1..] {
        assert_eq!(&told[0], other);
    }
    scenario.finish().await;
}
