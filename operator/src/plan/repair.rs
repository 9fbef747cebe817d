//! Pods that cannot run as they are.

use super::budget::{allows, budget, healthy};
use super::{Action, Course, Means, Step, StepKind, Wanted, can_spare, first_to_act, successor};
use crate::membership::{MemberId, Ordinal};
use crate::observed::{Leader, Observed, PodState};

/// Deletes pods that run nothing and would wait for ever. It costs no quorum, and no volume: a claim that is being deleted
/// goes with its pod, so such a pod is left to `terminating_volumes`.
///
/// - A pod that was made while its claim was being deleted waits for a claim that nobody makes again. The `StatefulSet`
///   makes the claim together with the next pod.
/// - A pod of an old template that does not come up would hold up the very change that mends it.
pub(super) fn stuck_pods(wanted: &Wanted, seen: &Observed) -> Option<Step> {
    let unready = seen.pods.iter().filter(|(_, pod)| !pod.terminating && !pod.ready);
    let mut steps = unready.filter_map(|(&ordinal, pod)| {
        let Some(claim) = seen.claims.get(&ordinal) else {
            let why = "its volume claim is gone, and comes back with the next pod";
            return pod.pending.then(|| recreate(wanted, seen, ordinal, pod, why));
        };
        if claim.terminating {
            return None;
        }
        // Also one that is to go later: its member, or its volume, may be waited for first.
        let outdated = ordinal < super::pods(wanted, seen) && super::rollout::is_outdated(seen, pod);
        let runs_nothing = !seen.nodes.contains_key(&ordinal) && !is_heard(seen, ordinal);
        // During an election nobody is heard and nobody is ready: that alone is no trouble of the pod.
        let has_failed = pod.trouble.is_some() || pod.stuck;
        (outdated && runs_nothing && has_failed).then(|| {
            let reason =
                format!("{} does not come up, and its template is not the newest", seen.pod_name(ordinal));
            end_pod(wanted, seen, (ordinal, pod), StepKind::UpdatePod, reason)
        })
    });
    // What cannot be done holds nothing up.
    steps.find(|step| matches!(step.course, Course::Act(_)))
}

fn is_heard(seen: &Observed, ordinal: Ordinal) -> bool {
    seen.leader().is_some_and(|leader| members_of(seen, leader, ordinal).any(|id| leader.hears(id)))
}

/// A claim that is being deleted waits for its pod to end. The pod is ended where the others keep the quorum without it.
pub(super) fn terminating_volumes(wanted: &Wanted, seen: &Observed, leader: Leader<'_>) -> Option<Step> {
    let why = "its volume is being deleted, and goes when the pod has ended";
    let going = seen.pods.iter().filter(|(ordinal, pod)| {
        let going = seen.claims.get(ordinal).is_some_and(|claim| claim.terminating);
        going && !pod.terminating && **ordinal < wanted.replicas
    });
    let steps = going.map(|(&ordinal, pod)| {
        before_deleting(wanted, seen, leader, ordinal)
            .unwrap_or_else(|| recreate(wanted, seen, ordinal, pod, why))
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

/// Says when a pod runs a member that belongs to another pod: volumes have been exchanged, or copied.
pub(super) fn displaced(seen: &Observed) -> Option<Step> {
    let (ordinal, owner) = seen.displaced().next()?;
    let pod = seen.pod_name(ordinal);
    Some(Step::refuse(
        StepKind::ChangeLearners,
        format!(
            "{pod} runs the member of {owner}: their volumes have been exchanged, or one is a copy of the other"
        ),
        format!("{owner} to run it: delete the claim and the pod of {pod}, and a new member takes its place"),
    ))
}

/// The step that has to come before a pod may be deleted, if there is one: others have to be well enough to do without it,
/// and its leadership has to be handed over.
pub(super) fn before_deleting(
    wanted: &Wanted,
    seen: &Observed,
    leader: Leader<'_>,
    ordinal: Ordinal,
) -> Option<Step> {
    let pod = seen.pod_name(ordinal);
    let needed = members_of(seen, leader, ordinal)
        .filter(|id| leader.configuration().voters.contains(id))
        .any(|id| !can_spare(seen, leader, id));
    if needed && allows(wanted, leader.configuration()) && !loses_its_volume(seen, ordinal) {
        // The spec says that an outage may be. Nobody could take the leadership over for it.
        return None;
    }
    if needed {
        let advice = if leader.configuration().voters.len() < 3 {
            "three voters, or spec.disruptions Allow: with fewer voters no pod can go without an outage"
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

/// Whether the pod's volume goes with it.
pub(super) fn loses_its_volume(seen: &Observed, ordinal: Ordinal) -> bool {
    seen.claims.get(&ordinal).is_none_or(|claim| claim.terminating || claim.lost.is_some())
}

/// The members that a pod stands for: the one that it runs, and those that were added for its ordinal.
pub(super) fn members_of<'a>(
    seen: &'a Observed,
    leader: Leader<'a>,
    ordinal: Ordinal,
) -> impl Iterator<Item = MemberId> + 'a {
    let runs = seen.runs(ordinal).map(|node| node.member_id);
    let own = seen.occupant(ordinal).is_some();
    let configuration = leader.configuration();
    let named = configuration
        .ids()
        .into_iter()
        .filter(move |&id| !own && configuration.ordinal(&seen.name, id) == Some(ordinal));
    runs.into_iter().chain(named)
}

/// Ends a pod, or waits until it may go. Whether the budget lets it go is known beforehand: it counts pods that are ready as a whole, and
/// holds one that is not for as long as too few others are. Where that is the doing of what runs beside the members, or the pod runs
/// no voter or nothing at all, the plan's own rules have decided, and it is deleted.
pub(super) fn end_pod(
    wanted: &Wanted,
    seen: &Observed,
    (ordinal, pod): (Ordinal, &PodState),
    kind: StepKind,
    reason: String,
) -> Step {
    let budget = budget(wanted, seen, super::pods(wanted, seen), None);
    let admitted = pod.pending || budget.admits(pod.pod_ready, healthy(seen));
    let serving = seen.pods.values().filter(|pod| pod.ready && !pod.terminating).count();
    let held_by_others = budget.admits(pod.ready, u32::try_from(serving).unwrap_or(u32::MAX));
    let runs_nothing = !pod.ready && !pod.running && !seen.nodes.contains_key(&ordinal);
    let certain = seen.confirmed_leader().filter(|leader| leader.state.committed);
    let votes = |leader: Leader<'_>, id| {
        let configuration = leader.configuration();
        configuration.voters.contains(&id) || configuration.outgoing.contains(&id)
    };
    let is_no_voter =
        certain.is_some_and(|leader| !members_of(seen, leader, ordinal).any(|id| votes(leader, id)));
    let by = match admitted {
        true => Means::Eviction,
        false if held_by_others || runs_nothing || is_no_voter => Means::Deletion,
        false => {
            let until = format!(
                "{} pods to be ready: the disruption budget holds it until then",
                budget.min_available
            );
            return Step::wait(kind, reason, until);
        }
    };
    Step::act(kind, reason, Action::EndPod { ordinal, uid: pod.uid.clone(), by })
}

fn recreate(wanted: &Wanted, seen: &Observed, ordinal: Ordinal, pod: &PodState, why: &str) -> Step {
    let reason = format!("{}: {why}", seen.pod_name(ordinal));
    end_pod(wanted, seen, (ordinal, pod), StepKind::RecreatePod, reason)
}
