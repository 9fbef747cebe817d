//! Whose answer an answer is: addresses go stale, and volumes are copied.

use super::*;

#[test]
fn an_address_that_answers_as_another_member_removes_nobody() {
    let mut seen = calm(3);
    let other = seen.nodes[&2].clone();
    seen.nodes.insert(1, other);
    let found = plan(&wants(3), &seen, 99);
    assert!(!matches!(found.action(), Some(Action::ChangeMembership { .. })), "{found:?}");
}

#[test]
fn a_copy_of_a_volume_removes_nobody() {
    let mut seen = calm(3);
    let mut copy = seen.nodes[&0].clone();
    (copy.role, copy.progress) = (Role::Follower, [].into());
    seen.nodes.insert(1, copy);
    let found = plan(&wants(3), &seen, 99);
    assert!(found.step.is_some() && found.action().is_none(), "{found:?}");
}

#[test]
fn a_member_in_another_members_pod_takes_nobodys_place() {
    let mut seen = calm(3);
    let moved = seen.nodes.remove(&2).expect("a node");
    seen.nodes.insert(1, moved);
    let found = plan(&wants(3), &seen, 99);
    assert!(found.step.is_some() && found.action().is_none(), "{found:?}");
}
