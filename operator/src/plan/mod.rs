//! What to do next: a pure function of what is wanted and what was seen.
//!
//! A plan is the number of pods, the room for disruptions, and at most one action. It is made anew in every round from
//! observation alone, so that a crash of the operator at any point loses nothing: whoever comes next sees the same world
//! and continues.
//!
//! Two rules stand above all:
//! - A quorum is never given up. Where the next step would, the plan refuses and says why.
//! - A pod, and after it the pod's volume, goes only when no configuration names its member any more.
//!
//! The steps are tried in an order. Before there is a steady leader the first that has something to do, to wait for or to
//! refuse is the plan's step; then the first that can act is, if there is one.

mod budget;
mod growth;
mod hibernation;
mod identity;
mod levels;
mod membership;
mod quorum;
mod recovery;
mod repair;
mod replacement;
mod rollout;
mod volumes;

pub use budget::Budget;
pub use levels::{Readiness, readiness};
pub use recovery::{Recovery, RecoveryPod, Request, Stage};
pub use replacement::Replacement;
pub use volumes::marks;

#[cfg(test)]
mod tests;
#[cfg(test)]
mod world;

use std::time::Duration;

use quorate_crds::{Disruptions, ScaleDownPolicy};

use crate::membership::{Configuration, ConfigurationId, MemberId, Ordinal};
use crate::observed::{ClaimState, Leader, NodeStatus, Observed};

/// What of the spec decides over the steps. Made by `validate`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Voters.
    pub replicas: u32,
    /// What becomes of the volumes of members that were scaled away.
    pub when_scaled: ScaleDownPolicy,
    /// Nothing is to be changed.
    pub paused: bool,
    /// There are to be no pods.
    pub hibernate: bool,
    /// Whether one voter of one or two may go.
    pub disruptions: Disruptions,
    /// When members whose volumes are of no use are replaced.
    pub replacement: Replacement,
    /// A cluster that is to be given up, and made anew of one member.
    pub recover: Option<Request>,
    /// The size of each volume, in bytes.
    pub volume_size: Option<u128>,
    /// How long all members have to run a version before the level of the data is raised to what it supports. None: for ever.
    pub finalize_after: Option<Duration>,
}

/// What is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The pods of the `StatefulSet`.
    pub pods: u32,
    /// How many pods may go at once.
    pub budget: Budget,
    /// The next step; absent when everything is as wanted.
    pub step: Option<Step>,
}

/// A step, told to people in `status.plan`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// What the step does.
    pub kind: StepKind,
    /// Why.
    pub reason: String,
    /// Whether it is done now.
    pub course: Course,
}

/// Whether a step is done now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Course {
    /// Do it now.
    Act(Action),
    /// It waits for this.
    Wait(String),
    /// It would cost the quorum, or lose data. Nothing is done until this has changed.
    Refuse(String),
}

/// What a step does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepKind {
    /// Waits until two processes do not run as one member any more.
    ResolveDuplicate,
    /// Makes a new cluster of what one member holds, because a person has asked for it.
    Recover,
    /// Gives the cluster its ID.
    ChooseIdentity,
    /// Makes the first node a cluster of one.
    Bootstrap,
    /// Waits until a leader is elected.
    ElectLeader,
    /// Waits until a change of membership is finished.
    FinishChange,
    /// Adds new members without a vote, and removes such that are not needed.
    ChangeLearners,
    /// Changes the voters in one joint change.
    ChangeVoters,
    /// Hands the leadership over, because the leader's pod is to go.
    TransferLeadership,
    /// Deletes a pod that cannot run as it is.
    RecreatePod,
    /// Deletes a pod so that it comes back from the newest template.
    UpdatePod,
    /// Keeps the volume of a member aside that is lost, and frees its claim for a new member.
    ReplaceMember,
    /// Deletes the volume of a member that has been removed.
    DeleteVolume,
    /// Waits until the pods of a cluster that hibernates are gone.
    Hibernate,
    /// Makes volumes larger, and has new ones made so.
    ResizeVolumes,
    /// Raises the level of the data: older versions cannot read it from then on.
    RaiseLevel,
}

/// One action on the world.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Write this ID to the status, before anything else is done.
    SetIdentity {
        /// The cluster's ID.
        id: u64,
        /// The volumes hold a cluster of this ID: it has been founded, and is not founded again.
        founded: bool,
    },
    /// Tell a node to found the cluster.
    Bootstrap {
        /// The node's pod.
        ordinal: Ordinal,
        /// The cluster's ID.
        cluster_id: u64,
    },
    /// Ask the leader for another configuration.
    ChangeMembership {
        /// The leader's pod.
        leader: Ordinal,
        /// The configuration that the change starts from.
        expected: ConfigurationId,
        /// The configuration wanted.
        wanted: Configuration,
    },
    /// Ask the leader to hand over.
    TransferLeadership {
        /// The leader's pod.
        leader: Ordinal,
        /// Who is to lead.
        target: MemberId,
    },
    /// Delete the `StatefulSet`, and leave its pods alone. The next round makes it again.
    RemakeStatefulSet {
        /// Its UID.
        uid: String,
    },
    /// Ask the leader to raise the level of the data.
    RaiseLevel {
        /// The leader's pod.
        leader: Ordinal,
        /// The level.
        to: u32,
    },
    /// End a pod.
    EndPod {
        /// Its ordinal.
        ordinal: Ordinal,
        /// Its UID.
        uid: String,
        /// How.
        by: Means,
    },
    /// Have a volume stay when its claim is deleted.
    RetainVolume {
        /// The ordinal of its claim.
        ordinal: Ordinal,
        /// The `PersistentVolume`.
        volume: String,
        /// The UID of the claim that it is bound to.
        claim: String,
    },
    /// Write to the status that a recovery begins, before anything else is done.
    BeginRecovery(Recovery),
    /// Make the pod that makes a member's volume a new cluster.
    RunRecovery {
        /// The ordinal of the member's claim.
        ordinal: Ordinal,
        /// The cluster that is given up.
        from: u64,
        /// The cluster that it becomes.
        to: u64,
    },
    /// Write the new cluster's ID to the status, in the place of the old one.
    FinishRecovery(Recovery),
    /// Take that pod away.
    EndRecovery {
        /// Its UID.
        uid: String,
    },
    /// Delete a volume claim.
    DeleteClaim {
        /// Its ordinal.
        ordinal: Ordinal,
        /// Its UID.
        uid: String,
    },
}

/// How a pod is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Means {
    /// It is asked to go, as by a drain: the budget decides, and counts whatever else goes at the same time.
    Eviction,
    /// It is deleted. Only where the budget would hold a pod that nobody needs: it counts whole pods, and a member may serve, or be in
    /// nobody's way, in one that is not ready.
    Deletion,
}

impl Plan {
    /// What is done now.
    pub fn action(&self) -> Option<&Action> {
        self.step.as_ref().and_then(Step::action)
    }
}

impl Step {
    fn action(&self) -> Option<&Action> {
        match &self.course {
            Course::Act(action) => Some(action),
            Course::Wait(_) | Course::Refuse(_) => None,
        }
    }

    fn act(kind: StepKind, reason: impl Into<String>, action: Action) -> Self {
        Self { kind, reason: reason.into(), course: Course::Act(action) }
    }

    fn wait(kind: StepKind, reason: impl Into<String>, for_what: impl Into<String>) -> Self {
        Self { kind, reason: reason.into(), course: Course::Wait(for_what.into()) }
    }

    fn refuse(kind: StepKind, reason: impl Into<String>, until: impl Into<String>) -> Self {
        Self { kind, reason: reason.into(), course: Course::Refuse(until.into()) }
    }
}

/// Plans the next step. `fresh` is a random ID, used when the cluster has none.
pub fn plan(wanted: &Wanted, seen: &Observed, fresh: u64) -> Plan {
    let step = if wanted.paused { None } else { next(wanted, seen, fresh) };
    let pods = pods(wanted, seen);
    let action = step.as_ref().and_then(Step::action);
    Plan { pods, budget: budget::budget(wanted, seen, pods, action), step }
}

fn next(wanted: &Wanted, seen: &Observed, fresh: u64) -> Option<Step> {
    let pods = pods(wanted, seen);
    let early = identity::earlier(seen)
        .or_else(|| growth::going(seen))
        .or_else(|| recovery::step(wanted, seen, fresh));
    if hibernation::sleeps(wanted, seen) {
        return early.or_else(|| hibernation::step(wanted, seen));
    }
    early
        .or_else(|| identity::duplicates(seen))
        // A pod that waits for ever would otherwise be waited for.
        .or_else(|| repair::stuck_pods(wanted, seen))
        .or_else(|| identity::choose(pods, seen, fresh))
        .or_else(|| identity::bootstrap(seen))
        .or_else(|| {
            let leader = match membership::steady_leader(seen) {
                Ok(leader) => leader,
                Err(step) => return Some(*step),
            };
            let steps = [
                repair::terminating_volumes(wanted, seen, leader),
                replacement::lost_members(wanted, seen, leader),
                membership::change(wanted, seen, leader),
                rollout::outdated_pods(wanted, seen, leader),
                growth::restarts(wanted, seen, leader),
                growth::remake(wanted, seen),
                volumes::left_over(wanted, seen),
                membership::missing(wanted, seen, leader),
                repair::strangers(seen),
                repair::displaced(seen),
                levels::raise(wanted, seen, leader),
                hibernation::held_up(wanted, seen),
            ];
            first_to_act(steps.into_iter().flatten().collect())
        })
}

/// What can be done is done first: often it is what the others wait for. Otherwise the first is told.
fn first_to_act(mut steps: Vec<Step>) -> Option<Step> {
    let chosen = steps.iter().position(|step| matches!(step.course, Course::Act(_))).unwrap_or(0);
    (chosen < steps.len()).then(|| steps.swap_remove(chosen))
}

/// The pods of the `StatefulSet`: a pod stays for as long as a configuration names its member. None is taken away before it is
/// certain what the configuration is: one that is not committed goes back to the one before if its leader is lost, and that
/// one may need the very pods that it did without.
fn pods(wanted: &Wanted, seen: &Observed) -> u32 {
    if recovery::needs_quiet(seen) || hibernation::sleeps(wanted, seen) {
        return 0;
    }
    let above = |highest: Ordinal| highest + 1;
    let named = seen.leader().and_then(|leader| leader.configuration().highest_ordinal(&seen.name));
    let certain = seen
        .confirmed_leader()
        .is_some_and(|leader| leader.state.committed && !leader.configuration().is_joint());
    let kept = if certain { 0 } else { uncertain_pods(seen) };
    wanted.replicas.max(named.map_or(0, above)).max(kept)
}

/// The pods that the cluster may need while it is not certain who its members are: those that there are to be, and one for each
/// volume and each member last known. Somebody may have scaled the `StatefulSet` down, or deleted it.
fn uncertain_pods(seen: &Observed) -> u32 {
    let removed = |claim: &ClaimState| {
        claim.mark.is_some_and(|mark| Some(mark.cluster) == seen.identity && mark.removed.is_some())
    };
    let volumes = seen.claims.iter().filter(|(_, claim)| !removed(claim)).map(|(&ordinal, _)| ordinal);
    let highest = volumes.chain(seen.recorded.keys().copied()).max();
    let set = seen.stateful_set.as_ref().map_or(0, |set| set.replicas);
    set.max(highest.map_or(0, |ordinal| ordinal + 1))
}

/// Whether a member is well and goes on running: the leader goes on hearing of one whose pod is ending, or has just ended, for
/// an election timeout. So the member itself has to answer from a pod that nobody deletes, as one of the leader's term.
fn stays_well(seen: &Observed, leader: Leader<'_>, id: MemberId) -> bool {
    let stands = |(ordinal, node): (&Ordinal, &NodeStatus)| {
        leader.is_followed_by(node)
            && node.member_id == id
            && seen.pods.get(ordinal).is_some_and(|pod| !pod.terminating)
    };
    leader.is_well(id) && seen.nodes.iter().any(stands)
}

/// The voter, in good health, that should lead instead: the lowest ordinal of those that stay.
fn successor(seen: &Observed, leader: Leader<'_>, stays: impl Fn(MemberId) -> bool) -> Option<MemberId> {
    let configuration = leader.configuration();
    configuration
        .voters
        .iter()
        .copied()
        .filter(|&id| id != leader.status.member_id && stays(id) && stays_well(seen, leader, id))
        .min_by_key(|&id| (configuration.ordinal(&seen.name, id), id))
}

/// Whether the other voters keep the quorum without this one. One whose volume is missing runs on, and could not start again.
fn can_spare(seen: &Observed, leader: Leader<'_>, id: MemberId) -> bool {
    let configuration = leader.configuration();
    let has_volume = |other: MemberId| {
        let claim = configuration.ordinal(&seen.name, other).and_then(|ordinal| seen.claims.get(&ordinal));
        claim.is_none_or(|claim| claim.lost.is_none())
    };
    configuration.has_quorum(|other| other != id && has_volume(other) && stays_well(seen, leader, other))
}
