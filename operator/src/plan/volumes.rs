//! Volumes of members that were scaled away.

use quorate_crds::ScaleDownPolicy;

use super::{Action, Step, StepKind, Wanted};
use crate::observed::Observed;

/// Deletes a claim that no pod uses and no configuration names, once both are gone for good.
pub(super) fn left_over(wanted: &Wanted, seen: &Observed) -> Option<Step> {
    let leader = seen.confirmed_leader()?;
    if wanted.when_scaled == ScaleDownPolicy::Retain {
        return None;
    }
    let pods = seen.stateful_set.as_ref()?.replicas.max(wanted.replicas);
    let configuration = leader.configuration();
    let named = |ordinal| {
        configuration.ids().into_iter().any(|id| configuration.ordinal(&seen.name, id) == Some(ordinal))
    };
    let (&ordinal, claim) = seen.claims.iter().rev().find(|(ordinal, claim)| {
        **ordinal >= pods
            && claim.ours
            && !claim.terminating
            && !seen.pods.contains_key(ordinal)
            && !named(**ordinal)
    })?;
    let reason = format!("the member of {} has been removed", seen.pod_name(ordinal));
    Some(Step::act(StepKind::DeleteVolume, reason, Action::DeleteClaim { ordinal, uid: claim.uid.clone() }))
}
