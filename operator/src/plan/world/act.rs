//! What a plan does to the world.

use super::super::{Action, Means, Plan, Readiness, marks, readiness};
use super::{Cluster, NAME, Set, World};
use crate::membership::{Configuration, ConfigurationId, Ordinal, tolerance};
use crate::observed::{ConfigurationState, Observed, Recorded};

impl World {
    /// Writes the status and applies the objects, as the controller does before it acts.
    pub(super) fn apply(&mut self, plan: &Plan, seen: &Observed) {
        if let Some(Action::SetIdentity { id, founded }) = plan.action() {
            if self.identity.is_none() {
                self.identity = Some(*id);
                self.bootstrapped = *founded;
            }
            return;
        }
        match plan.action() {
            Some(Action::BeginRecovery(begun)) => return self.recovery = Some(begun.clone()),
            Some(Action::FinishRecovery(finished)) => {
                assert_eq!(self.identity, Some(finished.from), "an ID is replaced that is not the old one");
                assert!(self.founded.contains(&finished.to), "an ID that no volume has");
                (self.identity, self.disaster) = (Some(finished.to), false);
                return self.recorded.clear();
            }
            _ => {}
        }
        if seen.earlier.is_some() {
            return;
        }
        let size = self.set.map_or(self.wanted_size(), |set| set.size);
        // Nothing is written to one that is being deleted.
        if !self.set.is_some_and(|set| set.going) {
            let taken_up = self.set.is_some_and(|set| {
                set.taken_up && (set.replicas, set.revision) == (plan.pods, self.newest_revision)
            });
            let (replicas, revision) = (plan.pods, self.newest_revision);
            self.set = Some(Set { replicas, revision, taken_up, size, going: false, earlier: None });
        }
        let size = self.wanted_size();
        self.claims.values_mut().for_each(|claim| claim.size = claim.size.max(size));
        self.budget = plan.budget;
        self.bootstrapped |= seen.founded();
        if let Some(leader) = seen.leader() {
            let configuration = leader.configuration();
            let known = |id| Some((configuration.ordinal(NAME, id)?, Recorded { member: id, volume: None }));
            self.recorded = configuration.ids().into_iter().filter_map(known).collect();
        }
        self.raisable = match readiness(seen) {
            Readiness::Ready(_) => self.raisable.or(Some(0)),
            Readiness::Unknown => self.raisable,
            Readiness::No => None,
        };
        for (ordinal, mark) in marks(&self.wanted, seen) {
            let uid = seen.claims.get(&ordinal).map(|claim| claim.uid.clone());
            let claim = self.claims.get_mut(&ordinal).filter(|claim| Some(claim.uid.to_string()) == uid);
            if let Some(claim) = claim {
                claim.mark = Some(mark);
            }
        }
    }

    /// Carries an action out, maybe a round later than it was planned, when the spec wanted so many replicas.
    pub(in super::super) fn act(&mut self, action: &Action, replicas: u32) {
        if self.has_come_back(action) {
            return;
        }
        self.check_deed(action, replicas);
        match action {
            Action::Bootstrap { ordinal, cluster_id } => self.found(*ordinal, *cluster_id),
            Action::ChangeMembership { leader, expected, wanted } if self.leads(*leader) => {
                self.change(*expected, wanted);
                self.hold_budget();
            }
            // The ID is written with the status. One that only believes that it leads commits nothing.
            Action::SetIdentity { .. }
            | Action::BeginRecovery(_)
            | Action::FinishRecovery(_)
            | Action::ChangeMembership { .. } => {}
            Action::RunRecovery { ordinal, from, to } => self.run_recovery(*ordinal, *from, *to),
            Action::EndRecovery { uid } => {
                self.recovering = self.recovering.take().filter(|pod| pod.uid.to_string() != *uid);
            }
            Action::TransferLeadership { target, .. } => {
                let well = self.runs(*target);
                if let Some(cluster) = self.cluster.as_mut()
                    && well
                    && cluster.leader.is_some()
                    && cluster.state.configuration.voters.contains(target)
                {
                    cluster.leader = Some(*target);
                    cluster.term += 1;
                }
            }
            Action::RemakeStatefulSet { .. } => {
                if let Some(set) = self.set.as_mut() {
                    set.going = true;
                }
            }
            // The nodes refuse a level that a member does not support.
            Action::RaiseLevel { leader, to } => {
                let supported = self.leads(*leader) && self.supports(*to);
                if let Some(cluster) = self.cluster.as_mut().filter(|_| supported) {
                    cluster.level = cluster.level.max(*to);
                }
            }
            Action::EndPod { ordinal, by: Means::Eviction, .. } if !self.admits(*ordinal) => {}
            Action::EndPod { ordinal, uid, .. } => {
                if self.pods.get(ordinal).is_some_and(|pod| pod.uid.to_string() == *uid) {
                    self.end(*ordinal);
                }
            }
            Action::RetainVolume { ordinal, claim: uid, .. } => {
                let claim = self.claims.get_mut(ordinal).filter(|claim| claim.uid.to_string() == *uid);
                if let Some(claim) = claim {
                    claim.retained = true;
                }
            }
            Action::DeleteClaim { ordinal, uid } => {
                if let Some(claim) =
                    self.claims.get_mut(ordinal).filter(|claim| claim.uid.to_string() == *uid)
                {
                    claim.terminating = true;
                }
            }
        }
    }

    /// Whether a claim is to be deleted for a volume that can be used again: the operator looks at it again right before.
    fn has_come_back(&self, action: &Action) -> bool {
        let Action::DeleteClaim { ordinal, .. } = action else { return false };
        let claim = self.claims.get(ordinal).filter(|claim| !claim.is_useless());
        claim.is_some_and(|claim| self.deleted_as_lost.contains(&claim.uid))
    }

    /// The budget that goes with a change stays until the change has been seen, however late it is carried out.
    pub(super) fn hold_budget(&mut self) {
        let Some(cluster) = &self.cluster else { return };
        let Configuration { voters, outgoing, .. } = &cluster.state.configuration;
        let halves = [voters, outgoing].into_iter().filter(|half| !half.is_empty());
        let spare = halves.map(|half| tolerance(half.len())).min().unwrap_or(0);
        let min = u32::try_from((voters | outgoing).len() - spare).unwrap_or(u32::MAX);
        self.budget.min_available = self.budget.min_available.max(min);
    }

    /// A pod is deleted: it runs on for a while before it is gone.
    pub(super) fn end(&mut self, ordinal: Ordinal) {
        let ticks = u32::try_from(self.chance.next() % 4).unwrap_or(0);
        if let Some(pod) = self.pods.get_mut(&ordinal) {
            pod.ends_in = Some(pod.ends_in.map_or(ticks, |earlier| earlier.min(ticks)));
        }
    }

    pub(super) fn found(&mut self, ordinal: Ordinal, id: u64) {
        let running = self.pods.get(&ordinal).is_some_and(|pod| pod.running);
        let Some(claim) = self.claims.get_mut(&ordinal).filter(|claim| running && claim.cluster == 0) else {
            return;
        };
        claim.cluster = id;
        self.founded.insert(id);
        let member = crate::membership::Member {
            name: format!("{NAME}-{ordinal}"),
            peer_address: String::new(),
            client_urls: Vec::new(),
        };
        let configuration = Configuration {
            voters: [claim.member].into(),
            members: [(claim.member, member)].into(),
            ..Configuration::default()
        };
        let state =
            ConfigurationState { id: ConfigurationId { term: 1, index: 1 }, configuration, committed: true };
        let (previous, caught_up) = (state.clone(), [claim.member].into());
        let level = self.revision(ordinal);
        self.cluster =
            Some(Cluster { id, term: 1, leader: None, state, previous, caught_up, level, deposed: None });
    }

    pub(super) fn change(&mut self, expected: ConfigurationId, wanted: &Configuration) {
        let Some(cluster) = self.cluster.as_mut() else { return };
        let state = &mut cluster.state;
        if cluster.leader.is_none()
            || state.id != expected
            || !state.committed
            || state.configuration.is_joint()
        {
            return;
        }
        cluster.previous = state.clone();
        let before = state.configuration.clone();
        state.configuration = wanted.clone();
        if before.voters != wanted.voters {
            state.configuration.outgoing = before.voters;
            for (id, member) in before.members {
                if state.configuration.outgoing.contains(&id) {
                    state.configuration.members.entry(id).or_insert(member);
                }
            }
        }
        state.id = ConfigurationId { term: cluster.term, index: state.id.index + 1 };
        state.committed = false;
    }
}
