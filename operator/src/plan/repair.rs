//! Pods that cannot run as they are.

use super::{Action, Step, StepKind, Wanted, can_spare, first_to_act, successor};
use crate::membership::{MemberId, Ordinal};
use crate::observed::{ClaimState, Leader, Observed, PodState};

/// Deletes pods that run nothing and would wait for ever. It costs no quorum, and no volume: a claim that is being deleted
/// goes with its pod, so such a pod is left to `terminating_volumes`.
///
/// - A pod that was made while its claim was being deleted waits for a claim that nobody makes again. The `StatefulSet`
///   makes the claim together with the next pod.
/// - A pod of an old template that does not come up would hold up the very change that mends it.
pub(super) fn stuck_pods(wanted: &Wanted, seen: &Observed) -> Option<Step> {
    seen.pods.iter().filter(|(_, pod)| !pod.terminating && !pod.ready).find_map(|(&ordinal, pod)| {
        let Some(claim) = seen.claims.get(&ordinal) else {
            let why = "its volume claim is gone, and comes back with the next pod";
            return pod.pending.then(|| recreate(seen, ordinal, pod, why));
        };
        if claim.terminating {
            return None;
        }
        if pod.pending && claim.lost && claim.ours {
            return Some(delete_lost_claim(seen, ordinal, claim));
        }
        let outdated = ordinal < wanted.replicas && super::rollout::is_outdated(seen, pod);
        let runs_nothing = !seen.nodes.contains_key(&ordinal) && !is_heard(seen, ordinal);
        // During an election nobody is heard and nobody is ready: that alone is no trouble of the pod.
        let has_failed = pod.trouble.is_some() || pod.stuck;
        (outdated && runs_nothing && has_failed).then(|| {
            let reason =
                format!("{} does not come up, and its template is not the newest", seen.pod_name(ordinal));
            Step::act(StepKind::UpdatePod, reason, delete_pod(ordinal, pod))
        })
    })
}

fn is_heard(seen: &Observed, ordinal: Ordinal) -> bool {
    seen.leader().is_some_and(|leader| members_of(seen, leader, ordinal).any(|id| leader.hears(id)))
}

/// A lost claim names a volume that does not exist any more. Nothing can be lost with it.
fn delete_lost_claim(seen: &Observed, ordinal: Ordinal, claim: &ClaimState) -> Step {
    let reason = format!("the volume of {} does not exist any more", seen.pod_name(ordinal));
    Step::act(StepKind::DeleteVolume, reason, Action::DeleteClaim { ordinal, uid: claim.uid.clone() })
}

/// A claim that is being deleted waits for its pod to end. The pod is ended where the others keep the quorum without it.
pub(super) fn terminating_volumes(wanted: &Wanted, seen: &Observed, leader: Leader<'_>) -> Option<Step> {
    let why = "its volume is being deleted, and goes when the pod has ended";
    let going = seen.pods.iter().filter(|(ordinal, pod)| {
        let going = seen.claims.get(ordinal).is_some_and(|claim| claim.terminating);
        going && !pod.terminating && **ordinal < wanted.replicas
    });
    let steps = going.map(|(&ordinal, pod)| {
        before_deleting(seen, leader, ordinal).unwrap_or_else(|| recreate(seen, ordinal, pod, why))
    });
    first_to_act(steps.collect())
}

/// Says when a pod holds a volume of another cluster: people have to decide what becomes of it.
pub(super) fn strangers(seen: &Observed) -> Option<Step> {
    let pods: Vec<_> = seen.strangers().map(|ordinal| seen.pod_name(ordinal)).collect();
    (!pods.is_empty()).then(|| {
        let pods = pods.join(", ");
        Step::refuse(
            StepKind::ChangeLearners,
            format!("the volume of {pods} belongs to another cluster"),
            format!("an empty volume: delete the claim of {pods} if its data is not needed"),
        )
    })
}

/// The step that has to come before a pod may be deleted, if there is one: others have to be well enough to do without it,
/// and its leadership has to be handed over.
pub(super) fn before_deleting(seen: &Observed, leader: Leader<'_>, ordinal: Ordinal) -> Option<Step> {
    let pod = seen.pod_name(ordinal);
    let needed = members_of(seen, leader, ordinal)
        .filter(|id| leader.configuration().voters.contains(id))
        .any(|id| !can_spare(seen, leader, id));
    if needed {
        let advice = if leader.configuration().voters.len() < 3 {
            "three voters: with fewer, no pod can go without an outage. Scale up, or delete the pod yourself"
        } else {
            "enough other voters to be well"
        };
        let reason = format!("without {pod} there would be no quorum");
        return Some(Step::refuse(StepKind::RecreatePod, reason, advice));
    }
    if leader.ordinal != ordinal {
        return None;
    }
    let reason = format!("{pod} leads and is to restart");
    Some(match successor(seen, leader, |_| true) {
        Some(target) => {
            let action = Action::TransferLeadership { leader: ordinal, target };
            Step::act(StepKind::TransferLeadership, reason, action)
        }
        None => Step::wait(StepKind::TransferLeadership, reason, "another voter to be well"),
    })
}

/// The members that a pod stands for: the one that it runs, and those that were added for its ordinal.
pub(super) fn members_of<'a>(
    seen: &'a Observed,
    leader: Leader<'a>,
    ordinal: Ordinal,
) -> impl Iterator<Item = MemberId> + 'a {
    let runs = seen.occupant(ordinal).map(|node| node.member_id);
    let configuration = leader.configuration();
    let named = configuration
        .ids()
        .into_iter()
        .filter(move |&id| runs.is_none() && configuration.ordinal(&seen.name, id) == Some(ordinal));
    runs.into_iter().chain(named)
}

pub(super) fn delete_pod(ordinal: Ordinal, pod: &PodState) -> Action {
    Action::DeletePod { ordinal, uid: pod.uid.clone() }
}

fn recreate(seen: &Observed, ordinal: Ordinal, pod: &PodState, why: &str) -> Step {
    let reason = format!("{}: {why}", seen.pod_name(ordinal));
    Step::act(StepKind::RecreatePod, reason, delete_pod(ordinal, pod))
}
