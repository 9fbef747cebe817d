//! Larger volumes, after their claims have been asked for: pods that have to start anew for it, and the `StatefulSet`, which Kubernetes lets nobody
//! change there. It is made again, and its pods are left alone.

use super::repair::{before_deleting, end_pod};
use super::{Action, Step, StepKind, Wanted, first_to_act};
use crate::observed::{Leader, Observed};
use crate::quantity;

/// Ends pods whose file system grows only when they start: one by one, the leader's last, while all others are well.
pub(super) fn restarts(wanted: &Wanted, seen: &Observed, leader: Leader<'_>) -> Option<Step> {
    let waiting = seen.claims.iter().filter(|(_, claim)| claim.needs_restart);
    let mut waiting: Vec<_> = waiting.map(|(&ordinal, _)| ordinal).collect();
    waiting.sort_by_key(|&ordinal| ordinal == leader.ordinal);
    let steps = waiting.into_iter().filter_map(|ordinal| {
        let pod = seen.pods.get(&ordinal).filter(|pod| !pod.terminating)?;
        let others_well = (0..wanted.replicas)
            .filter(|&other| other != ordinal)
            .all(|other| super::rollout::is_well(seen, leader, other));
        let reason = format!("the volume of {} is larger when it starts anew", seen.pod_name(ordinal));
        if !others_well {
            return Some(Step::wait(StepKind::ResizeVolumes, reason, "all other pods to be well"));
        }
        Some(
            before_deleting(wanted, seen, leader, ordinal)
                .unwrap_or_else(|| end_pod(wanted, seen, (ordinal, pod), StepKind::ResizeVolumes, reason)),
        )
    });
    first_to_act(steps.collect())
}

/// Takes the `StatefulSet` away, without its pods, when all volumes that there are have the size that new ones are to have. It is made
/// again in the next round.
pub(super) fn remake(wanted: &Wanted, seen: &Observed) -> Option<Step> {
    let set = seen.stateful_set.as_ref()?;
    let size = |text: &Option<String>| text.as_deref().and_then(quantity::bytes);
    let (of_set, wants) = (size(&set.claim_size)?, wanted.volume_size?);
    let pods = 0..wanted.replicas;
    let grown = |ordinal| seen.claims.get(&ordinal).and_then(|claim| size(&claim.size)) >= Some(wants);
    // The pods are to be there: nobody makes one while the set is away.
    let whole = pods.clone().all(|ordinal| seen.pods.get(&ordinal).is_some_and(|pod| !pod.terminating));
    if of_set == wants
        || seen.keeps_template
        || set.replicas != wanted.replicas
        || !whole
        || !pods.clone().all(grown)
    {
        return None;
    }
    let reason = "new volumes are to have another size, which a StatefulSet cannot change".to_owned();
    Some(Step::act(StepKind::ResizeVolumes, reason, Action::RemakeStatefulSet { uid: set.uid.clone() }))
}

/// While the `StatefulSet` goes, it is waited for.
pub(super) fn going(seen: &Observed) -> Option<Step> {
    seen.stateful_set.as_ref().filter(|set| set.terminating)?;
    let reason = "the StatefulSet is being deleted, and is made again";
    Some(Step::wait(StepKind::ResizeVolumes, reason, "it to be gone"))
}
