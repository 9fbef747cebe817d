//! What the members are, as labels on their pods: by them a Service finds the one that leads. Pure.

use std::collections::BTreeMap;

use crate::membership::Ordinal;
use crate::observed::Observed;

/// The label of the pod whose member leads.
pub const LEADER: &str = "leader";
const FOLLOWER: &str = "follower";
const LEARNER: &str = "learner";

/// The labels that have to change: none for one that has to go. The pod that leads comes last, so that never two are called so.
///
/// While no leader is confirmed all stay as they are: whoever is asked meanwhile says so.
pub fn changes(seen: &Observed) -> Vec<(Ordinal, Option<&'static str>)> {
    let Some(leader) = seen.confirmed_leader() else { return Vec::new() };
    let configuration = leader.configuration();
    let role = |ordinal: Ordinal| {
        let member = seen.occupant(ordinal)?.member_id;
        if member == leader.status.member_id {
            Some(LEADER)
        } else if configuration.voters.contains(&member) || configuration.outgoing.contains(&member) {
            Some(FOLLOWER)
        } else {
            configuration.learners.contains(&member).then_some(LEARNER)
        }
    };
    let wanted: BTreeMap<Ordinal, Option<&'static str>> = seen
        .pods
        .iter()
        .filter(|(_, pod)| !pod.terminating)
        // One that does not answer is what it was, unless that was the leader.
        .filter(|(ordinal, pod)| seen.occupant(**ordinal).is_some() || pod.role.as_deref() == Some(LEADER))
        .map(|(&ordinal, _)| (ordinal, role(ordinal)))
        .collect();
    let mut changes: Vec<_> = wanted
        .into_iter()
        .filter(|(ordinal, role)| seen.pods.get(ordinal).is_some_and(|pod| pod.role.as_deref() != *role))
        .collect();
    changes.sort_by_key(|(_, role)| *role == Some(LEADER));
    changes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::membership::{Configuration, Member};
    use crate::observed::{ConfigurationState, NodeStatus, PodState, Role};

    /// Three members, of which the last is a learner; `leads` leads.
    fn seen(leads: Ordinal, labels: [Option<&str>; 3]) -> Observed {
        let mut seen = Observed { name: "demo".into(), identity: Some(1), ..Observed::default() };
        let member = |id: u64| Member {
            name: format!("demo-{}", id - 10),
            peer_address: String::new(),
            client_urls: Vec::new(),
        };
        let configuration = Configuration {
            voters: [10, 11].into(),
            learners: [12].into(),
            members: (10..13).map(|id| (id, member(id))).collect(),
            ..Configuration::default()
        };
        for (ordinal, label) in (0u32..).zip(labels) {
            let pod = PodState { role: label.map(str::to_owned), ..PodState::default() };
            seen.pods.insert(ordinal, pod);
            let state = ConfigurationState { configuration: configuration.clone(), ..Default::default() };
            let node = NodeStatus {
                name: format!("demo-{ordinal}"),
                cluster_id: 1,
                member_id: u64::from(ordinal) + 10,
                role: if ordinal == leads { Role::Leader } else { Role::Follower },
                term: 3,
                configuration: Some(state),
                ..NodeStatus::default()
            };
            seen.nodes.insert(ordinal, node);
        }
        seen
    }

    #[test]
    fn the_old_leader_loses_its_label_before_the_new_one_gets_it() {
        let moved = seen(0, [Some("follower"), Some("leader"), Some("learner")]);
        assert_eq!(changes(&moved), [(1, Some("follower")), (0, Some("leader"))]);
        let fresh = seen(1, [None, None, None]);
        assert_eq!(changes(&fresh), [(0, Some("follower")), (2, Some("learner")), (1, Some("leader"))]);
        assert_eq!(changes(&seen(1, [Some("follower"), Some("leader"), Some("learner")])), []);
    }

    #[test]
    fn labels_stay_while_no_leader_is_confirmed_and_where_a_node_does_not_answer() {
        let mut silent = seen(0, [Some("follower"), Some("leader"), Some("learner")]);
        for node in silent.nodes.values_mut() {
            node.role = Role::Follower;
        }
        assert_eq!(changes(&silent), []);
        let mut away = seen(0, [Some("leader"), Some("follower"), Some("learner")]);
        away.nodes.remove(&2);
        assert_eq!(changes(&away), []);
    }

    #[test]
    fn an_old_leader_that_does_not_answer_is_called_so_no_more() {
        let mut seen = seen(0, [Some("follower"), Some("follower"), Some("leader")]);
        seen.nodes.remove(&2);
        assert_eq!(changes(&seen), [(2, None), (0, Some("leader"))]);
    }
}
