//! One stream of status changes from every node: who leads reaches the resource's status at once, not by polling.
//!
//! The streams only say that something has changed. The round that follows asks every node for what it knows then.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use kube::runtime::reflector::ObjectRef;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use crate::controller::Guarded;
use crate::nodes::{Admin, Target};

/// Triggers that wait for the controller. When it is full, streams wait: each has one trigger at most on its way.
const TRIGGERS: usize = 256;
const FIRST_RETRY: Duration = Duration::from_millis(200);
const LAST_RETRY: Duration = Duration::from_secs(5);

/// The streams of all clusters.
pub struct Streams {
    admin: Arc<dyn Admin>,
    triggers: mpsc::Sender<ObjectRef<Guarded>>,
    clusters: Mutex<HashMap<ObjectRef<Guarded>, HashMap<String, Stream>>>,
}

struct Stream {
    target: Target,
    task: AbortHandle,
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Streams {
    /// The streams, and where their triggers arrive.
    pub fn new(admin: Arc<dyn Admin>) -> (Self, mpsc::Receiver<ObjectRef<Guarded>>) {
        let (triggers, receiver) = mpsc::channel(TRIGGERS);
        (Self { admin, triggers, clusters: Mutex::default() }, receiver)
    }

    /// Watches these nodes of a cluster, and no others.
    pub fn watch(&self, cluster: &ObjectRef<Guarded>, targets: Vec<Target>) {
        let mut clusters = self.clusters.lock();
        let mut before = clusters.remove(cluster).unwrap_or_default();
        let streams = targets.into_iter().map(|target| {
            let same = |stream: &Stream| {
                stream.target.address == target.address && stream.target.identity == target.identity
            };
            let stream = before.remove(&target.host).filter(same);
            (target.host.clone(), stream.unwrap_or_else(|| self.start(cluster.clone(), target)))
        });
        let streams: HashMap<_, _> = streams.collect();
        if !streams.is_empty() {
            clusters.insert(cluster.clone(), streams);
        }
    }

    /// Begins a round of a cluster, as a change of its nodes does. Where too many triggers wait already, it is left out.
    pub fn wake(&self, cluster: ObjectRef<Guarded>) {
        if self.triggers.try_send(cluster).is_err() {
            tracing::debug!("too many rounds wait already");
        }
    }

    /// Ends the streams of a cluster.
    pub fn forget(&self, cluster: &ObjectRef<Guarded>) {
        self.clusters.lock().remove(cluster);
    }

    fn start(&self, cluster: ObjectRef<Guarded>, target: Target) -> Stream {
        let follow = follow(self.admin.clone(), target.clone(), cluster, self.triggers.clone());
        Stream { target, task: tokio::spawn(follow).abort_handle() }
    }
}

/// Follows one node until it is told to end, through every loss of the connection.
async fn follow(
    admin: Arc<dyn Admin>,
    target: Target,
    cluster: ObjectRef<Guarded>,
    triggers: mpsc::Sender<ObjectRef<Guarded>>,
) {
    let mut retry = FIRST_RETRY;
    loop {
        if let Ok(mut statuses) = admin.watch(&target).await {
            let mut known = None;
            while let Some(Ok(status)) = statuses.next().await {
                retry = FIRST_RETRY;
                if known.as_ref() != Some(&status) {
                    known = Some(status);
                    if triggers.send(cluster.clone()).await.is_err() {
                        return;
                    }
                }
            }
            tracing::debug!(node = target.host, "the stream of status changes has ended");
            if known.is_some() && triggers.send(cluster.clone()).await.is_err() {
                return;
            }
        }
        tokio::time::sleep(retry).await;
        retry = (retry * 2).min(LAST_RETRY);
    }
}
