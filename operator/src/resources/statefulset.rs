//! The pods of a cluster and their volumes.
//!
//! Pods start in parallel and are replaced only when the operator deletes them: Kubernetes does not know what a quorum is.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{
    StatefulSet, StatefulSetPersistentVolumeClaimRetentionPolicy, StatefulSetSpec, StatefulSetUpdateStrategy,
};
use k8s_openapi::api::core::v1::{
    Affinity, Capabilities, Container, ContainerPort, EnvVar, EnvVarSource, HTTPGetAction,
    ObjectFieldSelector, PersistentVolumeClaim, PersistentVolumeClaimSpec, PodAffinityTerm, PodAntiAffinity,
    PodSecurityContext, PodSpec, PodTemplateSpec, Probe, ResourceRequirements, SeccompProfile,
    SecretVolumeSource, SecurityContext, Volume, VolumeMount, VolumeResourceRequirements,
    WeightedPodAffinityTerm,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt;
use quorate_crds::RaftCluster;

use super::{
    Blueprint, CLIENT_PORT, HTTP_PORT, PEER_PORT, certificates, labels, metadata, peers_service, pod_host,
    pod_selector,
};

/// The volume of a member; its claims are named `data-NAME-N`.
const DATA: &str = "data";
const DATA_DIRECTORY: &str = "/var/lib/quorate";
const CERTIFICATE_DIRECTORY: &str = "/etc/quorate/peer";
/// The user of the image: not root, and without a name.
const USER: i64 = 65532;
/// Long enough to hand the leadership over and to end calls.
const GRACE_PERIOD_SECONDS: i64 = 30;

pub(super) fn build(blueprint: Blueprint<'_>) -> StatefulSet {
    let cluster = blueprint.cluster;
    StatefulSet {
        metadata: metadata(cluster, cluster.name_any()),
        spec: Some(StatefulSetSpec {
            replicas: Some(i32::try_from(blueprint.pods).unwrap_or(i32::MAX)),
            service_name: Some(peers_service(&cluster.name_any())),
            selector: pod_selector(cluster),
            pod_management_policy: Some("Parallel".to_owned()),
            update_strategy: Some(StatefulSetUpdateStrategy {
                type_: Some("OnDelete".to_owned()),
                rolling_update: None,
            }),
            // The operator alone deletes volumes, and only of members that have been removed.
            persistent_volume_claim_retention_policy: Some(StatefulSetPersistentVolumeClaimRetentionPolicy {
                when_deleted: Some("Retain".to_owned()),
                when_scaled: Some("Retain".to_owned()),
            }),
            volume_claim_templates: Some(vec![claim_template(blueprint)]),
            template: template(blueprint),
            ..StatefulSetSpec::default()
        }),
        status: None,
    }
}

fn claim_template(blueprint: Blueprint<'_>) -> PersistentVolumeClaim {
    let storage = &blueprint.cluster.spec.storage;
    let size = blueprint.claim_size.unwrap_or(&storage.size);
    PersistentVolumeClaim {
        metadata: ObjectMeta { name: Some(DATA.to_owned()), ..ObjectMeta::default() },
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: Some(vec!["ReadWriteOnce".to_owned()]),
            storage_class_name: storage.class_name.clone(),
            resources: Some(VolumeResourceRequirements {
                requests: Some(BTreeMap::from([("storage".to_owned(), Quantity(size.to_owned()))])),
                limits: None,
            }),
            ..PersistentVolumeClaimSpec::default()
        }),
        status: None,
    }
}

fn template(blueprint: Blueprint<'_>) -> PodTemplateSpec {
    let cluster = blueprint.cluster;
    let user = &cluster.spec.pod_template;
    let mut all_labels = user.metadata.labels.clone();
    all_labels.extend(labels(cluster));
    let mut annotations = user.metadata.annotations.clone();
    annotations.insert("kubectl.kubernetes.io/default-container".to_owned(), "node".to_owned());
    PodTemplateSpec {
        metadata: Some(ObjectMeta {
            labels: Some(all_labels),
            annotations: Some(annotations),
            ..ObjectMeta::default()
        }),
        spec: Some(pod(blueprint)),
    }
}

fn pod(blueprint: Blueprint<'_>) -> PodSpec {
    let cluster = blueprint.cluster;
    let user = &cluster.spec.pod_template.spec;
    PodSpec {
        containers: vec![container(blueprint)],
        volumes: Some(vec![Volume {
            name: "peer-tls".to_owned(),
            secret: Some(SecretVolumeSource {
                secret_name: Some(certificates::peer_secret(&cluster.name_any())),
                default_mode: Some(0o440),
                ..SecretVolumeSource::default()
            }),
            ..Volume::default()
        }]),
        affinity: Some(user.affinity.clone().unwrap_or_else(|| apart(cluster))),
        node_selector: some(user.node_selector.clone()),
        tolerations: some(user.tolerations.clone()),
        topology_spread_constraints: some(user.topology_spread_constraints.clone()),
        priority_class_name: user.priority_class_name.clone(),
        service_account_name: user.service_account_name.clone(),
        image_pull_secrets: some(cluster.spec.image_pull_secrets.clone()),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        termination_grace_period_seconds: Some(
            user.termination_grace_period_seconds.unwrap_or(GRACE_PERIOD_SECONDS),
        ),
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            run_as_user: Some(USER),
            run_as_group: Some(USER),
            fs_group: Some(USER),
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

fn container(blueprint: Blueprint<'_>) -> Container {
    let cluster = blueprint.cluster;
    Container {
        name: "node".to_owned(),
        image: Some(blueprint.image.to_owned()),
        image_pull_policy: Some(cluster.spec.image_pull_policy.as_str().to_owned()),
        args: Some(arguments(cluster)),
        env: Some(environment(cluster)),
        ports: Some(vec![port("client", CLIENT_PORT), port("peer", PEER_PORT), port("http", HTTP_PORT)]),
        resources: Some(cluster.spec.resources.clone().unwrap_or_else(modest)),
        volume_mounts: Some(vec![
            mount(DATA, DATA_DIRECTORY, false),
            mount("peer-tls", CERTIFICATE_DIRECTORY, true),
        ]),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            read_only_root_filesystem: Some(true),
            run_as_non_root: Some(true),
            capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), add: None }),
            ..SecurityContext::default()
        }),
        // Recovery reads the whole log: it gets ten minutes before anyone calls it stuck.
        startup_probe: Some(probe("/livez", 1, 600)),
        liveness_probe: Some(probe("/livez", 10, 6)),
        readiness_probe: Some(probe("/readyz", 2, 2)),
        ..Container::default()
    }
}

fn arguments(cluster: &RaftCluster) -> Vec<String> {
    let host = pod_host(&cluster.name_any(), &cluster.namespace().unwrap_or_default(), "$(POD_NAME)");
    [
        ("data-dir", DATA_DIRECTORY.to_owned()),
        ("name", "$(POD_NAME)".to_owned()),
        ("listen-client", format!("0.0.0.0:{CLIENT_PORT}")),
        ("listen-peer", format!("0.0.0.0:{PEER_PORT}")),
        ("listen-http", format!("0.0.0.0:{HTTP_PORT}")),
        ("advertise-client", format!("http://{host}:{CLIENT_PORT}")),
        ("advertise-peer", format!("{host}:{PEER_PORT}")),
    ]
    .into_iter()
    .map(|(flag, value)| format!("--{flag}={value}"))
    .collect()
}

/// The node's options that are the operator's business, beside those that it sets.
const NOT_FOR_USERS: [&str; 9] = [
    "QUORATE_DATA_DIR",
    "QUORATE_NAME",
    "QUORATE_LISTEN_CLIENT",
    "QUORATE_LISTEN_PEER",
    "QUORATE_LISTEN_HTTP",
    "QUORATE_ADVERTISE_CLIENT",
    "QUORATE_ADVERTISE_PEER",
    "QUORATE_BOOTSTRAP",
    "QUORATE_JOIN",
];

fn environment(cluster: &RaftCluster) -> Vec<EnvVar> {
    let pod_name = EnvVar {
        name: "POD_NAME".to_owned(),
        value: None,
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector {
                field_path: "metadata.name".to_owned(),
                api_version: None,
            }),
            ..EnvVarSource::default()
        }),
    };
    // Not as arguments: raftctl in the pod reads them too.
    let files = [("PEER_CERT", "tls.crt"), ("PEER_KEY", "tls.key"), ("PEER_CA", "ca.crt")];
    let files = files.map(|(option, file)| EnvVar {
        name: format!("QUORATE_{option}"),
        value: Some(format!("{CERTIFICATE_DIRECTORY}/{file}")),
        value_from: None,
    });
    let mut variables: Vec<_> = std::iter::once(pod_name).chain(files).collect();
    let is_users = |name: &str| {
        !NOT_FOR_USERS.contains(&name) && !variables.iter().any(|variable| variable.name == name)
    };
    let users: Vec<_> =
        cluster.spec.env.iter().filter(|variable| is_users(&variable.name)).cloned().collect();
    variables.extend(users);
    variables
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

fn modest() -> ResourceRequirements {
    let amounts = [("cpu", "100m"), ("memory", "128Mi")];
    let requests = amounts.into_iter().map(|(name, amount)| (name.to_owned(), Quantity(amount.to_owned())));
    ResourceRequirements { requests: Some(requests.collect()), ..ResourceRequirements::default() }
}

fn probe(path: &str, period_seconds: i32, failure_threshold: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::String("http".to_owned()),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period_seconds),
        failure_threshold: Some(failure_threshold),
        // A machine may be busy; a node that is only slow must not be ended.
        timeout_seconds: Some(5),
        ..Probe::default()
    }
}

fn port(name: &str, number: i32) -> ContainerPort {
    ContainerPort {
        name: Some(name.to_owned()),
        container_port: number,
        protocol: Some("TCP".to_owned()),
        ..ContainerPort::default()
    }
}

fn mount(name: &str, path: &str, read_only: bool) -> VolumeMount {
    VolumeMount {
        name: name.to_owned(),
        mount_path: path.to_owned(),
        read_only: read_only.then_some(true),
        ..VolumeMount::default()
    }
}

/// Nothing said is left out, so that the objects show what people wrote and no more.
fn some<C: Default + PartialEq>(collection: C) -> Option<C> {
    (collection != C::default()).then_some(collection)
}
