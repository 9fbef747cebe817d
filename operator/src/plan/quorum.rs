//! A cluster without a leader: which of its voters are here, away, gone, or somebody else's, and so what brings the quorum back.

use quorate_crds::Cause;

use super::{Step, StepKind};
use crate::membership::{Configuration, MemberId, Ordinal, majority};
use crate::observed::Observed;

/// Where a voter is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// It answers.
    Here,
    /// It does not, and its volume is there as far as anybody knows.
    Away,
    /// Its volume is gone, or of no use.
    Gone,
    /// Its pod has the volume of another cluster.
    Foreign,
}

/// What a cluster waits for that has no leader.
pub(super) fn wait_for_leader(seen: &Observed) -> Step {
    let kind = StepKind::ElectLeader;
    let voters = voters(seen);
    let at = |place: Place| -> Vec<String> {
        let those = voters.iter().filter(|(ordinal, id)| self::place(seen, *ordinal, *id) == place);
        those.map(|&(ordinal, _)| seen.awaited(ordinal)).collect()
    };
    let [here, away, gone, foreign] = [Place::Here, Place::Away, Place::Gone, Place::Foreign].map(at);
    let needed = majority(voters.len());
    let reason = format!("no node says that it leads, and {} of {} voters answer", here.len(), voters.len());
    let list = |what: &str, pods: &[String]| {
        if pods.is_empty() { String::new() } else { format!("; {what}: {}", pods.join(", ")) }
    };
    let others =
        format!("{}{}", list("gone for good", &gone), list("with the volume of another cluster", &foreign));
    if voters.is_empty() || here.len() >= needed {
        let until = format!("a majority of the voters to reach one another{}{others}", list("away", &away));
        return Step::wait(kind, reason, until);
    }
    if here.len() + away.len() >= needed {
        let until =
            format!("{} more of the voters to be back: {}{others}", needed - here.len(), away.join(", "));
        return Step::wait(kind, reason, until);
    }
    let until = format!(
        "{needed} of the {} voters, and there are {} with a volume{others}. Bring their volumes back, or give up what only they hold: \
         kubectl raft recover {}",
        voters.len(),
        here.len() + away.len(),
        seen.name
    );
    Step::refuse(kind, reason, until)
}

/// The voters of the newest configuration that a node knows, or the members that the status names.
fn voters(seen: &Observed) -> Vec<(Ordinal, MemberId)> {
    let ours = seen.nodes.values().filter(|node| Some(node.cluster_id) == seen.identity);
    let newest = ours.filter_map(|node| node.configuration.as_ref()).max_by_key(|state| state.id);
    let named = |configuration: &Configuration| {
        let ordinal = |id: MemberId| Some((configuration.ordinal(&seen.name, id)?, id));
        configuration.voters.iter().filter_map(|&id| ordinal(id)).collect()
    };
    let recorded = || seen.recorded.iter().map(|(&ordinal, known)| (ordinal, known.member)).collect();
    let mut all: Vec<_> = newest.map_or_else(recorded, |state| named(&state.configuration));
    all.sort_unstable();
    all
}

fn place(seen: &Observed, ordinal: Ordinal, id: MemberId) -> Place {
    if seen.nodes.values().any(|node| node.member_id == id && Some(node.cluster_id) == seen.identity) {
        return Place::Here;
    }
    if let Some(node) = seen.nodes.get(&ordinal) {
        let foreign = node.cluster_id != 0 && Some(node.cluster_id) != seen.identity;
        return if foreign { Place::Foreign } else { Place::Gone };
    }
    let gone = |cause| matches!(cause, Cause::VolumeOnGoneNode | Cause::VolumeMissing | Cause::Damaged);
    match seen.claims.get(&ordinal) {
        None => Place::Gone,
        Some(claim) if claim.lost.is_some() || !claim.bound => Place::Gone,
        Some(_) if seen.trouble(ordinal).is_some_and(|trouble| gone(trouble.cause)) => Place::Gone,
        Some(_) if seen.trouble(ordinal).is_some_and(|trouble| trouble.cause == Cause::Foreign) => {
            Place::Foreign
        }
        Some(_) => Place::Away,
    }
}
