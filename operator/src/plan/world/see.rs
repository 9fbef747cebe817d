//! What the operator sees of the world.

use std::collections::BTreeMap;

use super::{Claim, NAME, Pod, SETTLED, TICK, World};
use crate::membership::{MemberId, Ordinal};
use crate::observed::{
    ClaimState, Exit, Machine, NodeStatus, Observed, PodState, Progress, Role, StatefulSetState,
};
use crate::trouble::troubles;

/// The name of the machine that a volume is bound to.
fn machine_of(claim: &Claim) -> String {
    format!("machine-{}", claim.uid)
}

impl World {
    /// Observes the world; a node may fail to answer now and then.
    pub(in super::super) fn observe(&mut self, lossy: bool) -> Observed {
        let mut nodes = BTreeMap::new();
        for (&ordinal, pod) in &self.pods.clone() {
            let unheard = lossy && self.chance.one_in(8);
            let answers = self.wrong_addresses.get(&ordinal).copied().unwrap_or(ordinal);
            let runs = self.pods.get(&answers).is_some_and(|pod| pod.running);
            if pod.running && runs && !unheard {
                nodes.extend(self.node(answers).map(|node| (ordinal, node)));
            }
        }
        let pods = self.pods.iter().map(|(&ordinal, pod)| {
            let claim = self.claims.get(&ordinal).filter(|_| !pod.wedged);
            // A node ends again and again on a damaged volume, where its machine runs it.
            let crashes = claim.is_some_and(|claim| claim.damaged && claim.machine == Machine::Ready);
            let state = PodState {
                uid: pod.uid.to_string(),
                revision: Some(pod.revision.to_string()),
                terminating: pod.ends_in.is_some(),
                pending: !pod.running && !crashes,
                exit: crashes.then(|| Exit { code: 4, ..Exit::default() }),
                trouble: crashes.then(|| "CrashLoopBackOff".to_owned()),
                running: pod.running,
                ready: self.is_ready(ordinal),
                pod_ready: self.is_ready(ordinal) && !pod.beside_fails,
                stuck: pod.unready > SETTLED,
                ip: pod.running.then(|| "10.0.0.1".to_owned()),
                settled: pod.age > SETTLED,
                ..PodState::default()
            };
            (ordinal, state)
        });
        let claims = self.claims.iter().map(|(&ordinal, claim)| {
            let state = ClaimState {
                uid: claim.uid.to_string(),
                terminating: claim.terminating,
                bound: claim.lost.is_none(),
                lost: claim.lost.map(|lost| TICK * lost.ticks),
                ours: true,
                older: claim.older,
                size: Some(format!("{}Gi", claim.size)),
                volume: Some(format!("volume-{}", claim.uid)),
                mark: claim.mark,
                machine: Some(machine_of(claim)),
                retained: Some(claim.retained),
                ..ClaimState::default()
            };
            (ordinal, state)
        });
        let mut seen = Observed {
            name: NAME.to_owned(),
            identity: self.identity,
            bootstrapped: self.bootstrapped,
            earlier: self.set.filter(|set| set.earlier.is_some()).map(|_| "StatefulSet demo".to_owned()),
            recorded: self.recorded.clone(),
            raisable_for: self.raisable.map(|ticks| TICK * ticks),
            stateful_set: self.set_state(),
            pods: pods.collect(),
            claims: claims.collect(),
            recovery: self.recovery.clone(),
            recovery_pod: self.see_recovery(),
            machines: self.claims.values().map(|claim| (machine_of(claim), claim.machine)).collect(),
            ..Observed::default()
        };
        seen.take_answers(nodes);
        let before = std::mem::take(&mut self.ages);
        let (now, ages) = (self.now, &mut self.ages);
        seen.troubles = troubles(&seen, &mut |what| {
            let since = before.get(&what).copied().unwrap_or(now);
            ages.insert(what, since);
            TICK * (now - since)
        });
        seen
    }

    pub(super) fn set_state(&self) -> Option<StatefulSetState> {
        self.set.map(|set| StatefulSetState {
            replicas: set.replicas,
            update_revision: set.taken_up.then(|| set.revision.to_string()),
            terminating: set.going,
            claim_size: Some(format!("{}Gi", set.size)),
            ..StatefulSetState::default()
        })
    }

    pub(super) fn node(&self, ordinal: Ordinal) -> Option<NodeStatus> {
        let claim = self.claims.get(&ordinal)?;
        let deposed = self.cluster.as_ref().and_then(|cluster| cluster.deposed.as_ref());
        if let Some((_, said)) = deposed.filter(|(id, _)| *id == claim.member) {
            return Some(said.clone());
        }
        let mut node = NodeStatus {
            name: format!("{NAME}-{ordinal}"),
            cluster_id: claim.cluster,
            member_id: claim.member,
            peer_address: format!("{NAME}-{ordinal}:2380"),
            version: self.revision(ordinal).to_string(),
            newest_level: self.revision(ordinal),
            ..NodeStatus::default()
        };
        let Some(cluster) = self.cluster.as_ref().filter(|cluster| cluster.id == claim.cluster) else {
            return Some(node);
        };
        (node.term, node.level) = (cluster.term, cluster.level);
        node.role = if cluster.leader == Some(claim.member) {
            node.configuration = Some(cluster.state.clone());
            let members = cluster.state.configuration.ids().into_iter();
            let progress =
                |id| Progress { active: self.runs(id), caught_up: cluster.caught_up.contains(&id) };
            node.progress = members.map(|id| (id, progress(id))).collect();
            Role::Leader
        } else if cluster.state.configuration.contains(claim.member) {
            // What is not committed may not have reached it.
            let known = if cluster.state.committed { &cluster.state } else { &cluster.previous };
            node.configuration = Some(known.clone());
            Role::Follower
        } else {
            Role::Removed
        };
        Some(node)
    }

    /// The template that a pod was made from.
    pub(super) fn revision(&self, ordinal: Ordinal) -> u32 {
        self.pods.get(&ordinal).map_or(0, |pod| pod.revision)
    }

    /// Whether all members run in pods whose nodes support a level.
    pub(super) fn supports(&self, level: u32) -> bool {
        let Some(cluster) = &self.cluster else { return false };
        let here = |id: &MemberId| self.claims.iter().find(|(_, claim)| claim.member == *id).map(|(&o, _)| o);
        let supports = |id: &MemberId| here(id).is_some_and(|ordinal| self.revision(ordinal) >= level);
        cluster.state.configuration.ids().iter().all(supports)
    }

    pub(super) fn runs(&self, member: MemberId) -> bool {
        self.claims.iter().any(|(ordinal, claim)| {
            claim.member == member && self.pods.get(ordinal).is_some_and(|pod| pod.running)
        })
    }

    /// While there is no leader, nobody is ready. Learners never are.
    pub(super) fn is_ready(&self, ordinal: Ordinal) -> bool {
        let Some(cluster) = self.cluster.as_ref().filter(|cluster| cluster.leader.is_some()) else {
            return false;
        };
        let runs = self.pods.get(&ordinal).is_some_and(|pod| pod.running);
        let configuration = &cluster.state.configuration;
        // A copy that runs beside its original is refused by the others.
        let here = |id: MemberId| configuration.ordinal(NAME, id) == Some(ordinal);
        let serves =
            |id: MemberId| cluster.caught_up.contains(&id) && configuration.voters.contains(&id) && here(id);
        runs && self.claims.get(&ordinal).is_some_and(|claim| serves(claim.member))
    }

    /// Whether Kubernetes ends a pod that is asked to go.
    pub(super) fn admits(&self, ordinal: Ordinal) -> bool {
        let Some(pod) = self.pods.get(&ordinal) else { return false };
        let ready = |ordinal: Ordinal, pod: &Pod| self.is_ready(ordinal) && !pod.beside_fails;
        let healthy = self.pods.iter().filter(|(o, pod)| ready(**o, pod) && pod.ends_in.is_none()).count();
        !pod.running || self.budget.admits(ready(ordinal, pod), u32::try_from(healthy).unwrap_or(u32::MAX))
    }

    pub(super) fn leads(&self, ordinal: Ordinal) -> bool {
        let leader = self.cluster.as_ref().and_then(|cluster| cluster.leader);
        leader.is_some() && self.claims.get(&ordinal).map(|claim| claim.member) == leader
    }

    /// Whether the voters that run and stay, without this one, hold the majorities.
    pub(super) fn quorate_without(&self, gone: Option<MemberId>) -> bool {
        let stays = |id: MemberId| {
            self.claims.iter().any(|(ordinal, claim)| {
                let pod = self.pods.get(ordinal);
                claim.member == id && pod.is_some_and(|pod| pod.running && pod.ends_in.is_none())
            })
        };
        self.cluster
            .as_ref()
            .is_some_and(|cluster| cluster.state.configuration.has_quorum(|id| Some(id) != gone && stays(id)))
    }
}
