//! Looking closer where a pod has trouble: its Kubernetes node, its volume, and what Kubernetes says of both.
//!
//! A cluster that is well costs no request here. What may not be read, because the operator serves one namespace, stays unknown.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::events::v1::Event;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};

use crate::membership::Ordinal;
use crate::observe::node_container;
use crate::observed::{Exit, Machine, Observed, PodState};

/// The annotation by which the scheduler says where a volume is made.
const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
/// The label by which volumes name the Kubernetes node that they are bound to.
const HOSTNAME: &str = "kubernetes.io/hostname";

/// Looks closer at the pods that do not serve.
pub(crate) async fn look_closer(
    client: &Client,
    namespace: &str,
    claims: &[PersistentVolumeClaim],
    observed: &mut Observed,
) {
    let wanted = observed.stateful_set.as_ref().map_or(0, |set| set.replicas);
    let missing = (0..wanted).any(|ordinal| !observed.pods.contains_key(&ordinal));
    if missing {
        let set = observed.name.clone();
        observed.refused = warning(client, namespace, "StatefulSet", &set, "FailedCreate").await;
    }
    let troubled: Vec<Ordinal> =
        observed.pods.iter().filter(|(_, pod)| !pod.ready && !pod.terminating).map(|(&o, _)| o).collect();
    for ordinal in troubled {
        look_at_volume(client, namespace, claims, ordinal, observed).await;
    }
    let unwell = |pod: &&PodState| !pod.ready;
    let pods = observed.pods.values().filter(unwell).filter_map(|pod| pod.machine.clone());
    let volumes = observed.claims.values().filter_map(|claim| claim.machine.clone());
    let names: BTreeSet<String> = pods.chain(volumes).collect();
    for name in names {
        if let Some(machine) = machine(client, &name).await {
            observed.machines.insert(name, machine);
        }
    }
}

/// Where the volume of a pod that has no Kubernetes node is bound, and what keeps it from being made.
async fn look_at_volume(
    client: &Client,
    namespace: &str,
    claims: &[PersistentVolumeClaim],
    ordinal: Ordinal,
    observed: &mut Observed,
) {
    if !observed.pods.get(&ordinal).is_some_and(|pod| pod.pending) {
        return;
    }
    let Some(state) = observed.claims.get_mut(&ordinal) else { return };
    let Some(claim) = claims.iter().find(|claim| claim.uid().as_ref() == Some(&state.uid)) else { return };
    if let Some(name) = &state.volume
        && let Ok(Some(volume)) = Api::<PersistentVolume>::all(client.clone()).get_opt(name).await
    {
        let policy = volume.spec.as_ref().and_then(|spec| spec.persistent_volume_reclaim_policy.as_deref());
        state.retained = policy == Some("Retain");
        state.machine = bound_to(&volume);
    } else if !state.bound {
        state.machine = claim.annotations().get(SELECTED_NODE).cloned();
        state.warning =
            warning(client, namespace, "PersistentVolumeClaim", &claim.name_any(), "ProvisioningFailed")
                .await;
    }
}

/// The one Kubernetes node that a volume can be used on, if it is one.
fn bound_to(volume: &PersistentVolume) -> Option<String> {
    let required = volume.spec.as_ref()?.node_affinity.as_ref()?.required.as_ref()?;
    let [term] = required.node_selector_terms.as_slice() else { return None };
    let mut names = term.match_expressions.iter().flatten().filter(|found| found.key == HOSTNAME);
    let [name] = names.next()?.values.as_deref()? else { return None };
    Some(name.clone())
}

/// The state of a Kubernetes node; nothing where it may not be read.
async fn machine(client: &Client, name: &str) -> Option<Machine> {
    match Api::<Node>::all(client.clone()).get_opt(name).await {
        Ok(None) => Some(Machine::Gone),
        Ok(Some(node)) => {
            let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
            let ready = conditions.into_iter().any(|found| found.type_ == "Ready" && found.status == "True");
            Some(if ready { Machine::Ready } else { Machine::Away })
        }
        Err(error) => {
            tracing::debug!(node = name, %error, "cannot read a Kubernetes node");
            None
        }
    }
}

/// The newest warning about an object.
async fn warning(client: &Client, namespace: &str, kind: &str, name: &str, reason: &str) -> Option<String> {
    let about = format!("regarding.kind={kind},regarding.name={name},reason={reason}");
    let found =
        Api::<Event>::namespaced(client.clone(), namespace).list(&ListParams::default().fields(&about)).await;
    let events = found.inspect_err(|error| tracing::debug!(%error, "cannot read events")).ok()?.items;
    let time = |event: &Event| {
        let series = event.series.as_ref().map(|series| series.last_observed_time.0);
        let last = event.deprecated_last_timestamp.as_ref().map(|time| time.0);
        series.or(event.event_time.as_ref().map(|time| time.0)).max(last)
    };
    events.into_iter().max_by_key(time)?.note
}

/// How the container of a pod's node ended last.
pub(crate) fn exit(pod: &Pod) -> Option<Exit> {
    let node = node_container(pod)?;
    let now = node.state.as_ref().and_then(|state| state.terminated.as_ref());
    let ended = now.or_else(|| node.last_state.as_ref()?.terminated.as_ref())?;
    Some(Exit { code: ended.exit_code, reason: ended.reason.clone().unwrap_or_default() })
}
