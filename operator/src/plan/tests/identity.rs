//! One cluster is founded once, whatever becomes of the resource, its status and its volumes.

use super::*;

/// Retained volumes, and a resource that knows nothing of them yet.
fn made_anew(voters: u32) -> Observed {
    let mut seen = calm(voters);
    (seen.identity, seen.bootstrapped) = (None, false);
    seen
}

fn empty(seen: &mut Observed, ordinal: Ordinal) {
    let node = seen.nodes.get_mut(&ordinal).expect("a node");
    (node.member_id, node.cluster_id, node.role) = (70 + u64::from(ordinal), 0, Role::Waiting);
    node.configuration = None;
    node.progress = [].into();
}

#[test]
fn an_id_with_volumes_that_are_silent_founds_nothing() {
    let mut seen = calm(3);
    seen.bootstrapped = false;
    empty(&mut seen, 0);
    seen.nodes.retain(|&ordinal, _| ordinal == 0);
    let found = step(&seen, 3);
    assert_eq!(found.kind, StepKind::Bootstrap);
    assert!(matches!(found.course, Course::Wait(_)), "they may hold the cluster: {found:?}");
}

#[test]
fn volumes_of_another_cluster_do_not_decide_by_answering_first() {
    let mut seen = made_anew(3);
    let mut older = seen.nodes[&1].clone();
    (older.cluster_id, older.member_id) = (5, 50);
    seen.nodes = [(3, older)].into();
    for ordinal in 3..5 {
        let (claim, pod) = (seen.claims[&0].clone(), seen.pods[&0].clone());
        seen.claims.insert(ordinal, claim);
        seen.pods.insert(ordinal, pod);
    }
    seen.stateful_set.as_mut().expect("a set").replicas = 5;
    let found = step(&seen, 3);
    assert!(matches!(found.course, Course::Wait(_)), "{found:?}");
}
