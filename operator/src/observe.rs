//! Looking at one cluster: its objects, and its nodes.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

use futures::future::join_all;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Secret};
use k8s_openapi::jiff::Timestamp;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};
use quorate_crds::RaftCluster;
use serde::de::DeserializeOwned;

use crate::membership::{Ordinal, ordinal_of};
use crate::nodes::{Admin, Target};
use crate::observed::{ClaimState, NodeStatus, Observed, PodState, StatefulSetState};
use crate::pod_state::pod_state;
use crate::resources::certificates::{self, Identity};
use crate::resources::{PEER_PORT, are_ours, pod_host, selector};

/// What was seen, and what is needed to act on it.
#[derive(Debug)]
pub struct Sight {
    /// What was seen.
    pub observed: Observed,
    /// How each pod's node is reached, running or not.
    pub targets: BTreeMap<Ordinal, Target>,
    /// The Secrets that exist.
    pub secrets: Secrets,
}

/// The Secrets of a cluster.
#[derive(Clone, Default)]
pub struct Secrets {
    /// The CA with its key.
    pub ca: Option<Secret>,
    /// The certificate of the nodes.
    pub peers: Option<Secret>,
    /// The operator's own certificate.
    pub admin: Option<Secret>,
}

// What they hold stays out of logs.
impl Debug for Secrets {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Secrets").finish_non_exhaustive()
    }
}

/// Looks at a cluster. Nodes that do not answer are left out; an API server that does not is an error.
pub async fn observe(
    client: &Client,
    admin: &dyn Admin,
    cluster: &RaftCluster,
) -> Result<Sight, kube::Error> {
    let name = cluster.name_any();
    let namespace = cluster.namespace().unwrap_or_default();
    let secret = |name| get::<Secret>(client, &namespace, name);
    let (stateful_set, ca, peers, own) = futures::try_join!(
        get::<StatefulSet>(client, &namespace, name.clone()),
        secret(certificates::ca_secret(&name)),
        secret(certificates::peer_secret(&name)),
        secret(certificates::admin_secret(&name)),
    )?;
    // Pods before claims: a claim is made before its pod, so a pod is never seen without the claim that it has.
    let pods = list::<Pod>(client, &namespace, &ListParams::default().labels(&selector(cluster))).await?;
    // By name, and not by label: the pods use a claim of the right name whoever made it.
    let claims = list::<PersistentVolumeClaim>(client, &namespace, &ListParams::default()).await?;

    let identity = own.as_ref().and_then(|secret| Identity::from_secret(secret).ok()).map(Arc::new);
    let now = Timestamp::now();
    let pods: BTreeMap<_, _> = pods
        .iter()
        .filter_map(|pod| Some((ordinal_of(&name, &pod.name_any())?, pod_state(pod, now))))
        .collect();
    let targets = identity.map(|identity| targets(&name, &namespace, &pods, &identity)).unwrap_or_default();
    let claim_prefix = format!("data-{name}");
    let status = cluster.status.as_ref();
    let observed = Observed {
        identity: status.and_then(|status| u64::from_str_radix(status.cluster_id.as_ref()?, 16).ok()),
        bootstrapped: status.is_some_and(|status| status.bootstrapped),
        stateful_set: stateful_set.as_ref().map(stateful_set_state),
        nodes: ask(admin, &targets).await,
        pods,
        claims: claims
            .iter()
            .filter_map(|claim| {
                Some((ordinal_of(&claim_prefix, &claim.name_any())?, claim_state(cluster, claim)))
            })
            .collect(),
        name,
    };
    Ok(Sight { observed, targets, secrets: Secrets { ca, peers, admin: own } })
}

/// Asks all nodes at once.
async fn ask(admin: &dyn Admin, targets: &BTreeMap<Ordinal, Target>) -> BTreeMap<Ordinal, NodeStatus> {
    let answers = join_all(targets.iter().map(|(&ordinal, target)| async move {
        match admin.status(target).await {
            Ok(status) => Some((ordinal, status)),
            Err(error) => {
                tracing::debug!(%error, "a node did not answer");
                None
            }
        }
    }));
    answers.await.into_iter().flatten().collect()
}

fn targets(
    cluster: &str,
    namespace: &str,
    pods: &BTreeMap<Ordinal, PodState>,
    identity: &Arc<Identity>,
) -> BTreeMap<Ordinal, Target> {
    let target = |(&ordinal, pod): (&Ordinal, &PodState)| {
        let ip = pod.ip.as_ref()?;
        // An IPv6 address needs brackets.
        let address =
            if ip.contains(':') { format!("[{ip}]:{PEER_PORT}") } else { format!("{ip}:{PEER_PORT}") };
        let host = pod_host(cluster, namespace, &format!("{cluster}-{ordinal}"));
        Some((ordinal, Target { address, host, identity: identity.clone() }))
    };
    pods.iter().filter_map(target).collect()
}

async fn get<K>(client: &Client, namespace: &str, name: String) -> Result<Option<K>, kube::Error>
where
    K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
        + Clone
        + DeserializeOwned
        + Debug,
{
    Api::<K>::namespaced(client.clone(), namespace).get_opt(&name).await
}

async fn list<K>(client: &Client, namespace: &str, selected: &ListParams) -> Result<Vec<K>, kube::Error>
where
    K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
        + Clone
        + DeserializeOwned
        + Debug,
{
    Ok(Api::<K>::namespaced(client.clone(), namespace).list(selected).await?.items)
}

/// What matters of a `StatefulSet`.
pub fn stateful_set_state(set: &StatefulSet) -> StatefulSetState {
    let spec = set.spec.as_ref();
    let status = set.status.as_ref();
    let current = status.and_then(|status| status.observed_generation) >= set.metadata.generation;
    let claim = spec.and_then(|spec| spec.volume_claim_templates.as_ref()?.first()).and_then(requested_size);
    StatefulSetState {
        replicas: spec.and_then(|spec| u32::try_from(spec.replicas?).ok()).unwrap_or(1),
        update_revision: status.filter(|_| current).and_then(|status| status.update_revision.clone()),
        claim_size: claim,
    }
}

fn claim_state(cluster: &RaftCluster, claim: &PersistentVolumeClaim) -> ClaimState {
    let phase = claim.status.as_ref().and_then(|status| status.phase.as_deref());
    ClaimState {
        uid: claim.uid().unwrap_or_default(),
        terminating: claim.metadata.deletion_timestamp.is_some(),
        bound: phase == Some("Bound"),
        lost: phase == Some("Lost"),
        ours: are_ours(cluster, claim.labels()),
        size: requested_size(claim),
    }
}

fn requested_size(claim: &PersistentVolumeClaim) -> Option<String> {
    let requests = claim.spec.as_ref()?.resources.as_ref()?.requests.as_ref()?;
    requests.get("storage").map(|quantity| quantity.0.clone())
}
