//! The pod that makes a new cluster of what one member holds. It is made from the template of the members' pods, so that it may run, and may
//! use the volume, wherever they may.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{PersistentVolumeClaimVolumeSource, Pod, Volume};
use kube::ResourceExt;

use super::node::{self, DATA, DATA_DIRECTORY};
use super::{Blueprint, CLUSTER_ID_ANNOTATION, CLUSTER_LABEL, metadata, pod};

/// Where the image of the node has its client.
const RAFTCTL: &str = "/usr/local/bin/raftctl";

/// Its name.
pub fn recovery_pod_name(cluster: &str) -> String {
    format!("{cluster}-recover")
}

/// The pod that makes the volume of this claim, which is of cluster `from`, the one member of cluster `to`. Run once more, it changes nothing.
pub fn recovery_pod(blueprint: Blueprint<'_>, claim: &str, from: u64, to: u64) -> Pod {
    let name = recovery_pod_name(&blueprint.cluster.name_any());
    let mut metadata = metadata(blueprint.cluster, name);
    // Not the labels of the members' pods: no Service and no budget counts it.
    metadata.labels = Some(BTreeMap::from([
        ("app.kubernetes.io/managed-by".to_owned(), "quorate-operator".to_owned()),
        (CLUSTER_LABEL.to_owned(), blueprint.cluster.name_any()),
    ]));
    metadata
        .annotations
        .get_or_insert_default()
        .insert(CLUSTER_ID_ANNOTATION.to_owned(), format!("{to:016x}"));
    let mut spec = pod::template(blueprint).spec.unwrap_or_default();
    let mut container = node::container(blueprint);
    "recover".clone_into(&mut container.name);
    container.command = Some(vec![RAFTCTL.to_owned()]);
    container.args = Some(vec![
        "recover".to_owned(),
        DATA_DIRECTORY.to_owned(),
        format!("--yes-i-understand={from:016x}"),
        format!("--new-cluster={to:016x}"),
    ]);
    (container.env, container.ports) = (None, None);
    (container.startup_probe, container.liveness_probe, container.readiness_probe) = (None, None, None);
    container.volume_mounts = container.volume_mounts.map(|mut mounts| {
        mounts.retain(|mount| mount.name == DATA);
        mounts
    });
    (spec.containers, spec.init_containers) = (vec![container], None);
    spec.volumes = Some(vec![Volume {
        name: DATA.to_owned(),
        persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
            claim_name: claim.to_owned(),
            read_only: None,
        }),
        ..Volume::default()
    }]);
    spec.restart_policy = Some("Never".to_owned());
    (spec.affinity, spec.topology_spread_constraints) = (None, None);
    Pod { metadata, spec: Some(spec), status: None }
}
