//! The way back from a lost quorum, once a person has asked for it: what one member holds becomes a new cluster of one, which grows again.
//!
//! ```text
//! BeginRecovery    the status has the new cluster's ID, and names the volumes that are kept: nothing has changed yet
//!                  no pod is wanted any more; when the last has ended,
//! RunRecovery      a pod makes the member's volume the one member of the new cluster (`raftctl recover`)
//! RetainVolume,    for each other member: its volume is kept, and its claim freed
//!   DeleteClaim
//! FinishRecovery   the status has the new ID in the place of the old one
//! EndRecovery      that pod goes, and the cluster's pods come back
//! ```
//!
//! Each is seen in what it leaves behind, so whoever comes after a crash goes on from there; and each may be done twice: a volume that is of the new
//! cluster already is left as it is. The new ID stands for one volume: with another member there is another ID.

use super::{Action, Step, StepKind, Wanted};
use crate::membership::{MemberId, Ordinal};
use crate::observed::{ClaimState, Observed};

/// What a person asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The cluster that is given up.
    pub cluster: u64,
    /// The pod whose member becomes the new one.
    pub pod: String,
    /// That member.
    pub member: MemberId,
}

/// A recovery that was begun, as the status has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovery {
    /// The cluster that is given up.
    pub from: u64,
    /// The cluster that takes its place.
    pub to: u64,
    /// The pod whose member becomes the new cluster.
    pub ordinal: Ordinal,
    /// That member.
    pub member: MemberId,
    /// The volumes of the others, by pod.
    pub kept: Vec<(String, String)>,
}

/// The pod that makes the new cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveryPod {
    /// Its UID.
    pub uid: String,
    /// The cluster that it makes; 0 if it does not say.
    pub to: u64,
    /// It is being deleted.
    pub terminating: bool,
    /// How far it is.
    pub stage: Stage,
}

/// How far the pod is that makes the new cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It waits, for this if it is known, or runs.
    Runs(Option<String>),
    /// The volume is of the new cluster.
    Succeeded,
    /// It could not: this is what it said.
    Failed(String),
}

/// Whether the cluster's own pods have to be away: until the recovery has ended, and its pod has left the volume. A pod of a recovery
/// that comes when they are back already takes none of them away: it finds the volume in use, or of the new cluster.
pub(super) fn needs_quiet(seen: &Observed) -> bool {
    let away = seen.pods.is_empty() && seen.stateful_set.as_ref().is_none_or(|set| set.replicas == 0);
    under_way(seen).is_some() || (seen.recovery_pod.is_some() && away)
}

/// The recovery that was begun and has not ended.
fn under_way(seen: &Observed) -> Option<&Recovery> {
    seen.recovery.as_ref().filter(|recovery| Some(recovery.from) == seen.identity)
}

/// The next step of a recovery, if one is asked for or under way.
pub(super) fn step(wanted: &Wanted, seen: &Observed, fresh: u64) -> Option<Step> {
    let request = wanted.recover.as_ref().filter(|request| Some(request.cluster) == seen.identity);
    let Some(recovery) = under_way(seen) else {
        let end = || Some(end(seen, "the recovery has ended"));
        return request.map_or_else(
            || seen.recovery_pod.as_ref().and_then(|_| end()),
            |request| Some(begin(seen, request, fresh)),
        );
    };
    let another = request.filter(|request| request.member != recovery.member);
    match another {
        // What was begun with one member says nothing of another.
        Some(_) if seen.recovery_pod.is_some() => Some(end(seen, "another member is to be recovered")),
        Some(request) => Some(begin(seen, request, fresh)),
        None => Some(go_on(seen, recovery)),
    }
}

fn begin(seen: &Observed, request: &Request, fresh: u64) -> Step {
    let kind = StepKind::Recover;
    let Request { cluster, pod, member } = request;
    let reason =
        format!("{pod} (member {member:016x}) is to become a new cluster in the place of {cluster:016x}");
    if let Some((leader, _)) = seen.leadership() {
        let until =
            format!("no leader to be there: {leader} leads, and nothing is lost. Remove spec.recover");
        return Step::refuse(kind, reason, until);
    }
    let Some(ordinal) = ordinal(seen, pod) else {
        return Step::refuse(
            kind,
            reason,
            format!("the name of a pod of this cluster, such as {}", seen.pod_name(0)),
        );
    };
    let Some(claim) = seen.claims.get(&ordinal).filter(|claim| is_usable(claim)) else {
        return Step::refuse(kind, reason, format!("the claim data-{pod} to be there, with its volume"));
    };
    let runs = seen.nodes.get(&ordinal).map(|node| node.member_id);
    let marked = claim.mark.filter(|mark| Some(mark.cluster) == seen.identity).map(|mark| mark.member);
    let recorded = seen.recorded.get(&ordinal).map(|known| known.member);
    match runs.or(marked).or(recorded) {
        Some(held) if held != *member => {
            return Step::refuse(
                kind,
                reason,
                format!("the member {held:016x}, which the volume of {pod} holds"),
            );
        }
        None => return Step::refuse(kind, reason, format!("{pod} to say which member its volume holds")),
        Some(_) => {}
    }
    let others = seen.claims.iter().filter(|(other, claim)| **other != ordinal && claim.is_of(seen.identity));
    let kept = others.filter_map(|(&other, claim)| Some((seen.pod_name(other), claim.volume.clone()?)));
    let recovery = Recovery { from: *cluster, to: fresh, ordinal, member: *member, kept: kept.collect() };
    Step::act(kind, reason, Action::BeginRecovery(recovery))
}

fn is_usable(claim: &ClaimState) -> bool {
    claim.bound && !claim.terminating && claim.lost.is_none()
}

fn ordinal(seen: &Observed, pod: &str) -> Option<Ordinal> {
    crate::membership::ordinal_of(&seen.name, pod)
}

fn go_on(seen: &Observed, recovery: &Recovery) -> Step {
    let kind = StepKind::Recover;
    let pod = seen.pod_name(recovery.ordinal);
    let reason = format!("{pod} becomes the new cluster {:016x}", recovery.to);
    if !seen.pods.is_empty() {
        let pods: Vec<_> = seen.pods.keys().map(|&ordinal| seen.awaited(ordinal)).collect();
        return Step::wait(kind, reason, format!("all pods to end: {}", pods.join(", ")));
    }
    let Some(runner) = &seen.recovery_pod else {
        let Recovery { from, to, ordinal, .. } = *recovery;
        return Step::act(kind, reason, Action::RunRecovery { ordinal, from, to });
    };
    if runner.to != recovery.to || runner.terminating {
        return end(seen, "it is an earlier recovery's");
    }
    match &runner.stage {
        Stage::Runs(None) => {
            Step::wait(kind, reason, format!("raftctl recover, in the pod {}-recover", seen.name))
        }
        Stage::Runs(Some(why)) => {
            Step::wait(kind, reason, format!("the pod {}-recover to start: {why}", seen.name))
        }
        Stage::Failed(said) => {
            let until = format!(
                "another member, or the cause to be mended and the pod {}-recover to be deleted, so that it is tried again: {said}",
                seen.name
            );
            Step::refuse(kind, reason, until)
        }
        Stage::Succeeded => free_others(seen, recovery).unwrap_or_else(|| {
            let reason = format!("{pod} is the new cluster {:016x}, and grows again", recovery.to);
            Step::act(kind, reason, Action::FinishRecovery(recovery.clone()))
        }),
    }
}

/// Frees the claims of the other members, whose volumes stay.
fn free_others(seen: &Observed, recovery: &Recovery) -> Option<Step> {
    let kind = StepKind::Recover;
    let others = |claim: &ClaimState| claim.ours && (claim.terminating || claim.is_of(Some(recovery.from)));
    let (&ordinal, claim) =
        seen.claims.iter().find(|(ordinal, claim)| **ordinal != recovery.ordinal && others(claim))?;
    let pod = seen.pod_name(ordinal);
    let reason = format!("{pod} is of the cluster that is given up");
    if claim.terminating {
        return Some(Step::wait(kind, reason, format!("the claim data-{pod} to be gone")));
    }
    let kept = if claim.lost.is_some() || !claim.bound { Some(true) } else { claim.retained };
    Some(match (kept, &claim.volume) {
        (Some(false), Some(volume)) => {
            let action = Action::RetainVolume { ordinal, volume: volume.clone(), claim: claim.uid.clone() };
            Step::act(kind, format!("{reason}; its volume {volume} is kept"), action)
        }
        (None, Some(volume)) => {
            let until = format!(
                "a person: the operator may not read the PersistentVolume {volume}, and so cannot keep it. Set its \
                 persistentVolumeReclaimPolicy to Retain, and delete the claim data-{pod}"
            );
            Step::refuse(kind, reason, until)
        }
        _ => Step::act(kind, reason, Action::DeleteClaim { ordinal, uid: claim.uid.clone() }),
    })
}

fn end(seen: &Observed, why: &str) -> Step {
    let kind = StepKind::Recover;
    let reason = format!("the pod {}-recover is not needed: {why}", seen.name);
    match &seen.recovery_pod {
        Some(pod) if !pod.terminating => {
            Step::act(kind, reason, Action::EndRecovery { uid: pod.uid.clone() })
        }
        _ => Step::wait(kind, reason, "it to be gone"),
    }
}
