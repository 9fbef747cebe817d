//! A cluster that hibernates has no pods. Its volumes, its members, its addresses and its certificates stay, so that it wakes as it was.

use super::repair::loses_its_volume;
use super::{Step, StepKind, Wanted};
use crate::observed::Observed;

/// Whether the pods are to be gone: the spec wants it, and no volume goes with its pod.
pub(super) fn sleeps(wanted: &Wanted, seen: &Observed) -> bool {
    wanted.hibernate && losing(seen).next().is_none()
}

/// What is left to do before the cluster has gone to sleep. A pod whose volume would go with it is mended first, as in a cluster that is awake.
pub(super) fn step(wanted: &Wanted, seen: &Observed) -> Option<Step> {
    let kind = StepKind::Hibernate;
    let left: Vec<_> = seen.pods.keys().map(|&ordinal| seen.pod_name(ordinal)).collect();
    let reason = "spec.hibernate is true: the cluster has no pods";
    (sleeps(wanted, seen) && !left.is_empty())
        .then(|| Step::wait(kind, reason, format!("the pods to end: {}", left.join(", "))))
}

/// What holds the sleep up, where nothing is done about it now.
pub(super) fn held_up(wanted: &Wanted, seen: &Observed) -> Option<Step> {
    let losing: Vec<_> = losing(seen).collect();
    let reason = "spec.hibernate is true, and the volumes of some pods would go with them";
    (wanted.hibernate && !losing.is_empty()).then(|| {
        Step::wait(StepKind::Hibernate, reason, format!("the volumes of {} to be whole", losing.join(", ")))
    })
}

/// The pods whose volume is not there for the next one.
fn losing(seen: &Observed) -> impl Iterator<Item = String> + '_ {
    let losing = seen.pods.keys().copied().filter(move |&ordinal| loses_its_volume(seen, ordinal));
    losing.map(move |ordinal| seen.pod_name(ordinal))
}
