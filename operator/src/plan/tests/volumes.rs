//! Which volumes go, and when.

use std::time::Duration;

use super::*;

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
