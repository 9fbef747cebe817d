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
        observed.refused = warning(client, namespace, ("StatefulSet", &set), None, &["FailedCreate"]).await;
    }
    let troubled: Vec<Ordinal> =
        observed.pods.iter().filter(|(_, pod)| !pod.ready && !pod.terminating).map(|(&o, _)| o).collect();
    for ordinal in troubled {
        look_at_volume(client, namespace, claims, ordinal, observed).await;
        look_at_mounts(client, namespace, ordinal, observed).await;
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

/// Where the volume of a pod is bound, whether it stays without its claim, and what keeps it from being made.
async fn look_at_volume(
    client: &Client,
    namespace: &str,
    claims: &[PersistentVolumeClaim],
    ordinal: Ordinal,
    observed: &mut Observed,
) {
    let Some(state) = observed.claims.get_mut(&ordinal) else { return };
    let Some(claim) = claims.iter().find(|claim| claim.uid().as_ref() == Some(&state.uid)) else { return };
    if let Some(name) = &state.volume
        && let Ok(Some(volume)) = Api::<PersistentVolume>::all(client.clone()).get_opt(name).await
    {
        let policy = volume.spec.as_ref().and_then(|spec| spec.persistent_volume_reclaim_policy.as_deref());
        state.retained = Some(policy == Some("Retain"));
        state.machine = bound_to(&volume);
    } else if !state.bound {
        state.machine = claim.annotations().get(SELECTED_NODE).cloned();
        let about = ("PersistentVolumeClaim", claim.name_any());
        let uid = Some(state.uid.as_str());
        let said =
            warning(client, namespace, (about.0, &about.1), uid, &["ProvisioningFailed", "FailedBinding"]);
        state.warning = said.await;
    }
}

/// What keeps the volumes of a pod that waits for long on its Kubernetes node from being mounted.
async fn look_at_mounts(client: &Client, namespace: &str, ordinal: Ordinal, observed: &mut Observed) {
    let name = observed.pod_name(ordinal);
    let Some(pod) = observed.pods.get_mut(&ordinal) else { return };
    if !(pod.pending && pod.stuck) || pod.unscheduled || pod.trouble.is_some() {
        return;
    }
    let uid = Some(pod.uid.as_str());
    let reasons = ["FailedAttachVolume", "FailedMount", "FailedMapVolume"];
    pod.unmounted = warning(client, namespace, ("Pod", &name), uid, &reasons).await;
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
pub(crate) async fn machine(client: &Client, name: &str) -> Option<Machine> {
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

/// The newest note about an object with one of these reasons: about this very object where its UID is given, not an earlier one of its name.
async fn warning(
    client: &Client,
    namespace: &str,
    (kind, name): (&str, &str),
    uid: Option<&str>,
    reasons: &[&str],
) -> Option<String> {
    let about = format!("regarding.kind={kind},regarding.name={name}");
    let found =
        Api::<Event>::namespaced(client.clone(), namespace).list(&ListParams::default().fields(&about)).await;
    let events = found.inspect_err(|error| tracing::debug!(%error, "cannot read events")).ok()?.items;
    let time = |event: &Event| {
        let series = event.series.as_ref().map(|series| series.last_observed_time.0);
        let last = event.deprecated_last_timestamp.as_ref().map(|time| time.0);
        series.or(event.event_time.as_ref().map(|time| time.0)).max(last)
    };
    let is_one = |event: &Event| {
        let regarding = event.regarding.as_ref();
        let of_this = |uid| regarding.is_some_and(|about| about.uid.as_deref() == Some(uid));
        uid.is_none_or(of_this) && event.reason.as_deref().is_some_and(|reason| reasons.contains(&reason))
    };
    events.into_iter().filter(is_one).max_by_key(time)?.note
}

/// The longest last words that are passed on, in characters.
const LAST_WORDS: usize = 300;

/// The error that a program of ours ended with: its last line, which begins with its name.
pub(crate) fn last_words(log: &str) -> String {
    let error = |line: &str| {
        let said = line.strip_prefix("quorate-node: ").or_else(|| line.strip_prefix("raftctl: "))?;
        Some(said.chars().take(LAST_WORDS).collect())
    };
    log.lines().rev().find_map(error).unwrap_or_default()
}

/// How the container of a pod's node ended last.
pub(crate) fn exit(pod: &Pod) -> Option<Exit> {
    let node = node_container(pod)?;
    let now = node.state.as_ref().and_then(|state| state.terminated.as_ref());
    let ended = now.or_else(|| node.last_state.as_ref()?.terminated.as_ref())?;
    Some(Exit {
        code: ended.exit_code,
        reason: ended.reason.clone().unwrap_or_default(),
        said: last_words(ended.message.as_deref().unwrap_or_default()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_is_taken_from_the_end_of_the_log() {
        let log = "2026-01-01T00:00:00Z  INFO starts\nquorate-node: segment 7 is damaged\n";
        assert_eq!(last_words(log), "segment 7 is damaged");
        assert_eq!(last_words("{\"level\":\"INFO\"}"), "");
        assert_eq!(
            last_words(&format!("quorate-node: {}", "\u{e9}".repeat(400))).chars().count(),
            LAST_WORDS
        );
    }
}
