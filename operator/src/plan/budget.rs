//! How many pods may go at once, by whose doing ever: the budget for disruptions is the one lock of drains, rollouts and operators.
//!
//! Kubernetes counts the pods that are ready. So the budget says how many of them have to stay: all voters, less those that may be lost,
//! and one more for each pod that is ready and runs no voter. It is raised before more voters are asked for, and lowered after fewer have
//! been seen. While it is not certain who the voters are, every pod stays.

use quorate_crds::Disruptions;

use super::{Action, Wanted, hibernation};
use crate::membership::{Configuration, MemberId, Ordinal, tolerance};
use crate::observed::{Leader, Observed};

/// The budget for disruptions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// The pods that have to stay ready. A pod that is not ready may go only while so many others are.
    pub min_available: u32,
    /// Pods that are not ready may always go.
    pub always_allow: bool,
}

impl Budget {
    /// Whether Kubernetes ends a pod that is asked to go, where so many are ready now.
    pub fn admits(&self, ready: bool, healthy: u32) -> bool {
        if ready { healthy > self.min_available } else { self.always_allow || healthy >= self.min_available }
    }
}

/// The budget for what is seen, and for the change that is asked for next.
pub(super) fn budget(wanted: &Wanted, seen: &Observed, pods: u32, next: Option<&Action>) -> Budget {
    if hibernation::sleeps(wanted, seen) {
        // All pods go: a drain need not wait for them.
        return Budget { min_available: 0, always_allow: true };
    }
    // A configuration that is not committed may be taken back, and the one before may have had fewer voters.
    let certain =
        seen.confirmed_leader().filter(|leader| leader.state.committed && seen.duplicate().is_none());
    let Some(leader) = certain else {
        return Budget { min_available: pods.max(1), always_allow: false };
    };
    let configuration = leader.configuration();
    if allows(wanted, configuration) {
        return Budget { min_available: 0, always_allow: true };
    }
    let asked = match next {
        Some(Action::ChangeMembership { wanted, .. }) => wanted.voters.clone(),
        _ => configuration.voters.clone(),
    };
    let halves = [&configuration.voters, &configuration.outgoing, &asked];
    let spare = halves.iter().filter(|half| !half.is_empty()).map(|half| tolerance(half.len())).min();
    let voters = &(&configuration.voters | &configuration.outgoing) | &asked;
    let others = seen
        .pods
        .iter()
        .filter(|(ordinal, pod)| {
            pod.pod_ready
                && !pod.terminating
                && !runs_voter(seen, leader, **ordinal, |id| voters.contains(&id))
        })
        .count();
    let min = voters.len() - spare.unwrap_or(0) + others;
    Budget { min_available: u32::try_from(min).unwrap_or(u32::MAX), always_allow: false }
}

/// Whether the spec lets pods go with which the quorum goes: that of one voter, or of two.
pub(super) fn allows(wanted: &Wanted, configuration: &Configuration) -> bool {
    wanted.disruptions == Disruptions::Allow && configuration.voters.len() < 3 && !configuration.is_joint()
}

/// The pods that Kubernetes counts as healthy.
pub(super) fn healthy(seen: &Observed) -> u32 {
    let healthy = seen.pods.values().filter(|pod| pod.pod_ready && !pod.terminating).count();
    u32::try_from(healthy).unwrap_or(u32::MAX)
}

/// Whether a pod runs a voter that the leader hears. One that did not answer this time counts by its name.
fn runs_voter(
    seen: &Observed,
    leader: Leader<'_>,
    ordinal: Ordinal,
    votes: impl Fn(MemberId) -> bool,
) -> bool {
    let heard = |id: MemberId| votes(id) && leader.hears(id);
    if let Some(node) = seen.runs(ordinal) {
        return heard(node.member_id);
    }
    let configuration = leader.configuration();
    let named = |id: MemberId| configuration.ordinal(&seen.name, id) == Some(ordinal);
    configuration.ids().into_iter().any(|id| named(id) && heard(id))
}
