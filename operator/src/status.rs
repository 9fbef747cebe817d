//! The status: made only from what was applied and observed. Pure.

mod troubles;

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use quorate_crds::{
    Binding, Cause, LevelStatus, MemberRole, MemberStatus, Phase, PlanStatus, RaftCluster, RaftClusterStatus,
    Remains, StorageStatus, TroubleStatus, UpgradeState, UpgradeStatus,
};

pub use self::troubles::{QUIET, news};
use crate::membership::{MemberId, Ordinal, has_majority};
use crate::observed::{ClaimState, Leader, Observed};
use crate::plan::{Course, Plan, Step, StepKind};
use crate::quantity;
use crate::resources;
use crate::trust::Report;
use crate::upgrade::{self, Decision};
use crate::validate::{Invalid, Valid};

/// The condition that tells whether all certificates are good for a while.
pub const CERTIFICATES: &str = "CertificatesCurrent";

/// A member that is behind for less than this is busy, and not unwell.
const A_MOMENT: Duration = Duration::from_secs(10);

/// Why a cluster that hibernates does not serve.
const ASLEEP: &str = "spec.hibernate is true: the cluster has no pods";

/// What a status is made from.
#[derive(Debug)]
pub struct Findings<'a> {
    /// The resource, with its status of before.
    pub cluster: &'a RaftCluster,
    /// What was seen.
    pub seen: &'a Observed,
    /// The spec, or why it cannot be worked on.
    pub spec: Result<&'a Valid, &'a Invalid>,
    /// What was planned.
    pub plan: Option<&'a Plan>,
    /// What was decided on the image and the template.
    pub upgrade: Option<&'a Decision>,
    /// What the API server or a node refused in this round.
    pub problem: Option<&'a str>,
    /// What was found of the certificates, if they were looked at.
    pub certificates: Option<&'a Report>,
    /// The time of this round.
    pub now: Timestamp,
}

/// Makes the status.
pub fn status(findings: &Findings<'_>) -> RaftClusterStatus {
    let Findings { cluster, seen, .. } = *findings;
    let before = cluster.status.clone().unwrap_or_default();
    let leader = seen.leader();
    let facts = Facts::of(findings, leader);
    let troubles = troubles::told(seen, &before.troubles, findings.now);
    let lost = facts.quorum == Quorum::Lost && seen.bootstrapped && has_no_quorum(&before, findings.now);
    let remains = if lost { remains(seen, &before.remains) } else { Vec::new() };
    let upgrade = match (findings.spec, findings.upgrade) {
        (Ok(valid), Some(decision)) => upgrade::progress(decision, seen, valid.wanted.replicas),
        _ => before.upgrade,
    };
    let level = upgrade::level(before.level.as_ref(), seen, findings.now);
    let upgraded = upgraded(findings, upgrade.as_ref(), level.as_ref());
    RaftClusterStatus {
        observed_generation: cluster.metadata.generation,
        cluster_id: before.cluster_id,
        bootstrapped: seen.founded(),
        leader: seen.leadership().map(|(pod, _)| pod),
        term: term(seen, before.term),
        voters: match facts.quorum {
            Quorum::Unseen => before.voters,
            _ => Some(format!("{}/{}", facts.well, facts.wanted)),
        },
        members: match leader {
            Some(leader) => members(cluster, seen, leader),
            // Nobody says that they are well.
            None => {
                before.members.into_iter().map(|member| MemberStatus { healthy: false, ..member }).collect()
            }
        },
        phase: phase(findings, &facts, before.phase),
        version: version(seen).or(before.version),
        image: match findings.upgrade {
            Some(decision) => Some(upgrade::own_image(before.image, decision, cluster, seen)),
            None => before.image,
        },
        plan: plan_status(findings.plan),
        remains,
        recovery: before.recovery,
        replicas: i32::try_from(seen.pods.len()).unwrap_or(i32::MAX),
        selector: Some(resources::selector(cluster)),
        binding: match findings.certificates {
            Some(_) => Some(Binding { name: resources::connection_secret(&seen.name) }),
            None => before.binding,
        },
        conditions: conditions(findings, &facts, upgraded, &troubles, &before.conditions),
        troubles,
        upgrade,
        level,
        storage: storage(seen).or(before.storage),
    }
}

/// What phase and conditions are decided by.
struct Facts {
    /// Voters that the leader hears of, and that have caught up.
    well: usize,
    /// Voters that the spec wants.
    wanted: usize,
    quorum: Quorum,
    steady: bool,
    step: Option<Step>,
}

/// What is known of the quorum.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Quorum {
    /// A leader hears of a majority.
    Held,
    /// There is none.
    Lost,
    /// The nodes name a leader that did not answer: only the sight of it is missing.
    Unseen,
}

impl Facts {
    fn of(findings: &Findings<'_>, leader: Option<Leader<'_>>) -> Self {
        let wanted = match findings.spec {
            Ok(valid) => valid.wanted.replicas as usize,
            Err(_) => leader.map_or(0, |leader| leader.configuration().voters.len()),
        };
        let voters = leader.map(|leader| &leader.configuration().voters);
        let well = leader.map_or(0, |leader| {
            leader
                .configuration()
                .voters
                .iter()
                .filter(|id| looks_well(findings.cluster, findings.seen, leader, **id))
                .count()
        });
        let steady =
            leader.is_some_and(|leader| leader.state.committed && !leader.configuration().is_joint());
        Self {
            well,
            wanted,
            quorum: match leader {
                Some(leader) if leader.has_quorum() => Quorum::Held,
                None if findings.seen.leadership().is_some() => Quorum::Unseen,
                _ => Quorum::Lost,
            },
            steady: steady && voters.is_some_and(|voters| voters.len() == wanted),
            step: findings.plan.and_then(|plan| plan.step.clone()),
        }
    }

    fn all_well(&self) -> bool {
        self.quorum == Quorum::Held && self.steady && self.well == self.wanted
    }
}

/// Terms only rise: while no leader is known, the highest that any node knows.
fn term(seen: &Observed, before: Option<i64>) -> Option<i64> {
    let known = match seen.leadership() {
        Some((_, term)) => Some(term),
        None => seen
            .nodes
            .values()
            .filter(|node| Some(node.cluster_id) == seen.identity)
            .map(|node| node.term)
            .max(),
    };
    known.filter(|&term| term > 0).and_then(|term| i64::try_from(term).ok()).max(before)
}

/// Whether a member is shown as well. One that was, that the leader hears of, and that has been behind for a moment is busy: each change of
/// the status costs a write.
fn looks_well(cluster: &RaftCluster, seen: &Observed, leader: Leader<'_>, id: MemberId) -> bool {
    let name = format!("{id:016x}");
    let was_well = || {
        let members = cluster.status.iter().flat_map(|status| &status.members);
        members.into_iter().any(|member| member.id == name && member.healthy)
    };
    let for_a_moment = seen.lagging.get(&id).is_some_and(|lags| *lags < A_MOMENT);
    leader.is_well(id) || (leader.hears(id) && for_a_moment && was_well())
}

fn members(cluster: &RaftCluster, seen: &Observed, leader: Leader<'_>) -> Vec<MemberStatus> {
    let configuration = leader.configuration();
    let role = |id: MemberId| {
        if id == leader.status.member_id {
            MemberRole::Leader
        } else if configuration.voters.contains(&id) {
            MemberRole::Voter
        } else if configuration.outgoing.contains(&id) {
            MemberRole::Leaving
        } else {
            MemberRole::Learner
        }
    };
    let member = |id: MemberId| {
        let ordinal = configuration.ordinal(&seen.name, id)?;
        Some(MemberStatus {
            ordinal: i32::try_from(ordinal).ok()?,
            id: format!("{id:016x}"),
            role: role(id),
            pod: seen.pod_name(ordinal),
            healthy: looks_well(cluster, seen, leader, id),
            volume: volume(seen, leader, ordinal, id),
        })
    };
    let mut members: Vec<_> = configuration.ids().into_iter().filter_map(member).collect();
    members.sort_by(|a, b| (a.ordinal, &a.id).cmp(&(b.ordinal, &b.id)));
    members
}

/// Whether there has been no quorum for a while: an election is no time to tell what each member holds.
fn has_no_quorum(before: &RaftClusterStatus, now: Timestamp) -> bool {
    let quorate = before.conditions.iter().find(|known| known.type_ == "Quorate" && known.status == "False");
    let lasting = |known: &Condition| now.duration_since(known.last_transition_time.0).unsigned_abs();
    quorate.is_some_and(|known| lasting(known) >= QUIET)
}

/// What the members hold: those that answer, and what the others have said last.
fn remains(seen: &Observed, before: &[Remains]) -> Vec<Remains> {
    let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let ours = seen.nodes.iter().filter(|(_, node)| Some(node.cluster_id) == seen.identity);
    let now = ours.map(|(&ordinal, node)| Remains {
        pod: seen.pod_name(ordinal),
        member: format!("{:016x}", node.member_id),
        last_term: number(node.holds.last_term),
        last_index: number(node.holds.last_index),
        commit_index: number(node.holds.commit_index),
        revision: node.holds.revision,
        version: node.version.clone(),
        answers: true,
    });
    let mut all: Vec<_> = now.collect();
    let silent = before.iter().filter(|known| !all.iter().any(|one| one.pod == known.pod));
    let silent: Vec<_> = silent.map(|known| Remains { answers: false, ..known.clone() }).collect();
    all.extend(silent);
    all.sort_by(|a, b| a.pod.cmp(&b.pod));
    all
}

/// The volume that a member was last seen to be well on.
fn volume(seen: &Observed, leader: Leader<'_>, ordinal: Ordinal, id: MemberId) -> Option<String> {
    let here = seen.occupant(ordinal).is_some_and(|node| node.member_id == id) && leader.is_well(id);
    let now = seen.claims.get(&ordinal).and_then(|claim| claim.volume.clone()).filter(|_| here);
    now.or_else(|| seen.recorded.get(&ordinal).filter(|known| known.member == id)?.volume.clone())
}

/// The lowest version that a node of this cluster runs: an upgrade is finished when it is the new one.
fn version(seen: &Observed) -> Option<String> {
    let of_node =
        |version: &String| version.split('.').map(|part| part.parse().unwrap_or(0)).collect::<Vec<u64>>();
    let ours =
        seen.nodes.values().filter(|node| node.cluster_id == 0 || Some(node.cluster_id) == seen.identity);
    let versions = ours.map(|node| &node.version).filter(|version| !version.is_empty());
    versions.min_by_key(|version| of_node(version)).cloned()
}

fn plan_status(plan: Option<&Plan>) -> Option<PlanStatus> {
    let step = plan?.step.as_ref()?;
    Some(PlanStatus {
        step: format!("{:?}", step.kind),
        reason: step.reason.clone(),
        waiting_for: match &step.course {
            Course::Act(_) => None,
            Course::Wait(what) | Course::Refuse(what) => Some(what.clone()),
        },
    })
}

fn phase(findings: &Findings<'_>, facts: &Facts, before: Option<Phase>) -> Option<Phase> {
    if findings.seen.bootstrapped && facts.quorum == Quorum::Unseen {
        return before;
    }
    if sleeps(findings) {
        return Some(Phase::Hibernated);
    }
    let paused = findings.spec.is_ok_and(|valid| valid.wanted.paused);
    let refused = matches!(&facts.step, Some(Step { course: Course::Refuse(_), .. }));
    let acts = matches!(&facts.step, Some(Step { course: Course::Act(_), .. }));
    if !findings.seen.bootstrapped {
        return Some(Phase::Bootstrapping);
    }
    if facts.quorum != Quorum::Held {
        return Some(Phase::Unavailable);
    }
    if paused {
        return Some(Phase::Paused);
    }
    Some(match facts.step.as_ref().map(|step| step.kind) {
        _ if refused => Phase::Degraded,
        Some(StepKind::UpdatePod | StepKind::TransferLeadership | StepKind::ResizeVolumes) => Phase::Updating,
        Some(StepKind::DeleteVolume) | None if facts.all_well() => Phase::Ready,
        None => Phase::Degraded,
        // Nothing changes yet: it is waited for.
        Some(StepKind::ReplaceMember) if !acts => Phase::Degraded,
        Some(_) => Phase::Changing,
    })
}

/// Whether the cluster has no pods because the spec wants none.
fn sleeps(findings: &Findings<'_>) -> bool {
    findings.spec.is_ok_and(|valid| valid.wanted.hibernate) && findings.seen.pods.is_empty()
}

fn conditions(
    findings: &Findings<'_>,
    facts: &Facts,
    upgraded: Verdict,
    troubles: &[TroubleStatus],
    before: &[Condition],
) -> Vec<Condition> {
    let verdicts = [
        ready(findings, facts),
        quorate(findings, facts),
        progressing(findings, facts),
        degraded(findings, facts),
        troubled(troubles),
        spec_accepted(findings),
        reconciled(findings),
        paused(findings),
        upgraded,
        resized(findings),
        deletion(findings),
    ];
    let certificates = findings.certificates.map(|report| certificates(report, findings.now));
    // What was not looked at is as it was.
    let kept = before.iter().find(|old| old.type_ == CERTIFICATES && certificates.is_none()).cloned();
    verdicts
        .into_iter()
        .chain(certificates)
        .map(|verdict| {
            let old = before.iter().find(|old| old.type_ == verdict.kind);
            let status = verdict.status;
            let since = old.filter(|old| old.status == status).map(|old| old.last_transition_time.clone());
            Condition {
                type_: verdict.kind.to_owned(),
                status: status.to_owned(),
                reason: verdict.reason.to_owned(),
                message: verdict.message,
                observed_generation: findings.cluster.metadata.generation,
                last_transition_time: since.unwrap_or(Time(findings.now)),
            }
        })
        .chain(kept)
        .collect()
}

fn certificates(report: &Report, now: Timestamp) -> Verdict {
    let judgement = report.judge(now.as_second());
    verdict(CERTIFICATES, judgement.current, judgement.reason, judgement.message)
}

struct Verdict {
    kind: &'static str,
    status: &'static str,
    reason: &'static str,
    message: String,
}

fn verdict(kind: &'static str, holds: bool, reason: &'static str, message: impl Into<String>) -> Verdict {
    Verdict { kind, status: if holds { "True" } else { "False" }, reason, message: message.into() }
}

/// The nodes name a leader that did not answer. It may hear of a majority all the same.
fn unseen(kind: &'static str) -> Verdict {
    let message = "the leader that the nodes name did not answer".to_owned();
    Verdict { kind, status: "Unknown", reason: "LeaderSilent", message }
}

fn ready(findings: &Findings<'_>, facts: &Facts) -> Verdict {
    let pending = facts.step.as_ref().filter(|step| step.kind != StepKind::DeleteVolume);
    match pending {
        _ if findings.spec.is_err() => verdict("Ready", false, "SpecRefused", "the spec cannot be worked on"),
        _ if sleeps(findings) => verdict("Ready", false, "Hibernated", ASLEEP),
        _ if facts.quorum == Quorum::Lost => {
            verdict("Ready", false, "NoQuorum", "no leader with a quorum is known")
        }
        _ if facts.quorum == Quorum::Unseen => unseen("Ready"),
        _ if findings.problem.is_some() => {
            verdict("Ready", false, "Failed", findings.problem.unwrap_or_default())
        }
        Some(step) => verdict("Ready", false, "StepPending", step.reason.clone()),
        None if facts.all_well() => {
            verdict("Ready", true, "AllWell", format!("all {} voters are well", facts.wanted))
        }
        None => {
            let message = format!("{} of {} voters are well", facts.well, facts.wanted);
            verdict("Ready", false, "VotersMissing", message)
        }
    }
}

fn quorate(findings: &Findings<'_>, facts: &Facts) -> Verdict {
    let Some(leader) = findings.seen.leader() else {
        if facts.quorum == Quorum::Unseen {
            return unseen("Quorate");
        }
        if sleeps(findings) {
            return verdict("Quorate", false, "Hibernated", ASLEEP);
        }
        return verdict("Quorate", false, "NoLeader", "no node says that it leads");
    };
    let pod = findings.seen.pod_name(leader.ordinal);
    if facts.quorum == Quorum::Held {
        return verdict("Quorate", true, "LeaderElected", format!("{pod} leads and hears of a majority"));
    }
    verdict("Quorate", false, "QuorumLost", format!("{pod} leads and does not hear of a majority"))
}

fn progressing(findings: &Findings<'_>, facts: &Facts) -> Verdict {
    let kind = "Progressing";
    match &facts.step {
        _ if findings.spec.is_ok_and(|valid| valid.wanted.paused) => {
            verdict(kind, false, "Paused", "spec.paused is true: nothing is changed")
        }
        _ if findings.problem.is_some() => {
            verdict(kind, false, "Failed", findings.problem.unwrap_or_default())
        }
        None => verdict(kind, false, "NothingToDo", "the cluster is as the spec wants it"),
        Some(Step { course: Course::Act(_), reason, .. }) => verdict(kind, true, "Acting", reason.clone()),
        Some(Step { course: Course::Wait(what), reason, .. }) => {
            verdict(kind, true, "Waiting", format!("{reason}; waits for {what}"))
        }
        Some(Step { course: Course::Refuse(what), reason, .. }) => {
            verdict(kind, false, "Refused", format!("{reason}; needs {what}"))
        }
    }
}

fn degraded(findings: &Findings<'_>, facts: &Facts) -> Verdict {
    let kind = "Degraded";
    if sleeps(findings) {
        return verdict(kind, false, "Hibernated", ASLEEP);
    }
    let strangers: Vec<_> =
        findings.seen.strangers().map(|ordinal| findings.seen.pod_name(ordinal)).collect();
    if !strangers.is_empty() {
        let message = format!("the volume of {} belongs to another cluster", strangers.join(", "));
        return verdict(kind, true, "ForeignVolume", message);
    }
    if let Some(Step { course: Course::Refuse(what), reason, .. }) = &facts.step {
        return verdict(kind, true, "StepRefused", format!("{reason}; needs {what}"));
    }
    let well = |leader: Leader<'_>, id| looks_well(findings.cluster, findings.seen, leader, id);
    let all_well = |leader: &Leader<'_>| leader.configuration().voters.iter().all(|&id| well(*leader, id));
    let unwell = findings.seen.leader().filter(|leader| !all_well(leader));
    match unwell {
        Some(leader) if has_majority(&leader.configuration().voters, |id| well(leader, id)) => {
            verdict(kind, true, "VotersUnwell", format!("{} of {} voters are well", facts.well, facts.wanted))
        }
        Some(_) => verdict(kind, true, "NoMargin", "a majority of the voters is not well"),
        None if facts.quorum == Quorum::Unseen => unseen(kind),
        None if findings.seen.bootstrapped && facts.quorum == Quorum::Lost => {
            verdict(kind, true, "NoQuorum", "no leader with a quorum is known")
        }
        None => verdict(kind, false, "AllWell", "no voter is known to be unwell"),
    }
}

fn troubled(troubles: &[TroubleStatus]) -> Verdict {
    match troubles {
        [] => verdict("Troubled", false, "NoTrouble", "every pod serves, or is on its way"),
        [first, ..] => verdict("Troubled", true, first.cause.as_str(), troubles::sentence(troubles)),
    }
}

fn spec_accepted(findings: &Findings<'_>) -> Verdict {
    match findings.spec {
        Err(invalid) => verdict("SpecAccepted", false, invalid.reason(), invalid.to_string()),
        Ok(valid) => match &valid.advice {
            Some(advice) => verdict("SpecAccepted", true, advice.reason, advice.message.clone()),
            None => verdict("SpecAccepted", true, "Accepted", "the spec can be worked on"),
        },
    }
}

fn paused(findings: &Findings<'_>) -> Verdict {
    if findings.cluster.spec.paused {
        return verdict(
            "Paused",
            true,
            "SpecPaused",
            "spec.paused is true: no member is changed and no pod is ended",
        );
    }
    verdict("Paused", false, "NotPaused", "spec.paused is false")
}

/// The size that the largest volume has: what it was given, where it asks for more.
fn storage(seen: &Observed) -> Option<StorageStatus> {
    let has = |claim: &ClaimState| {
        let sizes = [claim.size.clone(), claim.capacity.clone()];
        sizes.into_iter().flatten().filter_map(|text| Some((quantity::bytes(&text)?, text))).min()
    };
    let largest = seen.claims.values().filter(|claim| claim.bound).filter_map(has).max();
    largest.map(|(_, size)| StorageStatus { size })
}

/// Whether all volumes have the size that the spec wants, and how far they are.
fn resized(findings: &Findings<'_>) -> Verdict {
    let kind = "VolumesResized";
    let seen = findings.seen;
    let wanted = &findings.cluster.spec.storage.size;
    let back = storage(seen).map_or_else(String::new, |storage| storage.size);
    let cure = format!(
        "To take it back, write spec.storage.size: {back}; or let the storage class grow volumes (allowVolumeExpansion)"
    );
    if let Some(why) = &seen.resize_refused {
        return verdict(
            kind,
            false,
            "Refused",
            format!("spec.storage.size {wanted} is refused: {why}. {cure}"),
        );
    }
    let bytes = |text: &Option<String>| text.as_deref().and_then(quantity::bytes);
    let smaller = |claim: &&ClaimState| {
        claim.bound && bytes(&claim.capacity).is_some_and(|has| Some(has) < quantity::bytes(wanted))
    };
    let claims = seen.claims.iter().filter(|(_, claim)| smaller(claim));
    let mut infeasible = false;
    let told: Vec<_> = claims
        .map(|(&ordinal, claim)| {
            infeasible |= claim.infeasible;
            let restart = if claim.needs_restart { ", and more when its pod starts anew" } else { "" };
            let has = claim.capacity.as_deref().unwrap_or_default();
            format!("data-{} has {has}{restart}", seen.pod_name(ordinal))
        })
        .collect();
    let told = format!("spec.storage.size is {wanted}: {}", told.join("; "));
    match told.ends_with(": ") {
        true => verdict(kind, true, "AsWanted", "all volumes have the size of the spec"),
        false if infeasible => {
            verdict(kind, false, "Infeasible", format!("{told}. The driver cannot give it. {cure}"))
        }
        false => verdict(kind, false, "Resizing", told),
    }
}

/// Whether the cluster runs the operator's version, and whether that can be taken back.
fn upgraded(
    findings: &Findings<'_>,
    upgrade: Option<&UpgradeStatus>,
    level: Option<&LevelStatus>,
) -> Verdict {
    let kind = "Upgraded";
    let troubles = &findings.seen.troubles;
    if let Some(trouble) = troubles.iter().find(|trouble| trouble.cause == Cause::TooOld) {
        let pod = findings.seen.pod_name(trouble.ordinal);
        let message = format!("{pod}: {}. Write spec.image", trouble.message);
        return verdict(kind, false, "ImageTooOld", message);
    }
    if let Some(upgrade) = upgrade {
        let message = upgrade.message.clone().unwrap_or_default();
        let to = format!("{} with {}", upgrade.to, upgrade.to_image);
        return match upgrade.state {
            UpgradeState::Available => verdict(kind, false, "Available", format!("{to} waits for {message}")),
            UpgradeState::Rolling => verdict(kind, false, "Rolling", format!("{to}: {message}")),
            UpgradeState::Failed => verdict(kind, false, "Failed", message),
        };
    }
    match level.and_then(|level| level.raisable_since.as_ref()) {
        Some(since) => {
            let after = &findings.cluster.spec.upgrade.finalize_after;
            let message = format!(
                "it can be taken back with spec.image: the level of the data is raised by spec.upgrade.finalizeAfter ({after}) after {}",
                since.0
            );
            verdict(kind, true, "CanBeTakenBack", message)
        }
        None => verdict(kind, true, "Newest", "it runs what the spec and the operator's version say"),
    }
}

/// Whether the resource is being deleted while the spec protects the cluster.
fn deletion(findings: &Findings<'_>) -> Verdict {
    let kind = "DeletionHeldUp";
    if findings.cluster.metadata.deletion_timestamp.is_some() {
        let message = "the resource is being deleted, and spec.deletionProtection is true: the cluster runs on. That cannot be undone: set it to \
                       false to let the resource go, and create it anew over its volumes";
        return verdict(kind, true, "Protected", message);
    }
    verdict(kind, false, "NotDeleted", "nobody has deleted the resource")
}

fn reconciled(findings: &Findings<'_>) -> Verdict {
    match findings.problem {
        Some(problem) => verdict("Reconciled", false, "Failed", problem),
        None => verdict("Reconciled", true, "Applied", "all objects have been applied"),
    }
}
