//! The nodes' streams start rounds: at every change, and when a stream is lost.

// Whole files of tests may panic, and take values as `json!` makes them.
#![allow(clippy::panic, clippy::needless_pass_by_value, clippy::similar_names)]

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use kube::core::DeserializeGuard;
use kube::runtime::reflector::ObjectRef;
use parking_lot::Mutex;
use quorate_crds::RaftCluster;
use quorate_operator::membership::{Configuration, ConfigurationId, MemberId};
use quorate_operator::nodes::{Admin, AdminError, Statuses, Target};
use quorate_operator::observed::NodeStatus;
use quorate_operator::streams::Streams;
use quorate_operator::trust::Identity;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

const PATIENCE: Duration = Duration::from_secs(30);

/// A node whose statuses the test sends.
#[derive(Default)]
struct Node {
    watches: Mutex<Vec<mpsc::Sender<NodeStatus>>>,
}

fn no_call<'a, T>() -> BoxFuture<'a, Result<T, AdminError>> {
    async { Err(AdminError::Refused { host: String::new(), message: "not in this test".to_owned() }) }.boxed()
}

impl Admin for Node {
    fn status<'a>(&'a self, _: &'a Target) -> BoxFuture<'a, Result<NodeStatus, AdminError>> {
        no_call()
    }

    fn watch<'a>(&'a self, _: &'a Target) -> BoxFuture<'a, Result<Statuses, AdminError>> {
        let (sender, receiver) = mpsc::channel(8);
        self.watches.lock().push(sender);
        async { Ok(ReceiverStream::new(receiver).map(Ok).boxed()) }.boxed()
    }

    fn bootstrap<'a>(&'a self, _: &'a Target, _: u64) -> BoxFuture<'a, Result<(), AdminError>> {
        no_call()
    }

    fn change_membership<'a>(
        &'a self,
        _: &'a Target,
        _: u64,
        _: ConfigurationId,
        _: &'a Configuration,
    ) -> BoxFuture<'a, Result<(), AdminError>> {
        no_call()
    }

    fn transfer<'a>(&'a self, _: &'a Target, _: u64, _: MemberId) -> BoxFuture<'a, Result<(), AdminError>> {
        no_call()
    }

    fn raise_level<'a>(&'a self, _: &'a Target, _: u64, _: u32) -> BoxFuture<'a, Result<(), AdminError>> {
        no_call()
    }

    fn forget(&self, _: &str) {}
}

impl Node {
    /// The sender of the stream number `index`, once it has been opened.
    async fn stream(&self, index: usize) -> mpsc::Sender<NodeStatus> {
        let opened = async {
            loop {
                if let Some(stream) = self.watches.lock().get(index) {
                    return stream.clone();
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, opened).await.expect("the stream is opened")
    }
}

fn target(address: &str) -> Target {
    let identity = Identity { ca: vec![], certificate: vec![], key: vec![] };
    Target { address: address.to_owned(), host: "demo-0".to_owned(), identity: Arc::new(identity) }
}

fn status(term: u64) -> NodeStatus {
    NodeStatus { term, ..NodeStatus::default() }
}

type Triggers = mpsc::Receiver<ObjectRef<DeserializeGuard<RaftCluster>>>;

async fn trigger(triggers: &mut Triggers) {
    let found = tokio::time::timeout(PATIENCE, triggers.recv()).await.expect("a trigger").expect("streams");
    assert_eq!(found.name, "demo");
}

#[tokio::test]
async fn every_change_starts_a_round_and_a_repeat_does_not() {
    let node = Arc::new(Node::default());
    let (streams, mut triggers) = Streams::new(node.clone());
    let cluster = ObjectRef::new("demo").within("ns");
    streams.watch(&cluster, vec![target("10.0.0.1:2380")]);
    let stream = node.stream(0).await;
    for term in [1, 1, 2] {
        stream.send(status(term)).await.expect("the stream is followed");
    }
    trigger(&mut triggers).await;
    trigger(&mut triggers).await;
    drop(stream);
    node.watches.lock().clear();
    trigger(&mut triggers).await; // the stream is lost
    let again = node.stream(0).await;
    again.send(status(2)).await.expect("the stream is followed again");
    trigger(&mut triggers).await;
    assert!(triggers.try_recv().is_err(), "one trigger for each change");
}

#[tokio::test]
async fn a_pod_that_has_moved_is_followed_and_one_that_is_gone_is_not() {
    let node = Arc::new(Node::default());
    let (streams, _triggers) = Streams::new(node.clone());
    let cluster = ObjectRef::new("demo").within("ns");
    streams.watch(&cluster, vec![target("10.0.0.1:2380")]);
    let first = node.stream(0).await;
    streams.watch(&cluster, vec![target("10.0.0.1:2380")]);
    streams.watch(&cluster, vec![target("10.0.0.2:2380")]);
    let second = node.stream(1).await;
    tokio::time::timeout(PATIENCE, first.closed()).await.expect("the old stream ends");
    streams.forget(&cluster);
    tokio::time::timeout(PATIENCE, second.closed()).await.expect("the new stream ends");
    assert_eq!(node.watches.lock().len(), 2, "what has not moved is not opened again");
}
