//! The cluster's ID, and its first node.

use std::collections::BTreeSet;

use super::{Action, Step, StepKind};
use crate::observed::Observed;

/// Gives the cluster its ID: a new one where nothing has ever been, or that of the volumes that are there.
///
/// A new ID among old volumes would found a second cluster beside the data. So while any volume is there, no new ID is
/// chosen before every node has answered that it is empty. And while anything is still being deleted, nothing is chosen: what
/// is there may be a cluster of the same name that is going.
pub(super) fn choose(pods: u32, seen: &Observed, fresh: u64) -> Option<Step> {
    let kind = StepKind::ChooseIdentity;
    if seen.identity.is_some() {
        return None;
    }
    let nothing_yet = seen.stateful_set.is_none() && seen.claims.is_empty() && seen.pods.is_empty();
    if nothing_yet {
        return Some(Step::act(kind, "a new cluster needs an ID", Action::SetIdentity(fresh)));
    }
    let pods_going = seen.pods.iter().filter(|(_, pod)| pod.terminating).map(|(ordinal, _)| ordinal);
    let claims_going = seen.claims.iter().filter(|(_, claim)| claim.terminating).map(|(ordinal, _)| ordinal);
    let going: BTreeSet<_> = pods_going.chain(claims_going).map(|&ordinal| seen.pod_name(ordinal)).collect();
    if !going.is_empty() {
        let going = going.into_iter().collect::<Vec<_>>().join(", ");
        let reason = "pods or volumes of an earlier cluster are being deleted";
        return Some(Step::wait(
            kind,
            reason,
            format!("{going} to be gone, with its volume where that goes too"),
        ));
    }
    let found: BTreeSet<u64> =
        seen.nodes.values().map(|node| node.cluster_id).filter(|&cluster| cluster != 0).collect();
    let mut found = found.into_iter();
    match (found.next(), found.next()) {
        (Some(id), None) => Some(Step::act(
            kind,
            "the volumes hold a cluster already: it is taken up again",
            Action::SetIdentity(id),
        )),
        (Some(one), Some(other)) => Some(Step::refuse(
            kind,
            format!("the volumes belong to different clusters, {one:016x} and {other:016x} among them"),
            "all volumes to belong to one cluster: delete the claims that do not",
        )),
        (None, _) => {
            let silent: Vec<_> = (0..pods)
                .filter(|ordinal| !seen.nodes.contains_key(ordinal))
                .map(|ordinal| seen.awaited(ordinal))
                .collect();
            if silent.is_empty() {
                return Some(Step::act(kind, "all volumes are empty", Action::SetIdentity(fresh)));
            }
            Some(Step::wait(
                kind,
                "volumes are there already, and may hold a cluster",
                format!("{} to say which cluster they belong to", silent.join(", ")),
            ))
        }
    }
}

/// Makes the first node a cluster of one. The others join it.
pub(super) fn bootstrap(seen: &Observed) -> Option<Step> {
    let kind = StepKind::Bootstrap;
    let cluster_id = seen.identity?;
    if seen.bootstrapped {
        return None;
    }
    if seen.founded() {
        return Some(Step::wait(kind, "the first node has founded the cluster", "the status to record it"));
    }
    let first = seen.pod_name(0);
    match seen.nodes.get(&0) {
        None => Some(Step::wait(
            kind,
            "a cluster begins with its first node",
            format!("{} to answer", seen.awaited(0)),
        )),
        Some(node) if node.cluster_id == 0 => Some(Step::act(
            kind,
            format!("{first} is empty and ready"),
            Action::Bootstrap { ordinal: 0, cluster_id },
        )),
        Some(node) => Some(Step::refuse(
            kind,
            format!("the volume of {first} belongs to cluster {:016x}", node.cluster_id),
            format!("an empty volume: delete the claim data-{first} if its data is not needed"),
        )),
    }
}
