//! Members whose volumes are of no use where they are: each is replaced by a new one with an empty volume, by its cause.
//!
//! It begins with the volume: it is kept aside (`Retain`), and then its claim goes. The rest is what follows whenever a claim goes: its pod ends,
//! the `StatefulSet` makes both anew, the new member learns, and one joint change exchanges the two. One at a time, and only while the others
//! hold the quorum without it: until the claim is gone the data can come back as it was.

use std::collections::BTreeSet;
use std::time::Duration;

use quorate_crds::ReplaceableCause;

use super::repair::{before_deleting, members_of};
use super::{Action, Step, StepKind, Wanted, first_to_act, stays_well};
use crate::duration;
use crate::membership::Ordinal;
use crate::observed::{ClaimState, Leader, Observed};
use crate::trouble::Trouble;

/// A volume whose object has been missing for so long is taken for lost. A control plane that is restored, or storage that is moved, has
/// its volumes back within minutes.
const MISSING_FOR_GOOD: Duration = Duration::from_mins(5);
/// A Kubernetes node whose object is gone for so long is taken for gone: one that was deleted by mistake registers itself again.
const GONE_FOR_GOOD: Duration = Duration::from_mins(1);

/// When members are replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replacement {
    /// Causes that need no patience.
    pub automatic: BTreeSet<ReplaceableCause>,
    /// How long any other has to last; none leaves it to people.
    pub patience: Option<Duration>,
}

impl Replacement {
    /// How long a cause has to last.
    fn patience(&self, cause: ReplaceableCause) -> Option<Duration> {
        let least = match cause {
            ReplaceableCause::VolumeMissing => MISSING_FOR_GOOD,
            ReplaceableCause::VolumeOnGoneNode => GONE_FOR_GOOD,
            _ => Duration::ZERO,
        };
        if self.automatic.contains(&cause) { Some(least) } else { self.patience.map(|long| long.max(least)) }
    }
}

/// The next step towards the replacement of a member whose volume is of no use.
pub(super) fn lost_members(wanted: &Wanted, seen: &Observed, leader: Leader<'_>) -> Option<Step> {
    // Those that leave are not replaced: they leave.
    let stays = |trouble: &&Trouble| trouble.ordinal < wanted.replicas;
    let steps = seen.troubles.iter().filter(stays).filter_map(|trouble| {
        let cause = ReplaceableCause::of(trouble.cause)?;
        let claim = seen.claims.get(&trouble.ordinal).filter(|claim| !claim.terminating)?;
        Some(replace(wanted, seen, leader, Case { trouble, cause, claim }))
    });
    let runs_on = seen.claims.iter().filter_map(|(&ordinal, claim)| runs_on(seen, ordinal, claim));
    first_to_act(steps.chain(runs_on).collect())
}

#[derive(Clone, Copy)]
struct Case<'a> {
    trouble: &'a Trouble,
    cause: ReplaceableCause,
    claim: &'a ClaimState,
}

fn replace(wanted: &Wanted, seen: &Observed, leader: Leader<'_>, case: Case<'_>) -> Step {
    let kind = StepKind::ReplaceMember;
    let Case { trouble: &Trouble { ordinal, ref message, lasting, .. }, cause, claim } = case;
    let pod = seen.pod_name(ordinal);
    let volume = claim.volume.as_deref().unwrap_or("that was never made");
    let reason = format!("{pod} is lost ({}): {message}", cause.cause().as_str());
    let by_hand = format!("delete the claim data-{pod} and the pod, and a new member takes its place");
    let Some(patience) = wanted.replacement.patience(cause) else {
        let until = format!("a person: spec.replacement leaves it to you. To replace it now, {by_hand}");
        return Step::refuse(kind, reason, until);
    };
    if !claim.ours || !claim.is_of(seen.identity) {
        let until =
            format!("a person: nobody has seen whose volume {volume} is. If it is of no use, {by_hand}");
        return Step::refuse(kind, reason, until);
    }
    if before_deleting(wanted, seen, leader, ordinal).is_some() {
        let until = "the other voters to hold the quorum without it: bring its volume back if it can be had";
        return Step::refuse(kind, reason, until);
    }
    if let Some(other) = under_way(wanted, seen, leader, ordinal) {
        let until = format!("{other} to be replaced first: one member goes at a time");
        return Step::wait(kind, reason, until);
    }
    if lasting < patience {
        return Step::wait(kind, reason, format!("it to come back, for {}", duration::text(patience)));
    }
    // There is nothing to keep of a volume whose object is missing.
    let kept = if claim.lost.is_some() { Some(true) } else { claim.retained };
    match (kept, &claim.volume) {
        (Some(false), Some(volume)) => {
            let action = Action::RetainVolume { ordinal, volume: volume.clone(), claim: claim.uid.clone() };
            Step::act(
                kind,
                format!("{reason}; its volume {volume} is to be kept when its claim goes"),
                action,
            )
        }
        (None, Some(volume)) => {
            let until = format!(
                "a person: the operator may not read the PersistentVolume {volume}, and so cannot keep it. Set its \
                 persistentVolumeReclaimPolicy to Retain if its data is needed; then {by_hand}"
            );
            Step::refuse(kind, reason, until)
        }
        _ => {
            let kept =
                if claim.lost.is_some() { String::new() } else { format!("; its volume {volume} is kept") };
            let reason = format!("{reason}{kept}. A new member takes its place");
            Step::act(kind, reason, Action::DeleteClaim { ordinal, uid: claim.uid.clone() })
        }
    }
}

/// A volume whose object is missing under a pod that runs on: nothing is done to it, and it could not start again.
fn runs_on(seen: &Observed, ordinal: Ordinal, claim: &ClaimState) -> Option<Step> {
    let told = seen.troubles.iter().any(|trouble| trouble.ordinal == ordinal);
    let missing = claim.lost.is_some() && claim.ours && !claim.terminating && !told;
    let pod = seen.pods.get(&ordinal).filter(|pod| missing && !pod.terminating)?;
    let volume = claim.volume.as_deref().unwrap_or("without a name");
    let reason = format!("the PersistentVolume {volume} of {} is missing", seen.pod_name(ordinal));
    let until = if pod.pending {
        "it to be seen for a while"
    } else {
        "it to come back: the pod runs on, and could not start again"
    };
    Some(Step::refuse(StepKind::ReplaceMember, reason, until))
}

/// Another pod whose member is being replaced: its claim is going or gone, or the new member has not
/// caught up. One that has may wait for its vote until this one is replaced too.
fn under_way(wanted: &Wanted, seen: &Observed, leader: Leader<'_>, ordinal: Ordinal) -> Option<String> {
    let configuration = leader.configuration();
    let is_new = |other: &Ordinal| {
        let runs = seen.occupant(*other).map(|node| node.member_id);
        let sits =
            configuration.voters.iter().any(|id| configuration.ordinal(&seen.name, *id) == Some(*other));
        sits && runs.is_some_and(|id| !configuration.voters.contains(&id) && !stays_well(seen, leader, id))
    };
    // One that still serves waits for this one.
    let serves = |other: &Ordinal| members_of(seen, leader, *other).any(|id| stays_well(seen, leader, id));
    let goes =
        |other: &Ordinal| seen.claims.get(other).is_some_and(|claim| claim.terminating) && !serves(other);
    let gone = |other: &Ordinal| seen.pods.contains_key(other) && !seen.claims.contains_key(other);
    let mut all = 0..wanted.replicas;
    let other = all.find(|other| *other != ordinal && (is_new(other) || goes(other) || gone(other)))?;
    Some(seen.pod_name(other))
}
