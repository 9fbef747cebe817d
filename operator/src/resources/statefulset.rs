//! The pods of a cluster and their volumes.
//!
//! Pods start in parallel and are replaced only when the operator deletes them: Kubernetes does not know what a quorum is.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{
    StatefulSet, StatefulSetPersistentVolumeClaimRetentionPolicy, StatefulSetSpec, StatefulSetUpdateStrategy,
};
use k8s_openapi::api::core::v1::{
    Affinity, PersistentVolumeClaim, PersistentVolumeClaimSpec, PodAffinityTerm, PodAntiAffinity,
    PodSecurityContext, PodSpec, PodTemplateSpec, SeccompProfile, SecretVolumeSource, Volume,
    VolumeResourceRequirements, WeightedPodAffinityTerm,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;
use quorate_crds::RaftCluster;

use super::node::{self, DATA, GRACE_PERIOD_SECONDS, PEER_TLS};
use super::{Blueprint, certificates, labels, metadata, peers_service, pod_selector};

/// The user of the image: not root, and without a name.
const USER: i64 = 65532;

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
        containers: vec![node::container(blueprint)],
        volumes: Some(vec![Volume {
            name: PEER_TLS.to_owned(),
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
            user.termination_grace_period_seconds.unwrap_or_default().max(GRACE_PERIOD_SECONDS),
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

/// Nothing said is left out, so that the objects show what people wrote and no more.
fn some<C: Default + PartialEq>(collection: C) -> Option<C> {
    (collection != C::default()).then_some(collection)
}
