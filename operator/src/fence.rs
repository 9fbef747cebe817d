//! What is read again right before an act that cannot be undone.
//!
//! A round sees a cluster in several reads, and a machine may stop for a while between any two. So the pod, its claim and the leader are
//! read once more, the lease is known to be held, and all of it is younger than `FRESH` when the act is sent.

use std::time::Duration;

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::{Api, Client, ResourceExt};
use tokio::time::Instant;

use crate::causes;
use crate::lease::Held;
use crate::membership::{MemberId, Ordinal};
use crate::nodes::{Admin, Target};
use crate::observe::{LOST, Sight};
use crate::observed::{ClaimState, Leader, Machine, NodeStatus, Progress, Role};
use crate::pod_state::pod_state;

/// What an act rests on is younger than this.
const FRESH: Duration = Duration::from_secs(2);

/// What is asked, and by whom.
pub struct Fence<'a> {
    /// The API server.
    pub client: &'a Client,
    /// The nodes.
    pub admin: &'a dyn Admin,
    /// Whether this operator is the one that acts.
    pub held: &'a Held,
    /// The namespace of the cluster.
    pub namespace: &'a str,
    /// What the act was planned on.
    pub sight: &'a Sight,
}

/// The version of the object that an act is on, or what it has to wait for.
pub type Verdict = Result<String, String>;

impl Fence<'_> {
    /// Whether the pod is still the one that was seen, and its end still costs what it cost. Returns its version.
    pub async fn pod(&self, ordinal: Ordinal, claim: &str) -> Verdict {
        let began = Instant::now();
        let name = self.sight.observed.pod_name(ordinal);
        let api = Api::<Pod>::namespaced(self.client.clone(), self.namespace);
        let reads = async {
            futures::join!(api.get_opt(&name), self.claim_stands(ordinal, claim), self.leader_stands())
        };
        let Ok((pod, claim, leader)) = tokio::time::timeout(FRESH, reads).await else { return Err(slow()) };
        let seen = self.sight.observed.pods.get(&ordinal);
        let pod = pod.ok().flatten().filter(|pod| pod.uid().as_ref() == seen.map(|seen| &seen.uid));
        let Some(pod) = pod.filter(|pod| pod.metadata.deletion_timestamp.is_none()) else {
            return Err(format!("{name} to be seen again: it has changed"));
        };
        claim?;
        leader?;
        self.in_time(began)?;
        Ok(pod.resource_version().unwrap_or_default())
    }

    /// Whether the claim is still the one that was seen, and not needed: a pod that was not ready may be again. Returns its version.
    pub async fn claim(&self, ordinal: Ordinal, claim: &str) -> Verdict {
        let began = Instant::now();
        let name = self.sight.observed.pod_name(ordinal);
        let api = Api::<Pod>::namespaced(self.client.clone(), self.namespace);
        let reads = async {
            futures::join!(api.get_opt(&name), self.claim_stands(ordinal, claim), self.leader_stands())
        };
        let Ok((pod, claim, leader)) = tokio::time::timeout(FRESH, reads).await else { return Err(slow()) };
        let pod = pod.map_err(|error| format!("the pod {name} to be read: {error}"))?;
        if pod.is_some_and(|pod| pod_state(&pod).ready) {
            return Err(format!("{name} to be seen again: it is ready"));
        }
        if self.machine_is_back(ordinal).await {
            return Err(format!("{name} to be seen again: the Kubernetes node of its volume has changed"));
        }
        leader?;
        let version = claim?;
        self.in_time(began)?;
        version.ok_or_else(|| "the claim to be seen again: it is gone".to_owned())
    }

    /// Whether this operator is the one that acts, where nothing else has to be read again.
    pub fn lease(&self) -> Result<(), String> {
        self.in_time(Instant::now())
    }

    /// Whether a node may be told to found the cluster: all that answered did so just now.
    pub fn founding(&self) -> Result<(), String> {
        self.in_time(self.sight.taken)
    }

    /// Whether the Kubernetes node that a volume is bound to is another than it was seen to be: that it was gone may have been why the claim
    /// was to go.
    async fn machine_is_back(&self, ordinal: Ordinal) -> bool {
        let seen = &self.sight.observed;
        let Some(name) = seen.claims.get(&ordinal).and_then(|claim| claim.machine.as_ref()) else {
            return false;
        };
        let Some(before) = seen.machines.get(name).filter(|before| **before != Machine::Ready) else {
            return false;
        };
        causes::machine(self.client, name).await.as_ref() != Some(before)
    }

    /// The version of the claim as it is now: absent where there was none and is none.
    async fn claim_stands(&self, ordinal: Ordinal, name: &str) -> Result<Option<String>, String> {
        let api = Api::<PersistentVolumeClaim>::namespaced(self.client.clone(), self.namespace);
        let seen = self.sight.observed.claims.get(&ordinal);
        let changed = || format!("the claim {name} to be seen again: it has changed");
        let now = api.get_opt(name).await.map_err(|error| format!("the claim {name} to be read: {error}"))?;
        let same = match (seen, &now) {
            (None, None) => true,
            (Some(seen), Some(now)) => stands_for(seen, now),
            _ => false,
        };
        if same { Ok(now.and_then(|now| now.resource_version())) } else { Err(changed()) }
    }

    /// Whether the leader that the plan counts on still leads, in the same term, with the same configuration, and hears of all whom it
    /// heard. Where none was known the plan does not count on one.
    async fn leader_stands(&self) -> Result<(), String> {
        let Some(leader) = self.sight.observed.leader() else { return Ok(()) };
        let pod = self.sight.observed.pod_name(leader.ordinal);
        let target: Option<&Target> = self.sight.targets.get(&leader.ordinal);
        let Some(target) = target else { return Err(format!("{pod} to have an address")) };
        let now =
            self.admin.status(target).await.map_err(|error| format!("the leader to answer: {error}"))?;
        if stands(leader, &now) {
            Ok(())
        } else {
            Err(format!("{pod} to be seen again: what it says has changed"))
        }
    }

    fn in_time(&self, began: Instant) -> Result<(), String> {
        if !self.held.is_fresh() {
            return Err("the operator's lease to be renewed".to_owned());
        }
        if began.elapsed() > FRESH { Err(slow()) } else { Ok(()) }
    }
}

/// Whether the claim is as it was seen: that its volume is missing may have been why it was to go.
fn stands_for(seen: &ClaimState, now: &PersistentVolumeClaim) -> bool {
    let phase = now.status.as_ref().and_then(|status| status.phase.as_deref());
    Some(&seen.uid) == now.uid().as_ref()
        && seen.terminating == now.metadata.deletion_timestamp.is_some()
        && seen.lost.is_some() == (phase == Some(LOST))
}

fn slow() -> String {
    format!("what was seen to be younger than {} s", FRESH.as_secs())
}

fn stands(before: Leader<'_>, now: &NodeStatus) -> bool {
    let heard = |id: &MemberId, progress: &Progress| {
        let now = now.progress.get(id);
        !(progress.active && progress.caught_up) || now.is_some_and(|now| now.active && now.caught_up)
    };
    now.role == Role::Leader
        && (now.cluster_id, now.member_id, now.term)
            == (before.status.cluster_id, before.status.member_id, before.status.term)
        && now.configuration.as_ref().is_some_and(|state| state.id == before.state.id && state.committed)
        && before.status.progress.iter().all(|(id, progress)| heard(id, progress))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observed::ConfigurationState;

    #[test]
    fn a_claim_whose_volume_has_come_back_is_seen_again() {
        let claim = |phase: &str| {
            let claim = serde_json::json!({"metadata": {"uid": "a"}, "status": {"phase": phase}});
            serde_json::from_value::<PersistentVolumeClaim>(claim).unwrap()
        };
        let lost = ClaimState { uid: "a".to_owned(), lost: Some(FRESH), ..ClaimState::default() };
        assert!(stands_for(&lost, &claim("Lost")) && !stands_for(&lost, &claim("Bound")));
        let bound = ClaimState { lost: None, ..lost };
        assert!(stands_for(&bound, &claim("Bound")) && !stands_for(&bound, &claim("Lost")));
    }

    #[test]
    fn a_leader_stands_only_as_it_was_seen() {
        let well = Progress { active: true, caught_up: true };
        let state = ConfigurationState { committed: true, ..ConfigurationState::default() };
        let before = NodeStatus {
            role: Role::Leader,
            term: 3,
            configuration: Some(state.clone()),
            progress: [(1, well), (2, Progress::default())].into(),
            ..NodeStatus::default()
        };
        let leader = Leader { ordinal: 0, status: &before, state: &state };
        assert!(stands(leader, &before));
        let changes: [fn(&mut NodeStatus); 4] = [
            |now| now.role = Role::Follower,
            |now| now.term = 4,
            |now| now.progress = [(1, Progress { active: false, caught_up: true })].into(),
            |now| now.configuration = None,
        ];
        for change in changes {
            let mut now = before.clone();
            change(&mut now);
            assert!(!stands(leader, &now), "{now:?}");
        }
        let mut better = before.clone();
        better.progress.insert(2, well);
        assert!(stands(leader, &better), "one more is well");
    }
}
