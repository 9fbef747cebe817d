//! The pods of a cluster and their volumes.
//!
//! Pods start in parallel and are replaced only when the operator deletes them: Kubernetes does not know what a quorum is.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{
    StatefulSet, StatefulSetPersistentVolumeClaimRetentionPolicy, StatefulSetSpec, StatefulSetUpdateStrategy,
};
use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, PersistentVolumeClaimSpec, VolumeResourceRequirements,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;

use super::node::DATA;
use super::{Blueprint, metadata, peers_service, pod, pod_selector};

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
            template: pod::template(blueprint),
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
            access_modes: Some(vec![storage.access_mode.as_str().to_owned()]),
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
