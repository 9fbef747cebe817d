//! Whose volume each claim stands for, and which of them go.
//!
//! A claim says whose it is (`Mark`), as the operator has seen it: the name alone says nothing, an earlier cluster may have had it.
//! Scaling deletes only claims that were made in the life of this resource, and only those that never held a member or whose member
//! was seen to be removed while the spec wanted its volume deleted. A volume that was kept from an earlier resource stays: a number
//! of replicas that is mistyped when a cluster is restored costs no copy of the data.

use std::collections::BTreeMap;

use quorate_crds::ScaleDownPolicy;

use super::{Action, Step, StepKind, Wanted};
use crate::membership::Ordinal;
use crate::observed::{ClaimState, Leader, Mark, Observed};

/// What is to be written on claims that do not say so yet.
pub fn marks(wanted: &Wanted, seen: &Observed) -> BTreeMap<Ordinal, Mark> {
    let Some(leader) = certain_leader(seen).filter(|_| seen.duplicate().is_none()) else {
        return BTreeMap::new();
    };
    let mark = |(&ordinal, claim): (&Ordinal, &ClaimState)| {
        let mark = mark(wanted, seen, leader, ordinal, claim)?;
        (claim.ours && !claim.terminating && claim.mark != Some(mark)).then_some((ordinal, mark))
    };
    seen.claims.iter().filter_map(mark).collect()
}

fn mark(
    wanted: &Wanted,
    seen: &Observed,
    leader: Leader<'_>,
    ordinal: Ordinal,
    claim: &ClaimState,
) -> Option<Mark> {
    let cluster = leader.status.cluster_id;
    let configuration = leader.configuration();
    // Of what somebody has put there only people know whether it is needed: scaling leaves it alone, also when nobody sees it any more.
    if let Some(other) = seen.nodes.get(&ordinal).filter(|node| ![0, cluster].contains(&node.cluster_id)) {
        return Some(Mark { cluster: other.cluster_id, member: other.member_id, removed: None });
    }
    if let Some(node) = seen.occupant(ordinal).filter(|node| configuration.contains(node.member_id)) {
        return Some(Mark { cluster, member: node.member_id, removed: None });
    }
    let known = claim.mark.filter(|mark| mark.cluster == cluster && mark.removed.is_none())?;
    let removed = ordinal >= wanted.replicas && !configuration.contains(known.member);
    let policy = if claim.older { ScaleDownPolicy::Retain } else { wanted.when_scaled };
    removed.then_some(Mark { removed: Some(policy), ..known })
}

/// The leader whose configuration is the one that counts, for certain.
fn certain_leader(seen: &Observed) -> Option<Leader<'_>> {
    seen.confirmed_leader().filter(|leader| leader.state.committed && !leader.configuration().is_joint())
}

/// Deletes a claim that no pod uses and no configuration names, once both are gone for good.
pub(super) fn left_over(wanted: &Wanted, seen: &Observed) -> Option<Step> {
    let leader = certain_leader(seen)?;
    let pods = seen.stateful_set.as_ref()?.replicas.max(wanted.replicas);
    let configuration = leader.configuration();
    let named = |ordinal| {
        configuration.ids().into_iter().any(|id| configuration.ordinal(&seen.name, id) == Some(ordinal))
    };
    let goes = |claim: &ClaimState| match claim.mark {
        Some(mark) => {
            mark.cluster == leader.status.cluster_id
                && mark.removed == Some(ScaleDownPolicy::Delete)
                && !configuration.contains(mark.member)
        }
        None => wanted.when_scaled == ScaleDownPolicy::Delete,
    };
    let (&ordinal, claim) = seen.claims.iter().rev().find(|(ordinal, claim)| {
        **ordinal >= pods
            && claim.ours
            && !claim.older
            && !claim.terminating
            && !seen.pods.contains_key(ordinal)
            && !named(**ordinal)
            && goes(claim)
    })?;
    let pod = seen.pod_name(ordinal);
    let reason = match claim.mark {
        Some(_) => format!("the member of {pod} has been removed"),
        None => format!("the volume of {pod} was made for a member that never came"),
    };
    Some(Step::act(StepKind::DeleteVolume, reason, Action::DeleteClaim { ordinal, uid: claim.uid.clone() }))
}
