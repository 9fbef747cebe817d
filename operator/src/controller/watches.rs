//! What starts rounds: the watches of one namespace, of some, or of all, and the nodes' streams.

use std::collections::HashMap;
use std::sync::Arc;

use futures::StreamExt;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Service};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::core::NamespaceResourceScope;
use kube::runtime::controller::{self, Config, Controller};
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher;
use kube::{Api, Client, Resource, ResourceExt};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::{Context, Guarded, forget_authorities, on_error, paced};
use crate::resources::{CLUSTER_LABEL, MANAGED};

/// Triggers that wait for the rounds of one namespace.
const TRIGGERS: usize = 256;
/// Clusters that are worked on at once.
const CONCURRENCY: u16 = 16;

/// Runs rounds for the clusters of these namespaces until it is told to end. An empty name means all.
pub async fn run<E>(
    context: Arc<Context>,
    mut triggers: mpsc::Receiver<ObjectRef<Guarded>>,
    namespaces: &[String],
    end: impl Fn() -> E,
) where
    E: Future<Output = ()> + Send + Sync + 'static,
{
    let mut ways = HashMap::new();
    let controllers = namespaces.iter().map(|namespace| {
        let (way, triggers) = mpsc::channel(TRIGGERS);
        ways.insert(namespace.as_str(), way);
        Box::pin(run_in(context.clone(), triggers, namespace, end()))
    });
    let controllers: Vec<_> = controllers.collect();
    let hand_out = async {
        while let Some(cluster) = triggers.recv().await {
            let namespace = cluster.namespace.as_deref().unwrap_or_default();
            if let Some(way) = ways.get(namespace).or_else(|| ways.get("")) {
                // One that has ended needs no triggers.
                let _ = way.send(cluster).await;
            }
        }
        futures::future::pending::<()>().await;
    };
    tokio::select! {
        _ = futures::future::join_all(controllers) => {}
        () = hand_out => {}
    }
}

async fn run_in(
    context: Arc<Context>,
    triggers: mpsc::Receiver<ObjectRef<Guarded>>,
    namespace: &str,
    end: impl Future<Output = ()> + Send + Sync + 'static,
) {
    let client = context.client.clone();
    let ours = watcher::Config::default().labels(MANAGED);
    let controller = Controller::new(api::<Guarded>(&client, namespace), watcher::Config::default());
    context.fleet.find_in(controller.store());
    controller
        .with_config(Config::default().concurrency(CONCURRENCY))
        .owns(api::<StatefulSet>(&client, namespace), ours.clone())
        .owns(api::<Service>(&client, namespace), ours.clone())
        .owns(api::<NetworkPolicy>(&client, namespace), ours.clone())
        .owns(api::<PodDisruptionBudget>(&client, namespace), ours.clone())
        .watches(api::<Pod>(&client, namespace), ours.clone(), |pod| by_label(&pod))
        .watches(api::<PersistentVolumeClaim>(&client, namespace), ours, |claim| by_label(&claim))
        .reconcile_on(ReceiverStream::new(triggers))
        .graceful_shutdown_on(end)
        .run(paced, |object, error, context| on_error(&object, error, &context), context.clone())
        .for_each(|result| {
            // Rounds that failed have been logged with their cluster; what is left are resources that are gone.
            match result {
                Err(controller::Error::ObjectNotFound(gone)) => {
                    context.forget_gone(&gone);
                    tokio::spawn(forget_authorities(context.clone(), *gone));
                }
                Err(error) => tracing::debug!(%error, "a round did not take place"),
                Ok(_) => {}
            }
            futures::future::ready(())
        })
        .await;
}

fn api<K>(client: &Client, namespace: &str) -> Api<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    if namespace.is_empty() { Api::all(client.clone()) } else { Api::namespaced(client.clone(), namespace) }
}

/// Pods and claims belong to the `StatefulSet`; their label names the cluster.
fn by_label<K: Resource>(object: &K) -> Option<ObjectRef<Guarded>> {
    let cluster = object.labels().get(CLUSTER_LABEL)?;
    Some(ObjectRef::new(cluster).within(&object.namespace()?))
}
