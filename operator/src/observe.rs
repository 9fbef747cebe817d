//! Looking at one cluster: its objects, and its nodes.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetSpec};
use k8s_openapi::api::core::v1::{ContainerStatus, PersistentVolumeClaim, Pod, Secret};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::jiff::Timestamp;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};
use quorate_crds::{MAX_REPLICAS, RaftCluster, RaftClusterStatus, ScaleDownPolicy};
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use crate::ages::Look;
use crate::ask::ask;
use crate::causes;
use crate::membership::{MemberId, Ordinal, ordinal_of};
use crate::nodes::{Admin, Target};
use crate::observed::{ClaimState, Mark, Observed, PodState, Recorded, StatefulSetState};
use crate::pod_state::{node, pod_state};
use crate::recovery;
use crate::resources::{self, PEER_PORT, are_ours, connection_secret, digest, pod_host, selector};
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

impl Sight {
    /// The nodes whose changes are waited for: the leader, which knows of all others, and one that would know another leader. All, while none
    /// leads.
    pub fn watched(&self) -> Vec<Target> {
        let Some(leader) = self.observed.confirmed_leader() else {
            return self.targets.values().cloned().collect();
        };
        let follows = |ordinal: &Ordinal| {
            let node = self.observed.nodes.get(ordinal);
            *ordinal != leader.ordinal && node.is_some_and(|node| leader.is_followed_by(node))
        };
        let one_more = self.targets.keys().copied().find(follows);
        let watched = std::iter::once(leader.ordinal).chain(one_more);
        watched.filter_map(|ordinal| self.targets.get(&ordinal).cloned()).collect()
    }
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
    let claims = claims(client, &namespace, cluster, stateful_set.as_ref()).await?;

    let now = Timestamp::now();
    let identity = secrets.identity(now.as_second()).map(Arc::new);
    let made: BTreeMap<_, _> =
        pods.iter().filter_map(|pod| Some((ordinal_of(&name, &pod.name_any())?, pod))).collect();
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
            Some((ordinal, claim_state(cluster, claim, made.get(&ordinal).copied(), &mut look)))
        })
        .collect();
    let status = cluster.status.as_ref();
    let mut observed = Observed {
        identity: status.and_then(|status| u64::from_str_radix(status.cluster_id.as_ref()?, 16).ok()),
        bootstrapped: status.is_some_and(|status| status.bootstrapped),
        earlier: earlier(cluster, stateful_set.as_ref(), &secrets),
        recorded: status.map(recorded).unwrap_or_default(),
        raisable_for: status.and_then(|status| raisable_for(status, now)),
        stateful_set: stateful_set.as_ref().map(stateful_set_state),
        pods,
        claims: claim_states,
        name,
        ..Observed::default()
    };
    recovery::look(client, cluster, &claims, &mut observed).await?;
    causes::look_closer(client, &namespace, &claims, &mut observed).await;
    let taken = Instant::now();
    let was_silent = |ordinal: &Ordinal| look.was_seen(&silence(*ordinal));
    let silent = targets.keys().copied().filter(was_silent).collect();
    let answers = ask(admin, &targets, observed.identity, &silent).await;
    for ordinal in targets.keys().filter(|ordinal| !answers.contains_key(*ordinal)) {
        look.lasting(silence(*ordinal));
    }
    observed.take_answers(answers);
    observed.lagging = lagging(&observed, &mut look);
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

/// The claims of a cluster: those that it made by their labels, and by their names what somebody else made for its pods, which use a claim of
/// the right name whoever made it. Others of the namespace are not read.
async fn claims(
    client: &Client,
    namespace: &str,
    cluster: &RaftCluster,
    set: Option<&StatefulSet>,
) -> Result<Vec<PersistentVolumeClaim>, kube::Error> {
    let ours = ListParams::default().labels(&selector(cluster));
    let mut claims = list::<PersistentVolumeClaim>(client, namespace, &ours).await?;
    let known = cluster.status.as_ref().is_some_and(|status| status.cluster_id.is_some());
    let pods = set.and_then(|set| set.spec.as_ref()?.replicas).unwrap_or(0).max(cluster.spec.replicas);
    // Before the cluster has its ID, every volume that there may be counts.
    let names = 0..if known { pods.clamp(0, MAX_REPLICAS) } else { MAX_REPLICAS };
    for name in names.map(|ordinal| format!("data-{}-{ordinal}", cluster.name_any())) {
        if !claims.iter().any(|claim| claim.name_any() == name) {
            claims.extend(get::<PersistentVolumeClaim>(client, namespace, name).await?);
        }
    }
    Ok(claims)
}

/// What a node that does not answer is called among what lasts.
fn silence(ordinal: Ordinal) -> String {
    format!("silent {ordinal}")
}

/// For how long members that the leader hears of have not had all that is committed.
fn lagging(observed: &Observed, look: &mut Look<'_>) -> BTreeMap<MemberId, Duration> {
    let progress = observed.leader().map(|leader| leader.status.progress.clone()).unwrap_or_default();
    let lags = progress.into_iter().filter(|(_, progress)| progress.active && !progress.caught_up);
    lags.map(|(id, _)| (id, look.lasting(format!("lags {id:x}")))).collect()
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

/// By the operator's clock of then and of now: it is about hours.
fn raisable_for(status: &RaftClusterStatus, now: Timestamp) -> Option<Duration> {
    let since = status.level.as_ref()?.raisable_since.as_ref()?;
    Duration::try_from(now.duration_since(since.0)).ok()
}

fn recorded(status: &RaftClusterStatus) -> BTreeMap<Ordinal, Recorded> {
    let member = |member: &quorate_crds::MemberStatus| {
        let id = u64::from_str_radix(&member.id, 16).ok()?;
        Some((u32::try_from(member.ordinal).ok()?, Recorded { member: id, volume: member.volume.clone() }))
    };
    status.members.iter().filter_map(member).collect()
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
        uid: set.uid().unwrap_or_default(),
        terminating: set.metadata.deletion_timestamp.is_some(),
        claim_size: claim,
        image: spec.and_then(image_of_nodes),
        rendered: digest::read(set),
    }
}

/// The node is an ordinary container, or the first of the sidecars.
fn image_of_nodes(spec: &StatefulSetSpec) -> Option<String> {
    let pod = spec.template.spec.as_ref()?;
    let mut containers = pod.containers.iter().chain(pod.init_containers.iter().flatten());
    containers.find(|container| container.name == resources::NODE)?.image.clone()
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

fn claim_state(
    cluster: &RaftCluster,
    claim: &PersistentVolumeClaim,
    pod: Option<&Pod>,
    look: &mut Look<'_>,
) -> ClaimState {
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
        capacity: storage(claim.status.as_ref().and_then(|status| status.capacity.as_ref())),
        infeasible: is_infeasible(claim),
        needs_restart: waits_for_pod(claim, pod, look),
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
    storage(claim.spec.as_ref()?.resources.as_ref()?.requests.as_ref())
}

fn storage(amounts: Option<&BTreeMap<String, Quantity>>) -> Option<String> {
    amounts?.get("storage").map(|quantity| quantity.0.clone())
}

/// Whether the driver has said that it cannot give the size.
fn is_infeasible(claim: &PersistentVolumeClaim) -> bool {
    let statuses = claim.status.as_ref().and_then(|status| status.allocated_resource_statuses.as_ref());
    statuses.is_some_and(|all| all.get("storage").is_some_and(|status| status.ends_with("Infeasible")))
}

/// Whether the file system waits for a start of its pod: a kubelet that can grow it in use has had its time, and this pod has not been started
/// for it yet. Both times are of the control plane.
fn waits_for_pod(claim: &PersistentVolumeClaim, pod: Option<&Pod>, look: &mut Look<'_>) -> bool {
    let conditions = claim.status.as_ref().and_then(|status| status.conditions.as_ref());
    let pending = conditions
        .into_iter()
        .flatten()
        .find(|condition| condition.type_ == "FileSystemResizePending" && condition.status == "True");
    let Some(pending) = pending else { return false };
    let lasting = look.lasting(format!("resize {}", claim.uid().unwrap_or_default()));
    let started = pod.and_then(|pod| pod.metadata.creation_timestamp.as_ref());
    let older = match (started, &pending.last_transition_time) {
        (Some(started), Some(since)) => started.0 < since.0,
        _ => false,
    };
    older && lasting >= TIME_TO_COME_UP
}
