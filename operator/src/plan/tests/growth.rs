//! Larger volumes, to their end.

use super::*;

const GI: u128 = 1 << 30;

fn wants_size(size: u128) -> Wanted {
    Wanted { volume_size: Some(size), ..wants(3) }
}

/// Claims that ask for this size, and a `StatefulSet` whose new ones would ask for 1Gi.
fn grown(size: &str) -> Observed {
    let mut seen = calm(3);
    let set = seen.stateful_set.as_mut().expect("a set");
    (set.uid, set.claim_size) = ("set".to_owned(), Some("1Gi".to_owned()));
    seen.claims.values_mut().for_each(|claim| claim.size = Some(size.to_owned()));
    seen
}

#[test]
fn set_is_made_again_when_all_claims_have_grown_and_its_pods_are_there() {
    let remade = Course::Act(Action::RemakeStatefulSet { uid: "set".to_owned() });
    let step = plan(&wants_size(2 * GI), &grown("2Gi"), 99).step.expect("a step");
    assert_eq!(step.course, remade);
    let changes: [fn(&mut Observed); 4] = [
        |seen| seen.claims.get_mut(&1).expect("a claim").size = Some("1Gi".to_owned()),
        |seen| seen.pods.get_mut(&1).expect("a pod").terminating = true,
        |seen| seen.keeps_template = true,
        |seen| seen.stateful_set.as_mut().expect("a set").claim_size = Some("2048Mi".to_owned()),
    ];
    for change in changes {
        let mut seen = grown("2Gi");
        change(&mut seen);
        let step = plan(&wants_size(2 * GI), &seen, 99).step;
        assert!(step.is_none_or(|step| step.course != remade), "{seen:#?}");
    }
    assert_eq!(plan(&wants_size(GI), &grown("1Gi"), 99).step, None);
}

#[test]
fn while_the_set_goes_nothing_is_done() {
    let mut seen = grown("2Gi");
    seen.stateful_set.as_mut().expect("a set").terminating = true;
    let found = plan(&wants_size(2 * GI), &seen, 99);
    assert!(matches!(found.step, Some(Step { course: Course::Wait(_), .. })), "{found:?}");
    assert_eq!(found.budget.min_available, 2);
}

#[test]
fn pods_start_anew_for_their_file_systems_one_by_one_and_the_leader_hands_over() {
    let mut seen = calm(3);
    seen.claims.values_mut().for_each(|claim| claim.needs_restart = true);
    let step = |seen: &Observed| plan(&wants(3), seen, 99).step.expect("a step");
    let first = step(&seen);
    assert!(matches!(first.course, Course::Act(Action::EndPod { ordinal: 1, .. })), "{first:?}");
    let mut away = seen.clone();
    let pod = away.pods.get_mut(&1).expect("a pod");
    (pod.ready, pod.pod_ready) = (false, false);
    assert!(!matches!(step(&away).course, Course::Act(Action::EndPod { ordinal: 2, .. })));
    for ordinal in 1..3 {
        seen.claims.get_mut(&ordinal).expect("a claim").needs_restart = false;
    }
    assert_eq!(step(&seen).kind, StepKind::TransferLeadership, "demo-0 leads");
}
