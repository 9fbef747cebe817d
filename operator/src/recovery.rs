//! What a round sees and writes of a recovery.

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use kube::{Api, Client, ResourceExt};
use quorate_crds::{KeptVolume, RaftCluster, RaftClusterStatus, RecoveryStatus};

use crate::causes::last_words;
use crate::membership::ordinal_of;
use crate::observed::Observed;
use crate::plan::{Recovery, RecoveryPod, Stage};
use crate::resources::{CLUSTER_ID_ANNOTATION, recovery_pod_name};

/// Looks at the pod of a recovery, and at the volumes that it keeps, where one was asked for or begun.
pub(crate) async fn look(
    client: &Client,
    cluster: &RaftCluster,
    claims: &[PersistentVolumeClaim],
    observed: &mut Observed,
) -> Result<(), kube::Error> {
    let status = cluster.status.as_ref();
    observed.recovery =
        status.and_then(|status| status.recovery.as_ref()).and_then(|begun| of_status(&observed.name, begun));
    if observed.recovery.is_none() && cluster.spec.recover.is_none() {
        return Ok(());
    }
    let namespace = cluster.namespace().unwrap_or_default();
    let pods = Api::<Pod>::namespaced(client.clone(), &namespace);
    observed.recovery_pod = pods.get_opt(&recovery_pod_name(&observed.name)).await?.map(|pod| of_pod(&pod));
    let under_way = observed.recovery.as_ref().is_some_and(|begun| Some(begun.from) == observed.identity);
    for state in observed.claims.values_mut().filter(|_| under_way) {
        let claim = claims.iter().find(|claim| claim.uid().as_ref() == Some(&state.uid));
        let Some(name) = claim.and_then(|claim| claim.spec.as_ref()?.volume_name.clone()) else { continue };
        // What may not be read stays unknown.
        if let Ok(Some(volume)) = Api::<PersistentVolume>::all(client.clone()).get_opt(&name).await {
            let policy = volume.spec.and_then(|spec| spec.persistent_volume_reclaim_policy);
            state.retained = Some(policy.as_deref() == Some("Retain"));
        }
    }
    Ok(())
}

fn of_status(name: &str, begun: &RecoveryStatus) -> Option<Recovery> {
    let id = |text: &str| u64::from_str_radix(text, 16).ok();
    Some(Recovery {
        from: id(&begun.from)?,
        to: id(&begun.cluster_id)?,
        ordinal: ordinal_of(name, &begun.pod)?,
        member: id(&begun.member)?,
        kept: begun.kept.iter().map(|kept| (kept.pod.clone(), kept.volume.clone())).collect(),
    })
}

fn of_pod(pod: &Pod) -> RecoveryPod {
    let status = pod.status.as_ref();
    let container = status.and_then(|status| status.container_statuses.as_ref()?.first());
    let now = container.and_then(|container| container.state.as_ref());
    let stage = match status.and_then(|status| status.phase.as_deref()) {
        Some("Succeeded") => Stage::Succeeded,
        Some("Failed") => {
            let ended = now.and_then(|state| state.terminated.as_ref());
            let said = ended.and_then(|ended| ended.message.as_deref()).map(last_words).unwrap_or_default();
            let reason = status.and_then(|status| status.message.clone()).unwrap_or_default();
            Stage::Failed(if said.is_empty() {
                format!("see its log {reason}").trim().to_owned()
            } else {
                said
            })
        }
        _ => {
            let conditions = status.and_then(|status| status.conditions.as_ref()).into_iter().flatten();
            let unscheduled = conditions
                .filter(|found| found.type_ == "PodScheduled" && found.status == "False")
                .find_map(|found| found.message.clone());
            let waits = now.and_then(|state| state.waiting.as_ref()?.reason.clone());
            Stage::Runs(unscheduled.or(waits).filter(|why| why != "ContainerCreating"))
        }
    };
    let to = pod.annotations().get(CLUSTER_ID_ANNOTATION).and_then(|id| u64::from_str_radix(id, 16).ok());
    RecoveryPod {
        uid: pod.uid().unwrap_or_default(),
        to: to.unwrap_or_default(),
        terminating: pod.metadata.deletion_timestamp.is_some(),
        stage,
    }
}

/// The status in which a recovery has begun.
pub(crate) fn begun(cluster: &RaftCluster, recovery: &Recovery) -> RaftClusterStatus {
    let before = cluster.status.clone().unwrap_or_default();
    let kept = recovery.kept.iter();
    let begun = RecoveryStatus {
        from: format!("{:016x}", recovery.from),
        cluster_id: format!("{:016x}", recovery.to),
        pod: format!("{}-{}", cluster.name_any(), recovery.ordinal),
        member: format!("{:016x}", recovery.member),
        kept: kept.map(|(pod, volume)| KeptVolume { pod: pod.clone(), volume: volume.clone() }).collect(),
    };
    RaftClusterStatus { recovery: Some(begun), ..before }
}

/// The status of the new cluster: nothing that was known of the old one's members is true of it.
pub(crate) fn finished(cluster: &RaftCluster, recovery: &Recovery) -> RaftClusterStatus {
    let before = cluster.status.clone().unwrap_or_default();
    RaftClusterStatus {
        cluster_id: Some(format!("{:016x}", recovery.to)),
        bootstrapped: true,
        members: Vec::new(),
        remains: Vec::new(),
        leader: None,
        ..before
    }
}
