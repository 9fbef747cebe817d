//! How many pods may go at once.

use super::*;

#[test]
fn nobody_is_evicted_while_the_newest_configuration_may_be_taken_back() {
    let mut seen = calm(5);
    lead(&mut seen).configuration.as_mut().expect("a configuration").committed = false;
    assert_eq!(spare(&seen, 5), 0, "before it the voters may have been three");
}

#[test]
fn a_set_that_somebody_scaled_down_without_a_leader_gets_its_pods_back() {
    let mut seen = calm(3);
    for ordinal in [1, 2] {
        seen.nodes.remove(&ordinal);
        seen.pods.remove(&ordinal);
    }
    (lead(&mut seen).role, lead(&mut seen).progress) = (Role::Candidate, [].into());
    seen.stateful_set.as_mut().expect("a set").replicas = 1;
    assert_eq!(plan(&wants(1), &seen, 99).pods, 3, "their volumes may hold the quorum");
}

/// Voters 0 to 2, and pods 3 and 4 that are to become voters; 3 has caught up, 4 never comes.
fn half_grown() -> Observed {
    let mut seen = calm(3);
    let id = member_id(3);
    for node in seen.nodes.values_mut() {
        let configuration = &mut node.configuration.as_mut().expect("a configuration").configuration;
        configuration.learners.insert(id);
        configuration.members.insert(id, member(3));
    }
    lead(&mut seen).progress.insert(id, Progress { active: true, caught_up: true });
    let mut node = seen.nodes[&1].clone();
    (node.member_id, node.role) = (id, Role::Learner);
    node.name = "demo-3".to_owned();
    seen.nodes.insert(3, node);
    let (pod, claim) = (seen.pods[&1].clone(), seen.claims[&1].clone());
    // Learners are not ready.
    seen.pods.insert(3, PodState { ready: false, pod_ready: false, ..pod.clone() });
    let never = PodState {
        ready: false,
        pod_ready: false,
        running: false,
        pending: true,
        trouble: Some("Unschedulable".to_owned()),
        ..pod
    };
    seen.pods.insert(4, never);
    seen.claims.insert(3, claim.clone());
    seen.claims.insert(4, ClaimState { bound: false, ..claim });
    seen.stateful_set.as_mut().expect("a set").replicas = 5;
    seen
}

#[test]
fn new_members_become_voters_together_or_the_plan_says_who_is_missing() {
    let found = step(&half_grown(), 5);
    assert_eq!(found.kind, StepKind::ChangeVoters);
    let Course::Wait(waits) = &found.course else {
        panic!("four voters survive no more than three: {found:?}")
    };
    assert!(waits.contains("demo-4 (Unschedulable)"), "{waits}");
}

#[test]
fn a_scale_up_that_waits_holds_up_no_drain() {
    let budget = plan(&wants(5), &half_grown(), 99).budget;
    assert_eq!(budget.min_available, 2, "three voters spare one, whoever waits beside them");
    assert!(budget.admits(true, 3) && !budget.admits(true, 2));
    assert!(budget.admits(false, 3), "what waits may go");
}

#[test]
fn nobody_goes_while_nobody_leads() {
    let mut seen = calm(3);
    seen.nodes.clear();
    let budget = plan(&wants(3), &seen, 99).budget;
    assert!(!budget.admits(false, 0) && !budget.admits(true, 3), "{budget:?}");
}

#[test]
fn the_budget_rises_before_voters_are_added() {
    let mut seen = half_grown();
    let other = seen.pods[&3].clone();
    seen.pods.insert(4, other);
    let id = member_id(4);
    let leader = lead(&mut seen);
    let configuration = &mut leader.configuration.as_mut().expect("a configuration").configuration;
    configuration.learners.insert(id);
    configuration.members.insert(id, member(4));
    leader.progress.insert(id, Progress { active: true, caught_up: true });
    let mut node = seen.nodes[&3].clone();
    (node.member_id, node.name) = (id, "demo-4".to_owned());
    seen.nodes.insert(4, node);
    let found = plan(&wants(5), &seen, 99);
    assert!(matches!(found.action(), Some(Action::ChangeMembership { .. })), "{found:?}");
    assert_eq!(found.budget.min_available, 4, "in the joint configuration the three spare one");
}

#[test]
fn one_voter_or_two_may_be_drained_where_the_spec_says_so() {
    for voters in [1, 2, 3] {
        let allow = Wanted { disruptions: Disruptions::Allow, ..wants(voters) };
        let budget = plan(&allow, &calm(voters), 99).budget;
        assert_eq!(budget.admits(true, voters) && budget.admits(true, 1), voters < 3, "{voters}: {budget:?}");
        let mut outdated = calm(voters);
        outdated.stateful_set.as_mut().expect("a set").update_revision = Some("b".to_owned());
        let found = plan(&allow, &outdated, 99);
        assert!(matches!(found.action(), Some(Action::EndPod { by: Means::Eviction, .. })), "{found:?}");
        let kept = plan(&wants(voters), &outdated, 99);
        assert_eq!(kept.action().is_some(), voters > 2, "{kept:?}");
    }
}

#[test]
fn pods_that_only_their_sidecars_hold_back_are_deleted() {
    let mut seen = calm(3);
    seen.stateful_set.as_mut().expect("a set").update_revision = Some("b".to_owned());
    for pod in seen.pods.values_mut() {
        pod.pod_ready = false;
    }
    let found = plan(&wants(3), &seen, 99);
    assert!(
        matches!(found.action(), Some(Action::EndPod { ordinal: 2, by: Means::Deletion, .. })),
        "an eviction would never end: {found:?}"
    );
}

#[test]
fn scaling_down_does_not_spend_the_margin() {
    let mut seen = calm(5);
    let mut leader = seen.nodes.remove(&0).expect("a node");
    leader.member_id = member_id(1);
    leader.progress.insert(member_id(0), Progress::default());
    seen.nodes.insert(1, leader);
    seen.pods.get_mut(&0).expect("a pod").ready = false;
    let found = step(&seen, 3);
    let Course::Refuse(needs) = &found.course else { panic!("one more failure would end it: {found:?}") };
    assert!(needs.contains("demo-0"), "{needs}");
}
