//! The template of the pods: the operator's own, with `spec.podTemplate` laid over it as Kubernetes lays a patch over an object.
//!
//! A pod with the node alone has it as an ordinary container. With containers of the user's the node is a native sidecar, the first of
//! the init containers: it has started before any of them begins, and it ends after the last of them.

use k8s_openapi::DeepMerge;
use k8s_openapi::api::core::v1::{
    Affinity, Container, PodAffinityTerm, PodAntiAffinity, PodSecurityContext, PodSpec, PodTemplateSpec,
    SeccompProfile, SecretVolumeSource, TopologySpreadConstraint, Volume, WeightedPodAffinityTerm,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;
use quorate_crds::{PodUsers, RaftCluster};

use super::node::{self, CLIENT_TLS, GRACE_PERIOD_SECONDS, NODE, PEER_TLS};
use super::{Blueprint, labels, pod_selector};
use crate::trust::{Circle, published_name};

/// The user of the image: not root, and without a name.
const USER: i64 = 65532;
/// How long the user's containers have for their end when nothing is said, in seconds: what Kubernetes gives any pod.
const APPLICATION_GRACE_SECONDS: i64 = 30;

pub(super) fn template(blueprint: Blueprint<'_>) -> PodTemplateSpec {
    let cluster = blueprint.cluster;
    let user = &cluster.spec.pod_template;
    let mut all_labels = user.metadata.labels.clone();
    all_labels.extend(labels(cluster));
    let mut annotations = user.metadata.annotations.clone();
    annotations.insert("kubectl.kubernetes.io/default-container".to_owned(), NODE.to_owned());
    PodTemplateSpec {
        metadata: Some(ObjectMeta {
            labels: Some(all_labels),
            annotations: Some(annotations),
            ..ObjectMeta::default()
        }),
        spec: Some(pod(blueprint)),
    }
}

/// Whether the user's containers run beside the node.
pub fn has_company(cluster: &RaftCluster) -> bool {
    cluster.spec.pod_template.spec.containers.iter().any(|container| container.name != NODE)
}

/// How long a pod has for its end, in seconds. The node's share comes after that of the user's containers, which end first. Leadership is handed over at
/// the beginning of it all, beside them; the node does so once more when it is told to stop, as it may have been elected again.
fn grace_period(cluster: &RaftCluster) -> i64 {
    let said = cluster.spec.pod_template.spec.termination_grace_period_seconds;
    if has_company(cluster) {
        said.unwrap_or(APPLICATION_GRACE_SECONDS).max(0).saturating_add(GRACE_PERIOD_SECONDS)
    } else {
        said.unwrap_or_default().max(GRACE_PERIOD_SECONDS)
    }
}

fn pod(blueprint: Blueprint<'_>) -> PodSpec {
    let cluster = blueprint.cluster;
    let mut over = cluster.spec.pod_template.spec.clone();
    let mut node = node::container(blueprint);
    let (for_node, company): (Vec<Container>, _) =
        over.containers.into_iter().partition(|container| container.name == NODE);
    over.containers = company;
    for laid_over in for_node {
        node.merge_from(laid_over);
    }
    let mut pod = own(cluster);
    if over.affinity.is_some() {
        // A preference of the operator's beside a rule of the user's would be nobody's wish.
        pod.affinity = None;
    }
    pod.merge_from(over);
    if has_company(cluster) {
        node.restart_policy = Some("Always".to_owned());
        node.lifecycle = Some(node::hand_over());
        pod.init_containers.get_or_insert_default().insert(0, node);
    } else {
        pod.containers.insert(0, node);
    }
    pod.termination_grace_period_seconds = Some(grace_period(cluster));
    pod
}

/// The pod without its containers.
fn own(cluster: &RaftCluster) -> PodSpec {
    // Where the platform gives each namespace a range of users, a number of ours is refused, and one is chosen where there is none.
    let user = (cluster.spec.users == PodUsers::Image).then_some(USER);
    PodSpec {
        volumes: Some(certificates(cluster)),
        affinity: Some(apart(cluster)),
        image_pull_secrets: Some(cluster.spec.image_pull_secrets.clone()).filter(|all| !all.is_empty()),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        topology_spread_constraints: Some(spread(cluster)),
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            run_as_user: user,
            run_as_group: user,
            fs_group: user,
            // A volume of many files is not walked at every start.
            fs_group_change_policy: Some("OnRootMismatch".to_owned()),
            seccomp_profile: Some(SeccompProfile {
                type_: "RuntimeDefault".to_owned(),
                localhost_profile: None,
            }),
            ..PodSecurityContext::default()
        }),
        ..PodSpec::default()
    }
}

fn certificates(cluster: &RaftCluster) -> Vec<Volume> {
    let volume = |name: &str, circle| Volume {
        name: name.to_owned(),
        secret: Some(SecretVolumeSource {
            secret_name: Some(published_name(circle, &cluster.name_any())),
            default_mode: Some(0o440),
            ..SecretVolumeSource::default()
        }),
        ..Volume::default()
    };
    let clients = cluster.spec.tls.client.as_ref().map(|_| volume(CLIENT_TLS, Circle::Clients));
    std::iter::once(volume(PEER_TLS, Circle::Peers)).chain(clients).collect()
}

/// Evenly over zones, as far as there is room: two zones of three voters hold one and two, not none and three. Hosts are kept apart by the affinity.
fn spread(cluster: &RaftCluster) -> Vec<TopologySpreadConstraint> {
    vec![TopologySpreadConstraint {
        max_skew: 1,
        topology_key: "topology.kubernetes.io/zone".to_owned(),
        when_unsatisfiable: "ScheduleAnyway".to_owned(),
        label_selector: Some(pod_selector(cluster)),
        ..TopologySpreadConstraint::default()
    }]
}

/// Different hosts are preferred strongly, different zones less so. A cluster starts all the same where there are too few.
fn apart(cluster: &RaftCluster) -> Affinity {
    let away_from = |topology: &str, weight| WeightedPodAffinityTerm {
        weight,
        pod_affinity_term: PodAffinityTerm {
            label_selector: Some(pod_selector(cluster)),
            topology_key: topology.to_owned(),
            ..PodAffinityTerm::default()
        },
    };
    Affinity {
        pod_anti_affinity: Some(PodAntiAffinity {
            preferred_during_scheduling_ignored_during_execution: Some(vec![
                away_from("kubernetes.io/hostname", 100),
                away_from("topology.kubernetes.io/zone", 50),
            ]),
            required_during_scheduling_ignored_during_execution: None,
        }),
        ..Affinity::default()
    }
}
