//! The level of the cluster's data: it is raised when nobody wants to take an upgrade back any more, and never lowered.

use super::{Action, Step, StepKind, Wanted};
use crate::observed::{Leader, NodeStatus, Observed};

/// What is known of the members' versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// All members run one version, which supports this level, and it is higher than the data's.
    Ready(u32),
    /// They do not, or there is nothing to raise.
    No,
    /// Not all members have answered.
    Unknown,
}

/// Whether the level could be raised, as far as the members' versions are concerned.
pub fn readiness(seen: &Observed) -> Readiness {
    let Some(leader) = seen.confirmed_leader() else { return Readiness::Unknown };
    let configuration = leader.configuration();
    let member = |id| seen.nodes.values().find(|node| node.member_id == id && leader.is_followed_by(node));
    let members: Vec<Option<&NodeStatus>> = configuration.ids().into_iter().map(member).collect();
    let known = || members.iter().flatten();
    if known().any(|node| node.version != leader.status.version) {
        return Readiness::No;
    }
    match known().map(|node| node.newest_level).min().filter(|&newest| newest > leader.status.level) {
        None => Readiness::No,
        Some(_) if members.iter().any(Option::is_none) => Readiness::Unknown,
        Some(newest) => Readiness::Ready(newest),
    }
}

/// Raises the level when all members have run their version for the time that the spec gives, and are well. Until then nothing is said: the cluster
/// is as wanted.
pub(super) fn raise(wanted: &Wanted, seen: &Observed, leader: Leader<'_>) -> Option<Step> {
    let Readiness::Ready(to) = readiness(seen) else { return None };
    let due =
        wanted.finalize_after.is_some_and(|after| seen.raisable_for.is_some_and(|since| since >= after));
    let configuration = leader.configuration();
    let well = configuration.ids().into_iter().all(|id| super::stays_well(seen, leader, id));
    let outdated = seen.pods.values().any(|pod| super::rollout::is_outdated(seen, pod));
    if !due || !well || outdated {
        return None;
    }
    let reason = format!("all members run {}, which cannot be taken back from now on", leader.status.version);
    Some(Step::act(StepKind::RaiseLevel, reason, Action::RaiseLevel { leader: leader.ordinal, to }))
}
