//! A cluster without pods.

use super::*;

fn sleeping() -> Wanted {
    Wanted { hibernate: true, ..wants(3) }
}

#[test]
fn pods_go_and_nothing_else_is_done() {
    let mut seen = calm(5);
    let found = plan(&sleeping(), &seen, 99);
    assert_eq!(found.pods, 0, "also of members that are to leave");
    let step = found.step.expect("a step");
    assert!(matches!(step.course, Course::Wait(_)), "{step:?}");
    assert!(found.budget.always_allow);
    (seen.pods, seen.nodes) = ([].into(), [].into());
    assert_eq!(plan(&sleeping(), &seen, 99).step, None, "it sleeps");
}

#[test]
fn cluster_wakes_with_all_pods_that_its_members_need() {
    let mut seen = calm(5);
    (seen.pods, seen.nodes) = ([].into(), [].into());
    seen.stateful_set.as_mut().expect("a set").replicas = 0;
    let found = plan(&wants(3), &seen, 99);
    assert_eq!(found.pods, 5, "the spec wants 3, and the members of before are 5");
    assert!(found.budget.min_available >= 3);
}

#[test]
fn volume_that_would_go_with_its_pod_is_mended_first() {
    let mut seen = calm(3);
    seen.claims.get_mut(&2).expect("a claim").terminating = true;
    let found = plan(&sleeping(), &seen, 99);
    assert_eq!(found.pods, 3);
    let step = found.step.expect("a step");
    assert!(matches!(step.course, Course::Act(Action::EndPod { ordinal: 2, .. })), "{step:?}");
}
