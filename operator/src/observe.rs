//! Looking at one cluster: its objects, and its nodes.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ContainerStatus, PersistentVolumeClaim, Pod, Secret};
use k8s_openapi::jiff::Timestamp;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};
use quorate_crds::{RaftCluster, RaftClusterStatus, ScaleDownPolicy};
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use crate::ages::Look;
use crate::causes;
use crate::membership::{Ordinal, ordinal_of};
use crate::nodes::{Admin, Target};
use crate::observed::{ClaimState, Mark, NodeStatus, Observed, PodState, Recorded, StatefulSetState};
use crate::pod_state::{node, pod_state};
use crate::recovery;
use crate::resources::{self, PEER_PORT, are_ours, connection_secret, pod_host, selector};
use crate::trouble::troubles;
use crate::trust::{Circle, Identity, Secrets, published_name, vault_name};

/// The phase of a claim whose `PersistentVolume` is missing.
pub(crate) const LOST: &str = "Lost";

/// A pod that has not come up after this is not waited for.
const TIME_TO_COME_UP: Duration = Duration::from_mins(2);

/// What was seen, and what is needed to act on it.
#[derive(Debug)]
pub struct Sight {
    /// What was seen.
    pub observed: Observed,
    /// How each pod's node is reached, running or not.
    pub targets: BTreeMap<Ordinal, Target>,
    /// The Secrets that exist.
    pub secrets: Secrets,
    /// When the nodes were asked.
    pub taken: Instant,
}

/// Looks at a cluster, from an operator in the namespace `home`. Nodes that do not answer are left out; an API server that does not is an error.
pub async fn observe(
    client: &Client,
    admin: &dyn Admin,
    cluster: &RaftCluster,
    home: &str,
    mut look: Look<'_>,
) -> Result<Sight, kube::Error> {
    let name = cluster.name_any();
    let namespace = cluster.namespace().unwrap_or_default();
    let (stateful_set, secrets) = futures::try_join!(
        get::<StatefulSet>(client, &namespace, name.clone()),
        Box::pin(secrets(client, cluster, home)),
    )?;
    // Pods before claims: a claim is made before its pod, so a pod is never seen without the claim that it has.
    let pods = list::<Pod>(client, &namespace, &ListParams::default().labels(&selector(cluster))).await?;
    // By name, and not by label: the pods use a claim of the right name whoever made it.
    let claims = list::<PersistentVolumeClaim>(client, &namespace, &ListParams::default()).await?;

    let identity = secrets.identity(Timestamp::now().as_second()).map(Arc::new);
    let pods: BTreeMap<_, _> = pods
        .iter()
        .filter_map(|pod| Some((ordinal_of(&name, &pod.name_any())?, lasting_pod(pod, &mut look))))
        .collect();
    let targets = identity.map(|identity| targets(&name, &namespace, &pods, &identity)).unwrap_or_default();
    let claim_prefix = format!("data-{name}");
    let claim_states = claims
        .iter()
        .filter_map(|claim| {
            let ordinal = ordinal_of(&claim_prefix, &claim.name_any())?;
            Some((ordinal, claim_state(cluster, claim, &mut look)))
        })
        .collect();
    let status = cluster.status.as_ref();
    let mut observed = Observed {
        identity: status.and_then(|status| u64::from_str_radix(status.cluster_id.as_ref()?, 16).ok()),
        bootstrapped: status.is_some_and(|status| status.bootstrapped),
        earlier: earlier(cluster, stateful_set.as_ref(), &secrets),
        recorded: status.map(recorded).unwrap_or_default(),
        stateful_set: stateful_set.as_ref().map(stateful_set_state),
        pods,
        claims: claim_states,
        name,
        ..Observed::default()
    };
    recovery::look(client, cluster, &claims, &mut observed).await?;
    causes::look_closer(client, &namespace, &claims, &mut observed).await;
    let taken = Instant::now();
    observed.take_answers(ask(admin, &targets).await);
    observed.troubles = troubles(&observed, &mut |what| look.lasting(what));
    look.finish();
    for (ordinal, said) in &observed.misplaced {
        let pod = observed.pod_name(*ordinal);
        tracing::warn!(
            pod,
            answered = said,
            "the address of a pod answers as another: its answer is not used"
        );
    }
    Ok(Sight { observed, targets, secrets, taken })
}

/// What is published is read before what the operator keeps for itself: who writes by it writes over what it has seen.
async fn secrets(client: &Client, cluster: &RaftCluster, home: &str) -> Result<Secrets, kube::Error> {
    let name = cluster.name_any();
    let namespace = cluster.namespace().unwrap_or_default();
    let tls = cluster.spec.tls.client.as_ref();
    let there = |secret: Option<String>| {
        let namespace = &namespace;
        async move {
            match secret {
                Some(secret) => get::<Secret>(client, namespace, secret).await,
                None => Ok(None),
            }
        }
    };
    let (peers, clients, given, connection) = futures::try_join!(
        there(Some(published_name(Circle::Peers, &name))),
        there(tls.map(|_| published_name(Circle::Clients, &name))),
        async { readable(there(tls.and_then(|tls| tls.secret_name.clone())).await) },
        there(Some(connection_secret(&name))),
    )?;
    let vault = get::<Secret>(client, home, vault_name(&namespace, &name)).await?;
    Ok(Secrets { vault, peers, clients, given, connection })
}

/// An object that an earlier cluster of this name owns: the garbage collector takes it away, whoever writes to it.
fn earlier(cluster: &RaftCluster, set: Option<&StatefulSet>, secrets: &Secrets) -> Option<String> {
    let set = set.map(|set| (format!("StatefulSet {}", set.name_any()), &set.metadata));
    let secrets = secrets.owned().map(|secret| (format!("Secret {}", secret.name_any()), &secret.metadata));
    set.into_iter()
        .chain(secrets)
        .find(|(_, metadata)| resources::is_of_an_earlier_cluster(cluster, metadata))
        .map(|(shown, _)| shown)
}

fn recorded(status: &RaftClusterStatus) -> BTreeMap<Ordinal, Recorded> {
    let member = |member: &quorate_crds::MemberStatus| {
        let id = u64::from_str_radix(&member.id, 16).ok()?;
        Some((u32::try_from(member.ordinal).ok()?, Recorded { member: id, volume: member.volume.clone() }))
    };
    status.members.iter().filter_map(member).collect()
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

/// A Secret of the user's that the operator has no right to read is as good as missing: the cluster goes on, and its condition names it.
fn readable(found: Result<Option<Secret>, kube::Error>) -> Result<Option<Secret>, kube::Error> {
    match found {
        Err(kube::Error::Api(status)) if status.code == 403 => {
            tracing::warn!(reason = %status.message, "a Secret that a cluster names may not be read");
            Ok(None)
        }
        found => found,
    }
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

/// What matters of a pod. How long it has lasted is counted here: the API server's clock may be away from this one.
fn lasting_pod(pod: &Pod, look: &mut Look<'_>) -> PodState {
    let state = pod_state(pod);
    let container = node_container(pod);
    let runs = |node: &ContainerStatus| node.state.as_ref().is_some_and(|state| state.running.is_some());
    let running = container.map_or(!state.pending, runs);
    // How it ended once says nothing of a node that has run for long since.
    let starts = container.map_or(0, |node| node.restart_count);
    let runs_for_long = running && look.lasting(format!("runs {} {starts}", state.uid)) >= TIME_TO_COME_UP;
    PodState {
        running,
        unscheduled: is_unscheduled(pod),
        machine: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
        exit: causes::exit(pod).filter(|_| !runs_for_long),
        settled: look.lasting(format!("pod {}", state.uid)) >= TIME_TO_COME_UP,
        stuck: !state.ready && look.lasting(format!("unready {}", state.uid)) >= TIME_TO_COME_UP,
        ..state
    }
}

/// The container of the node, among the ordinary ones or among the sidecars.
pub(crate) fn node_container(pod: &Pod) -> Option<&ContainerStatus> {
    pod.status.as_ref().and_then(node)
}

fn is_unscheduled(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|item| item.type_ == "PodScheduled" && item.status == "False")
}

fn claim_state(cluster: &RaftCluster, claim: &PersistentVolumeClaim, look: &mut Look<'_>) -> ClaimState {
    let phase = claim.status.as_ref().and_then(|status| status.phase.as_deref());
    let uid = claim.uid().unwrap_or_default();
    // Both times are the API server's.
    let made = (claim.metadata.creation_timestamp.as_ref(), cluster.metadata.creation_timestamp.as_ref());
    ClaimState {
        terminating: claim.metadata.deletion_timestamp.is_some(),
        bound: phase == Some("Bound"),
        lost: (phase == Some(LOST)).then(|| look.lasting(format!("lost {uid}"))),
        ours: are_ours(cluster, claim.labels()),
        older: matches!(made, (Some(claim), Some(cluster)) if claim.0 < cluster.0),
        size: requested_size(claim),
        volume: claim.spec.as_ref().and_then(|spec| spec.volume_name.clone()),
        mark: mark(claim),
        uid,
        ..ClaimState::default()
    }
}

/// Whose volume the claim says that it stands for.
fn mark(claim: &PersistentVolumeClaim) -> Option<Mark> {
    let number = |key: &str| u64::from_str_radix(claim.annotations().get(key)?, 16).ok();
    Some(Mark {
        cluster: number(resources::CLUSTER_ID_ANNOTATION)?,
        member: number(resources::MEMBER_ID_ANNOTATION)?,
        removed: match claim.annotations().get(resources::REMOVED_ANNOTATION).map(String::as_str) {
            None => None,
            Some("Delete") => Some(ScaleDownPolicy::Delete),
            // Whatever else somebody wrote keeps the volume.
            Some(_) => Some(ScaleDownPolicy::Retain),
        },
    })
}

fn requested_size(claim: &PersistentVolumeClaim) -> Option<String> {
    let requests = claim.spec.as_ref()?.resources.as_ref()?.requests.as_ref()?;
    requests.get("storage").map(|quantity| quantity.0.clone())
}
