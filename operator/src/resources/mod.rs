//! The objects of a cluster, as they should be: pure functions of the spec and the plan.

pub mod digest;
mod network_policy;
mod node;
mod pdb;
mod pod;
mod recovery;
mod services;
mod statefulset;

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference};
use kube::{Resource, ResourceExt};
use quorate_crds::RaftCluster;

use crate::plan::Budget;
pub use node::{GRACE_PERIOD_SECONDS, NODE};
pub use pod::has_company;
pub use recovery::{recovery_pod, recovery_pod_name};

/// The etcd v3 API.
pub const CLIENT_PORT: i32 = 2379;
/// Raft and the admin service, with mutual TLS.
pub const PEER_PORT: i32 = 2380;
/// Health, metrics and role.
pub const HTTP_PORT: i32 = 2381;

/// The label that names the cluster of an object.
pub const CLUSTER_LABEL: &str = "quorate.dev/cluster";
/// On a pod: what its member is, `leader`, `follower` or `learner`, as far as the operator has heard.
pub const ROLE_LABEL: &str = "quorate.dev/role";
/// On a claim: the cluster whose member its volume holds, in hexadecimal.
pub const CLUSTER_ID_ANNOTATION: &str = "quorate.dev/cluster-id";
/// On a claim: the member that its volume holds, in hexadecimal.
pub const MEMBER_ID_ANNOTATION: &str = "quorate.dev/member-id";
/// On a claim: its member was removed by scaling, and Delete or Retain, as the spec wanted it then.
pub const REMOVED_ANNOTATION: &str = "quorate.dev/removed";
/// Selects everything that this operator looks after.
pub const MANAGED: &str = "app.kubernetes.io/managed-by=quorate-operator";

/// What the objects of a cluster are made from.
#[derive(Clone, Copy, Debug)]
pub struct Blueprint<'a> {
    /// The resource.
    pub cluster: &'a RaftCluster,
    /// The image of the node.
    pub image: &'a str,
    /// The pods of the `StatefulSet`.
    pub pods: u32,
    /// How many pods may go at once.
    pub budget: Budget,
    /// The size in the claim template of the `StatefulSet` that exists: Kubernetes does not let anyone change it.
    pub claim_size: Option<&'a str>,
    /// Where the operator runs.
    pub operator_namespace: &'a str,
}

/// The objects of a cluster, its Secrets excepted.
#[derive(Clone, Debug, PartialEq)]
pub struct Objects {
    /// Names for the members' addresses.
    pub peers: Service,
    /// One address for clients.
    pub client: Service,
    /// The address of the member that leads.
    pub leader: Service,
    /// Who may talk to which port. None where the spec wants none.
    pub network_policy: Option<NetworkPolicy>,
    /// How many pods may be evicted at once.
    pub pdb: PodDisruptionBudget,
    /// The pods and their volumes.
    pub stateful_set: StatefulSet,
}

/// Makes the objects of a cluster.
pub fn objects(blueprint: Blueprint<'_>) -> Objects {
    Objects {
        peers: services::peers(blueprint.cluster),
        client: services::client(blueprint.cluster),
        leader: services::leader(blueprint.cluster),
        network_policy: blueprint
            .cluster
            .spec
            .network_policy
            .enabled
            .then(|| network_policy::build(blueprint)),
        pdb: pdb::build(blueprint),
        stateful_set: statefulset::build(blueprint),
    }
}

/// The name of the Service that gives each pod its DNS name.
pub fn peers_service(cluster: &str) -> String {
    format!("{cluster}-peers")
}

/// The name of the Service for clients.
pub fn client_service(cluster: &str) -> String {
    format!("{cluster}-client")
}

/// The name of the Service of the pod that leads.
pub fn leader_service(cluster: &str) -> String {
    format!("{cluster}-leader")
}

/// The name of the Secret that says how the cluster is reached.
pub fn connection_secret(cluster: &str) -> String {
    format!("{cluster}-connection")
}

/// The DNS name of a pod, as it stands in its certificate.
pub fn pod_host(cluster: &str, namespace: &str, pod: &str) -> String {
    format!("{pod}.{}.{namespace}.svc", peers_service(cluster))
}

/// What users add goes first: the operator's own labels stand.
pub(crate) fn metadata(cluster: &RaftCluster, name: String) -> ObjectMeta {
    let shared = &cluster.spec.metadata;
    ObjectMeta {
        name: Some(name),
        namespace: cluster.namespace(),
        labels: Some(shared.labels.clone().into_iter().chain(labels(cluster)).collect()),
        annotations: Some(shared.annotations.clone()).filter(|annotations| !annotations.is_empty()),
        owner_references: owner(cluster).map(|owner| vec![owner]),
        ..ObjectMeta::default()
    }
}

fn owner(cluster: &RaftCluster) -> Option<OwnerReference> {
    cluster.controller_owner_ref(&())
}

/// The labels of every object of a cluster. They are the selector of its pods, so they never change.
pub fn labels(cluster: &RaftCluster) -> BTreeMap<String, String> {
    let pairs = [
        ("app.kubernetes.io/name", "quorate".to_owned()),
        ("app.kubernetes.io/instance", cluster.name_any()),
        ("app.kubernetes.io/managed-by", "quorate-operator".to_owned()),
        (CLUSTER_LABEL, cluster.name_any()),
    ];
    pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

/// Whether an object with these labels was made for a cluster of this name.
pub fn are_ours(cluster: &RaftCluster, found: &BTreeMap<String, String>) -> bool {
    labels(cluster).iter().all(|(key, value)| found.get(key) == Some(value))
}

/// Whether an object was made for an earlier cluster of this name, and goes with it: another resource is its controller.
pub fn is_of_an_earlier_cluster(cluster: &RaftCluster, metadata: &ObjectMeta) -> bool {
    let controller = metadata.owner_references.iter().flatten().find(|owner| owner.controller == Some(true));
    let another = |owner: &OwnerReference| cluster.uid().is_some_and(|uid| owner.uid != uid);
    let kind = |owner: &OwnerReference| owner.kind == RaftCluster::kind(&());
    controller.is_some_and(|owner| kind(owner) && owner.name == cluster.name_any() && another(owner))
}

/// The selector of a cluster's pods, as text.
pub fn selector(cluster: &RaftCluster) -> String {
    labels(cluster).into_iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}

fn pod_selector(cluster: &RaftCluster) -> LabelSelector {
    LabelSelector { match_labels: Some(labels(cluster)), ..LabelSelector::default() }
}
