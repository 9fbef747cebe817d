//! Who votes: joining, leaving, and replacing, by joint consensus only (dissertation, chapter 4).
//!
//! The voters wanted are one for each ordinal. A pod that runs another member than its ordinal's voter has lost its volume:
//! its new member joins as a learner, and the one joint change that makes it a voter removes the old one.

use std::collections::BTreeSet;

use super::{Action, Step, StepKind, Wanted, stays_well, successor};
use crate::membership::{Configuration, Member, MemberId, Ordinal, has_majority, majority, tolerance};
use crate::observed::{Leader, Observed, PodState};

/// A leader whose newest configuration has been committed and is not joint: the only state that a change may start from.
pub(super) fn steady_leader(seen: &Observed) -> Result<Leader<'_>, Box<Step>> {
    let Some(leader) = seen.leader() else {
        return Err(Box::new(super::quorum::wait_for_leader(seen)));
    };
    if leader.configuration().is_joint() || !leader.state.committed {
        let (reason, until) = ("the membership is changing", "the new configuration to be committed");
        return Err(Box::new(Step::wait(StepKind::FinishChange, reason, until)));
    }
    Ok(leader)
}

/// The next change of the membership, if one is needed.
pub(super) fn change(wanted: &Wanted, seen: &Observed, leader: Leader<'_>) -> Option<Step> {
    let survey = Survey::of(wanted, seen, leader);
    learners(seen, leader, &survey).or_else(|| voters(wanted, seen, leader, &survey))
}

/// What each ordinal needs.
#[derive(Default)]
struct Survey {
    /// Nodes that no configuration names yet.
    newcomers: Vec<Ordinal>,
    /// The voters that there should be, of those that can vote now.
    voters: BTreeSet<MemberId>,
    /// What is worth waiting for before the voters are changed.
    waits: Vec<String>,
}

impl Survey {
    fn of(wanted: &Wanted, seen: &Observed, leader: Leader<'_>) -> Self {
        let mut survey = Self::default();
        for ordinal in 0..wanted.replicas {
            survey.look_at(ordinal, seen, leader);
        }
        survey
    }

    fn look_at(&mut self, ordinal: Ordinal, seen: &Observed, leader: Leader<'_>) {
        let configuration = leader.configuration();
        let pod = seen.awaited(ordinal);
        let settled = seen.pods.get(&ordinal).is_some_and(|pod: &PodState| pod.settled);
        let occupant = seen.occupant(ordinal).map(|node| node.member_id);
        if let Some(id) = occupant {
            if configuration.voters.contains(&id) {
                self.voters.insert(id);
                return;
            }
            // One whose pod or volume goes would take its vote along.
            let stays = stays_well(seen, leader, id) && !takes_its_volume(seen, ordinal);
            if configuration.learners.contains(&id) && stays {
                self.voters.insert(id);
                return;
            }
            if !configuration.contains(id) {
                self.newcomers.push(ordinal);
            }
            if leader.hears(id) || !settled {
                self.waits.push(format!("{pod} to catch up"));
            }
        } else if !settled {
            self.waits.push(format!("{pod} to answer"));
        }
        // Until its successor can vote, the ordinal's old voter stays.
        let sitting =
            configuration.voters.iter().filter(|id| configuration.ordinal(&seen.name, **id) == Some(ordinal));
        self.voters.extend(sitting);
    }
}

/// Whether a pod that runs would be the last on its volume: the claim is being deleted, or the volume is missing.
fn takes_its_volume(seen: &Observed, ordinal: Ordinal) -> bool {
    seen.claims.get(&ordinal).is_some_and(|claim| claim.terminating || claim.lost.is_some())
}

/// New nodes become learners; learners that nobody needs go. Neither touches the quorum.
fn learners(seen: &Observed, leader: Leader<'_>, survey: &Survey) -> Option<Step> {
    let mut wanted = leader.configuration().clone();
    let superseded = superseded_learners(seen, leader);
    wanted.learners.retain(|id| !superseded.contains(id));
    let mut joining = Vec::new();
    for &ordinal in &survey.newcomers {
        let Some(node) = seen.occupant(ordinal) else { continue };
        wanted.learners.insert(node.member_id);
        let member = Member {
            name: seen.pod_name(ordinal),
            peer_address: node.peer_address.clone(),
            client_urls: node.client_urls.clone(),
        };
        wanted.members.insert(node.member_id, member);
        joining.push(seen.pod_name(ordinal));
    }
    if wanted.learners == leader.configuration().learners {
        return None;
    }
    let reason = if joining.is_empty() {
        "learners that no pod runs any more are removed".to_owned()
    } else {
        format!("new members, without a vote until they have caught up: {}", joining.join(", "))
    };
    Some(Step::act(StepKind::ChangeLearners, reason, change_to(leader, wanted)))
}

/// Learners whose pod runs another member, or is not wanted any more.
fn superseded_learners(seen: &Observed, leader: Leader<'_>) -> BTreeSet<MemberId> {
    let configuration = leader.configuration();
    let superseded = |id: MemberId| {
        let Some(ordinal) = configuration.ordinal(&seen.name, id) else { return true };
        seen.occupant(ordinal).is_some_and(|node| node.member_id != id)
    };
    configuration.learners.iter().copied().filter(|&id| superseded(id)).collect()
}

/// Brings the voters to those wanted, all at once.
fn voters(wanted: &Wanted, seen: &Observed, leader: Leader<'_>, survey: &Survey) -> Option<Step> {
    let kind = StepKind::ChangeVoters;
    let now = leader.configuration();
    let (next, early) = together(wanted, seen, leader, &survey.voters);
    let next = &next;
    let leaving_learners: BTreeSet<_> = now
        .learners
        .iter()
        .copied()
        .filter(|&id| now.ordinal(&seen.name, id) >= Some(wanted.replicas))
        .collect();
    if *next == now.voters && leaving_learners.is_empty() {
        return early.filter(|_| survey.waits.is_empty());
    }
    let reason = describe(seen, now, next);
    // The place of a lost voter is filled at once: until then the cluster survives one failure less. Whatever else is
    // worth waiting for comes with a change of its own.
    let replaces_a_lost_one = now.voters.difference(next).any(|&id| !leader.hears(id));
    if !survey.waits.is_empty() && !replaces_a_lost_one {
        return Some(Step::wait(kind, reason, survey.waits.join(", ")));
    }
    // A member whose volume goes ends for good with its pod: where one that is well leaves, enough have to remain.
    let lasts = |id: MemberId| {
        let goes = now.ordinal(&seen.name, id).is_some_and(|ordinal| takes_its_volume(seen, ordinal));
        leader.is_well(id) && !goes
    };
    let loses = now.voters.difference(next).any(|&id| leader.is_well(id));
    let counts = |id: MemberId| if loses { lasts(id) } else { leader.is_well(id) };
    if !has_majority(next, counts) {
        let well = next.iter().filter(|id| counts(**id)).count();
        let until = format!(
            "{} of the {} voters that would remain to be well; {well} are",
            majority(next.len()),
            next.len()
        );
        return Some(Step::refuse(kind, reason, until));
    }
    if !has_majority(&now.voters, |id| leader.is_well(id)) {
        let until =
            format!("{} of the {} voters of today to be well", majority(now.voters.len()), now.voters.len());
        return Some(Step::refuse(kind, reason, until));
    }
    if let Some(until) = spends_margin(seen, leader, next, counts) {
        return Some(Step::refuse(kind, reason, until));
    }
    if !next.contains(&leader.status.member_id) {
        return Some(hand_over_or_widen(seen, leader, next, reason));
    }
    Some(Step::act(kind, reason, change_to(leader, with_voters(now, next, &leaving_learners))))
}

/// New voters come together. A part of them comes first only where the cluster survives more failures with it: four voters
/// survive no more than three, and every write waits for one more. Returns the voters to be, and what to say while some that have
/// caught up wait for the others.
fn together(
    wanted: &Wanted,
    seen: &Observed,
    leader: Leader<'_>,
    next: &BTreeSet<MemberId>,
) -> (BTreeSet<MemberId>, Option<Step>) {
    let now = leader.configuration();
    let ordinal = |id: MemberId| now.ordinal(&seen.name, id);
    let sitting: BTreeSet<_> = now.voters.iter().filter_map(|&id| ordinal(id)).collect();
    let joining: BTreeSet<MemberId> = next
        .difference(&now.voters)
        .copied()
        .filter(|&id| ordinal(id).is_none_or(|ordinal| !sitting.contains(&ordinal)))
        .collect();
    let whole = next.len() >= wanted.replicas as usize;
    if whole || joining.is_empty() || tolerance(next.len()) > tolerance(now.voters.len()) {
        return (next.clone(), None);
    }
    let held: BTreeSet<_> = next.iter().filter_map(|&id| ordinal(id)).collect();
    let missing = (0..wanted.replicas).filter(|ordinal| !held.contains(ordinal)).map(|o| seen.awaited(o));
    let reason = format!(
        "{} new voters have caught up, and {} voters would survive no more failures than {}",
        joining.len(),
        next.len(),
        now.voters.len()
    );
    let until = format!("{} to catch up too", missing.collect::<Vec<_>>().join(", "));
    let said = Step::wait(StepKind::ChangeVoters, reason, until);
    (next - &joining, Some(said))
}

/// What a change that leaves less margin than there is, and than there could be, has to wait for: the failures that the cluster
/// survives right now are not spent on a change that can wait.
fn spends_margin(
    seen: &Observed,
    leader: Leader<'_>,
    next: &BTreeSet<MemberId>,
    counts: impl Fn(MemberId) -> bool,
) -> Option<String> {
    let now = &leader.configuration().voters;
    let margin = |well: usize, of: usize| well.saturating_sub(majority(of));
    let before = margin(now.iter().filter(|id| leader.is_well(**id)).count(), now.len());
    let after = margin(next.iter().filter(|id| counts(**id)).count(), next.len());
    if after >= before.min(tolerance(next.len())) {
        return None;
    }
    let unwell = next.iter().filter(|id| !counts(**id)).map(|&id| {
        let ordinal = leader.configuration().ordinal(&seen.name, id);
        ordinal.map_or_else(|| format!("{id:016x}"), |ordinal| seen.awaited(ordinal))
    });
    Some(format!(
        "{} to be well: {before} more failures are survived now, and only {after} would be",
        unwell.collect::<Vec<_>>().join(", ")
    ))
}

/// Says which pods hold no voter yet, when nothing can be done but to wait for them.
pub(super) fn missing(wanted: &Wanted, seen: &Observed, leader: Leader<'_>) -> Option<Step> {
    let configuration = leader.configuration();
    let holds_voter = |ordinal: Ordinal| match seen.occupant(ordinal) {
        Some(node) => configuration.voters.contains(&node.member_id),
        None => configuration.voters.iter().any(|id| configuration.ordinal(&seen.name, *id) == Some(ordinal)),
    };
    let pods: Vec<_> =
        (0..wanted.replicas).filter(|&ordinal| !holds_voter(ordinal)).map(|o| seen.awaited(o)).collect();
    (!pods.is_empty()).then(|| {
        let reason = format!("{} of {} pods hold no voter yet", pods.len(), wanted.replicas);
        Step::wait(StepKind::ChangeVoters, reason, format!("{} to come up and catch up", pods.join(", ")))
    })
}

/// The leader is to leave. It hands over to a voter that stays; if none does, those that come are made voters beside it first.
fn hand_over_or_widen(
    seen: &Observed,
    leader: Leader<'_>,
    next: &BTreeSet<MemberId>,
    reason: String,
) -> Step {
    if let Some(target) = successor(seen, leader, |id| next.contains(&id)) {
        let reason = format!("{} leads and is to leave: {reason}", seen.pod_name(leader.ordinal));
        let action = Action::TransferLeadership { leader: leader.ordinal, target };
        return Step::act(StepKind::TransferLeadership, reason, action);
    }
    let now = leader.configuration();
    // Each pod has one voter: one whose successor comes goes now.
    let ordinal = |id: MemberId| now.ordinal(&seen.name, id);
    let has_successor =
        |id: MemberId| !next.contains(&id) && next.iter().any(|&other| ordinal(other) == ordinal(id));
    let stays = now.voters.iter().filter(|&&id| !has_successor(id));
    let wider: BTreeSet<_> = next.iter().chain(stays).copied().filter(|&id| leader.is_well(id)).collect();
    if wider.is_subset(&now.voters) || !has_majority(&wider, |id| leader.is_well(id)) {
        let until = "a voter that stays to be well, so that it can lead";
        return Step::refuse(StepKind::TransferLeadership, reason, until);
    }
    Step::act(StepKind::ChangeVoters, reason, change_to(leader, with_voters(now, &wider, &BTreeSet::new())))
}

fn with_voters(
    now: &Configuration,
    next: &BTreeSet<MemberId>,
    leaving: &BTreeSet<MemberId>,
) -> Configuration {
    let mut wanted = now.clone();
    wanted.voters.clone_from(next);
    wanted.learners.retain(|id| !next.contains(id) && !leaving.contains(id));
    wanted
}

fn change_to(leader: Leader<'_>, mut wanted: Configuration) -> Action {
    wanted.forget_strangers();
    Action::ChangeMembership { leader: leader.ordinal, expected: leader.state.id, wanted }
}

/// Says who gets a vote and who loses it, by pod.
fn describe(seen: &Observed, now: &Configuration, next: &BTreeSet<MemberId>) -> String {
    let pods = |ids: BTreeSet<MemberId>| -> BTreeSet<Option<Ordinal>> {
        ids.into_iter().map(|id| now.ordinal(&seen.name, id)).collect()
    };
    let joining = pods(next.difference(&now.voters).copied().collect());
    let leaving = pods(now.voters.difference(next).copied().collect());
    let replaced: BTreeSet<_> = joining.intersection(&leaving).copied().collect();
    let list = |pods: BTreeSet<Option<Ordinal>>| {
        let names =
            pods.into_iter().map(|pod| pod.map_or("a stranger".to_owned(), |ordinal| seen.pod_name(ordinal)));
        names.collect::<Vec<_>>().join(", ")
    };
    let parts = [
        ("new voters, which have caught up: ", &joining - &replaced),
        ("voters that leave: ", &leaving - &replaced),
        ("new members in the place of those whose volumes are lost: ", replaced),
    ];
    let said = parts
        .into_iter()
        .filter(|(_, pods)| !pods.is_empty())
        .map(|(what, pods)| format!("{what}{}", list(pods)));
    let text = said.collect::<Vec<_>>().join("; ");
    if text.is_empty() { "learners that are not wanted any more leave".to_owned() } else { text }
}
