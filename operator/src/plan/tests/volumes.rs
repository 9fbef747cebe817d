//! Which volumes go, and when.

use std::collections::BTreeSet;
use std::time::Duration;

use quorate_crds::Cause;

use super::*;
use crate::observed::Mark;
use crate::trouble::Trouble;

fn claim(uid: &str) -> ClaimState {
    ClaimState { uid: uid.to_owned(), ours: true, bound: true, ..ClaimState::default() }
}

#[test]
fn lost_claims_stay_while_there_is_no_quorum() {
    let mut seen = calm(3);
    seen.nodes.clear();
    for (ordinal, pod) in &mut seen.pods {
        (pod.ready, pod.pending, pod.trouble) = (false, true, Some("Unschedulable".to_owned()));
        seen.claims.insert(*ordinal, ClaimState { lost: Some(Duration::from_hours(1)), ..claim("lost") });
    }
    let found = plan(&wants(3), &seen, 99);
    assert_eq!(found.action(), None, "the volumes may come back: {found:?}");
}

#[test]
fn a_claim_that_held_no_member_of_this_cluster_stays() {
    let mut seen = calm(3);
    seen.claims.insert(3, ClaimState { older: true, ..claim("older") });
    assert_eq!(plan(&wants(3), &seen, 99).step, None);
}

#[test]
fn a_volume_on_which_another_cluster_was_seen_says_so_and_stays_when_its_pod_is_scaled_away() {
    let mut seen = calm(3);
    seen.claims.insert(3, claim("made for a fourth member"));
    assert!(matches!(step(&seen, 3).course, Course::Act(Action::DeleteClaim { ordinal: 3, .. })));
    let pod = seen.pods[&2].clone();
    seen.pods.insert(3, PodState { uid: "pod-3".to_owned(), ..pod });
    let stranger =
        NodeStatus { cluster_id: 77, member_id: 7, name: "demo-3".to_owned(), ..seen.nodes[&2].clone() };
    seen.nodes.insert(3, stranger);
    let mark = Mark { cluster: 77, member: 7, removed: None };
    assert_eq!(marks(&wants(4), &seen).get(&3), Some(&mark));

    seen.claims.get_mut(&3).expect("a claim").mark = Some(mark);
    seen.pods.remove(&3);
    seen.nodes.remove(&3);
    assert_eq!(plan(&wants(3), &seen, 99).step, None);
}

/// A third member that does not serve for this cause, as the observer finds it, for so long.
fn lost(cause: Cause, lasting: Duration) -> Observed {
    let mut seen = calm(3);
    seen.nodes.remove(&2);
    lead(&mut seen).progress.insert(member_id(2), Progress::default());
    let pod = seen.pods.get_mut(&2).expect("a pod");
    (pod.ready, pod.pod_ready, pod.running, pod.pending) = (false, false, false, true);
    let kept = Some(false);
    let volume = Some("pv-2".to_owned());
    seen.claims.insert(2, ClaimState { retained: kept, volume, ..claim("claim-2") });
    seen.troubles = vec![Trouble { ordinal: 2, cause, message: "for a test".to_owned(), lasting }];
    seen
}

#[test]
fn a_member_whose_volume_is_on_a_machine_that_is_gone_is_replaced_and_its_volume_kept_first() {
    let mut seen = lost(Cause::VolumeOnGoneNode, Duration::from_secs(10));
    assert!(matches!(step(&seen, 3).course, Course::Wait(_)), "the machine may register itself again");
    seen.troubles[0].lasting = Duration::from_mins(2);
    let found = step(&seen, 3);
    assert_eq!(found.kind, StepKind::ReplaceMember);
    let retain = Action::RetainVolume { ordinal: 2, volume: "pv-2".to_owned(), claim: "claim-2".to_owned() };
    assert_eq!(found.course, Course::Act(retain));
    seen.claims.get_mut(&2).expect("a claim").retained = Some(true);
    let found = step(&seen, 3);
    assert!(found.reason.contains("pv-2 is kept"), "the event names it: {}", found.reason);
    let delete = Action::DeleteClaim { ordinal: 2, uid: "claim-2".to_owned() };
    assert_eq!(found.course, Course::Act(delete.clone()));
    seen.claims.get_mut(&2).expect("a claim").terminating = true;
    assert!(matches!(step(&seen, 3).course, Course::Act(Action::EndPod { ordinal: 2, .. })));

    seen.claims.get_mut(&2).expect("a claim").terminating = false;
    seen.claims.get_mut(&2).expect("a claim").retained = None;
    let Course::Refuse(until) = step(&seen, 3).course else { panic!("it may not be read") };
    assert!(until.contains("pv-2") && until.contains("Retain"), "{until}");
    seen.claims.get_mut(&2).expect("a claim").retained = Some(true);
    lead(&mut seen).progress.insert(member_id(1), Progress::default());
    assert!(matches!(step(&seen, 3).course, Course::Refuse(_)), "the others do not hold the quorum");
}

#[test]
fn other_causes_have_patience_and_some_are_peoples() {
    let patience = Duration::from_mins(30);
    for cause in [Cause::Damaged, Cause::DiskFailed, Cause::VolumeOnAwayNode] {
        let found = step(&lost(cause, Duration::from_mins(29)), 3);
        assert_eq!(found.course, Course::Wait("it to come back, for 30m".to_owned()), "{cause:?}");
        assert!(step(&lost(cause, patience), 3).action().is_some(), "{cause:?}");
    }
    let long = Duration::from_hours(100);
    for cause in [Cause::Contradicted, Cause::CrashLoop, Cause::VolumeFull, Cause::NodeAway, Cause::Foreign] {
        assert_eq!(plan(&wants(3), &lost(cause, long), 99).action(), None, "{cause:?}");
    }
    let never = Replacement { automatic: BTreeSet::new(), patience: None };
    let never = Wanted { replacement: never, ..wants(3) };
    let found = plan(&never, &lost(Cause::VolumeOnGoneNode, long), 99).step.expect("it is told");
    assert!(matches!(&found.course, Course::Refuse(until) if until.contains("data-demo-2")), "{found:?}");
}

#[test]
fn one_member_is_replaced_at_a_time() {
    let long = Duration::from_hours(1);
    let mut seen = calm(5);
    let third = lost(Cause::Damaged, long);
    seen.nodes.remove(&2);
    seen.nodes.remove(&4);
    for ordinal in [2, 4] {
        lead(&mut seen).progress.insert(member_id(ordinal), Progress::default());
        seen.pods.insert(ordinal, third.pods[&2].clone());
        let volume = ClaimState { retained: Some(true), ..third.claims[&2].clone() };
        seen.claims.insert(ordinal, volume);
        seen.troubles.push(Trouble { ordinal, ..third.troubles[0].clone() });
    }
    let Course::Act(Action::DeleteClaim { ordinal: 2, .. }) = step(&seen, 5).course else {
        panic!("{:?}", step(&seen, 5))
    };
    seen.claims.remove(&2);
    seen.pods.get_mut(&2).expect("a pod").terminating = true;
    let found = step(&seen, 5);
    assert_eq!(
        found.course,
        Course::Wait("demo-2 to be replaced first: one member goes at a time".to_owned())
    );
}

#[test]
fn a_member_that_leaves_is_not_replaced_and_holds_up_nobody() {
    let long = Duration::from_hours(1);
    let seen = lost(Cause::Damaged, long);
    assert!(!matches!(step(&seen, 2).kind, StepKind::ReplaceMember), "{:?}", step(&seen, 2));
    let mut both = lost(Cause::VolumeOnGoneNode, long);
    both.claims.get_mut(&2).expect("a claim").terminating = true;
    let calm = calm(5);
    for ordinal in [3, 4] {
        both.pods.insert(ordinal, calm.pods[&ordinal].clone());
    }
    let found = plan(&wants(2), &both, 99);
    assert!(found.step.is_none_or(|step| step.kind != StepKind::ReplaceMember));
}
