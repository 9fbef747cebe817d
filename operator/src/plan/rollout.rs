//! Pods that run an old template are deleted one by one, the leader's last.

use std::cmp::Reverse;

use super::repair::{before_deleting, end_pod};
use super::{Step, StepKind, Wanted};
use crate::membership::Ordinal;
use crate::observed::{Leader, Observed, PodState};

/// Whether a pod is known to be made from another template than the newest.
pub(super) fn is_outdated(seen: &Observed, pod: &PodState) -> bool {
    let newest = seen.stateful_set.as_ref().and_then(|set| set.update_revision.as_ref());
    newest.is_some_and(|newest| pod.revision.as_ref() != Some(newest))
}

/// The next pod to update. A pod goes only while all others are well; one that is broken anyway goes first.
pub(super) fn outdated_pods(wanted: &Wanted, seen: &Observed, leader: Leader<'_>) -> Option<Step> {
    let kind = StepKind::UpdatePod;
    if seen.stateful_set.as_ref().is_none_or(|set| set.update_revision.is_none()) {
        let until = "the StatefulSet's controller to take the newest template up";
        return Some(Step::wait(kind, "the template of the pods may have changed", until));
    }
    let outdated: Vec<Ordinal> = (0..wanted.replicas)
        .filter(|ordinal| {
            seen.pods.get(ordinal).is_some_and(|pod| !pod.terminating && is_outdated(seen, pod))
        })
        .collect();
    if outdated.is_empty() {
        return None;
    }
    let broken: Vec<Ordinal> =
        (0..wanted.replicas).filter(|&ordinal| !is_well(seen, leader, ordinal)).collect();
    if let Some(&waited_for) = broken.iter().find(|ordinal| !outdated.contains(ordinal)) {
        let reason = format!("{} of {} pods are to be replaced, one by one", outdated.len(), wanted.replicas);
        return Some(Step::wait(kind, reason, format!("{} to be well", seen.awaited(waited_for))));
    }
    let candidates = if broken.is_empty() { outdated } else { broken };
    // One that is ready and only behind, or did not answer now, may become well: what does not run goes before it.
    let is_ready = |ordinal: &Ordinal| seen.pods.get(ordinal).is_some_and(|pod| pod.ready);
    let order = |ordinal: &Ordinal| (is_ready(ordinal), *ordinal == leader.ordinal, Reverse(*ordinal));
    let chosen = candidates.into_iter().min_by_key(order)?;
    let pod = seen.pods.get(&chosen)?;
    Some(before_deleting(wanted, seen, leader, chosen).unwrap_or_else(|| {
        let reason = format!("{} does not run the newest template", seen.pod_name(chosen));
        end_pod(wanted, seen, (chosen, pod), kind, reason)
    }))
}

/// Whether a pod is ready and the leader hears of its member, which has caught up.
pub(super) fn is_well(seen: &Observed, leader: Leader<'_>, ordinal: Ordinal) -> bool {
    let ready = seen.pods.get(&ordinal).is_some_and(|pod| pod.ready && !pod.terminating);
    ready && seen.occupant(ordinal).is_some_and(|node| leader.is_well(node.member_id))
}
