//! The cluster's ID, and its first node.
//!
//! A cluster is founded once. Two clusters of one ID would take each other's logs for their own; so whatever may already be a
//! cluster, silent volumes above all, stands in the way of founding one.

use std::collections::BTreeSet;

use super::{Action, Step, StepKind};
use crate::membership::Ordinal;
use crate::observed::{NodeStatus, Observed};

/// Waits while an object of an earlier cluster of this name is there: Kubernetes takes it away, and its pods with it.
pub(super) fn earlier(seen: &Observed) -> Option<Step> {
    let object = seen.earlier.as_ref()?;
    Some(Step::wait(
        StepKind::ChooseIdentity,
        format!("{object} belongs to an earlier cluster of this name"),
        format!("{object} to be gone: delete it if it stays"),
    ))
}

/// Two processes that run as one member vote and acknowledge twice. Nothing is done that counts on either.
pub(super) fn duplicates(seen: &Observed) -> Option<Step> {
    let kind = StepKind::ResolveDuplicate;
    if let Some((id, pods)) = seen.duplicate() {
        let pods = pods.into_iter().map(|ordinal| seen.pod_name(ordinal)).collect::<Vec<_>>().join(" and ");
        return Some(Step::refuse(
            kind,
            format!("{pods} run as the same member, {id:016x}: the volume of one is a copy of the other's"),
            "the copy to go: delete the claim and the pod that got it, and a new member takes its place",
        ));
    }
    let (ordinal, conflict) = seen.conflict()?;
    Some(Step::refuse(
        kind,
        format!("{} has met a second process that runs as a member: {conflict}", seen.pod_name(ordinal)),
        "that process to end, wherever it runs",
    ))
}

/// Gives the cluster its ID: a new one where nothing has ever been, or that of the volumes that are there.
///
/// A new ID among old volumes would found a second cluster beside the data, and the first volume that answers may be a stranger's.
/// So while any volume is there, nothing is chosen before every node has answered, or a quorum of one cluster has. And while anything is still being deleted, nothing is chosen: what
/// is there may be a cluster of the same name that is going.
pub(super) fn choose(pods: u32, seen: &Observed, fresh: u64) -> Option<Step> {
    let kind = StepKind::ChooseIdentity;
    if seen.identity.is_some() {
        return None;
    }
    let nothing_yet = seen.stateful_set.is_none() && seen.claims.is_empty() && seen.pods.is_empty();
    if nothing_yet {
        return Some(Step::act(kind, "a new cluster needs an ID", new(fresh)));
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
            format!(
                "{going} to be gone, with its volume where that goes too; a pod whose claim is being deleted holds it until the \
                 pod is deleted"
            ),
        ));
    }
    let found: BTreeSet<u64> =
        seen.nodes.values().map(|node| node.cluster_id).filter(|&cluster| cluster != 0).collect();
    let silent = silent(pods, seen);
    let mut found = found.into_iter();
    match (found.next(), found.next()) {
        (Some(one), Some(other)) => Some(Step::refuse(
            kind,
            format!("the volumes belong to different clusters, {one:016x} and {other:016x} among them"),
            "all volumes to belong to one cluster: delete the claims that do not",
        )),
        (Some(id), None) if silent.is_empty() || has_quorum(seen, id) => Some(Step::act(
            kind,
            "the volumes hold a cluster already: it is taken up again",
            Action::SetIdentity { id, founded: true },
        )),
        (None, _) if silent.is_empty() => Some(Step::act(kind, "all volumes are empty", new(fresh))),
        _ => Some(Step::wait(
            kind,
            "volumes are there already, and may hold a cluster",
            format!("{} to say which cluster they belong to", silent.join(", ")),
        )),
    }
}

fn new(id: u64) -> Action {
    Action::SetIdentity { id, founded: false }
}

/// The pods, and the volumes, of which it is not known what they hold.
fn silent(pods: u32, seen: &Observed) -> Vec<String> {
    let with_volumes = seen.claims.iter().filter(|(_, claim)| claim.bound).map(|(&ordinal, _)| ordinal);
    let all: BTreeSet<Ordinal> = (0..pods).chain(with_volumes).collect();
    all.into_iter()
        .filter(|ordinal| !seen.nodes.contains_key(ordinal))
        .map(|ordinal| seen.awaited(ordinal))
        .collect()
}

/// Whether those who answered hold a quorum of the newest configuration that any of them knows: then it is that cluster whose
/// volumes these are, whoever is silent.
fn has_quorum(seen: &Observed, cluster: u64) -> bool {
    let members = || seen.nodes.values().filter(|node| node.cluster_id == cluster);
    let newest = members().filter_map(|node| node.configuration.as_ref()).max_by_key(|state| state.id);
    let answered = |id| members().any(|node: &NodeStatus| node.member_id == id);
    newest.is_some_and(|state| state.configuration.has_quorum(answered))
}

/// Makes the first node a cluster of one. The others join it.
///
/// The ID is this resource's own, chosen when all was empty. What is silent now may have been founded with it since: so every
/// volume has to say that it is empty.
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
    if let Some((&ordinal, node)) = seen.nodes.iter().find(|(_, node)| node.cluster_id != 0) {
        let pod = seen.pod_name(ordinal);
        return Some(Step::refuse(
            kind,
            format!("the volume of {pod} belongs to cluster {:016x}", node.cluster_id),
            format!("an empty volume: delete the claim data-{pod} if its data is not needed"),
        ));
    }
    let silent = silent(1, seen);
    if !silent.is_empty() {
        let reason = "a cluster begins with its first node, when all volumes are known to be empty";
        return Some(Step::wait(kind, reason, format!("{} to answer", silent.join(", "))));
    }
    let action = Action::Bootstrap { ordinal: 0, cluster_id };
    Some(Step::act(kind, format!("{first} is empty and ready"), action))
}
