//! What happens by itself: controllers, kubelets and elections.

use std::collections::BTreeSet;

use super::{Claim, Cluster, Lost, Pod, Set, World};
use crate::membership::{ConfigurationId, MemberId};
use crate::observed::Machine;

impl World {
    /// A little time passes.
    pub(in super::super) fn tick(&mut self) {
        self.now += 1;
        self.run_controller();
        self.run_pods();
        self.run_runner();
        self.run_cluster();
    }

    pub(super) fn run_controller(&mut self) {
        if self.set.is_some_and(|set| set.going) {
            // Its pods stay, and nobody looks after them until it is made again.
            self.set = self.set.filter(|_| self.chance.one_in(2));
            return;
        }
        let Some(set) = self.set.as_mut() else { return };
        set.taken_up |= self.chance.one_in(2);
        set.earlier = set.earlier.map(|ticks| ticks.saturating_sub(1));
        if set.earlier == Some(0) {
            self.set = None;
            let all: Vec<_> = self.pods.keys().copied().collect();
            for ordinal in all {
                self.end(ordinal);
            }
            return;
        }
        let Set { replicas, revision, size, .. } = *set;
        let surplus: Vec<_> = self.pods.range(replicas..).map(|(&ordinal, _)| ordinal).collect();
        for ordinal in surplus {
            self.end(ordinal);
        }
        for ordinal in 0..replicas {
            if self.pods.contains_key(&ordinal) || self.chance.one_in(2) {
                continue;
            }
            let wedged = self.claims.get(&ordinal).is_some_and(|claim| claim.terminating);
            if !self.claims.contains_key(&ordinal) {
                let (uid, member) = (self.fresh(), self.fresh());
                self.claims.insert(ordinal, Claim { size, ..Claim::empty(uid, member) });
            }
            let uid = self.fresh();
            let pod = Pod {
                uid,
                revision,
                running: false,
                beside_fails: false,
                wedged,
                age: 0,
                unready: 0,
                ends_in: None,
            };
            self.pods.insert(ordinal, pod);
        }
    }

    pub(super) fn run_pods(&mut self) {
        self.raisable = self.raisable.map(|ticks| ticks + 1);
        let level = self.cluster.as_ref().map_or(0, |cluster| cluster.level);
        for claim in self.claims.values_mut() {
            let back = claim.lost.is_some_and(|lost| lost.comes_back) && self.chance.one_in(40);
            claim.lost = claim.lost.filter(|_| !back).map(|lost| Lost { ticks: lost.ticks + 1, ..lost });
            if claim.machine == Machine::Away && self.chance.one_in(40) {
                claim.machine = Machine::Ready;
            }
        }
        let useless: BTreeSet<_> =
            self.claims.iter().filter(|(_, claim)| claim.is_useless()).map(|(&o, _)| o).collect();
        self.wrong_addresses.retain(|_, _| !self.chance.one_in(8));
        let in_use: BTreeSet<_> = self.pods.iter().filter(|(_, pod)| !pod.wedged).map(|(&o, _)| o).collect();
        self.claims.retain(|ordinal, claim| !claim.terminating || in_use.contains(ordinal));
        // Its claim goes a little later: a pod may be made in between.
        self.pods.retain(|_, pod| pod.ends_in != Some(0));
        let ready: BTreeSet<_> =
            self.pods.keys().copied().filter(|&ordinal| self.is_ready(ordinal)).collect();
        for (ordinal, pod) in &mut self.pods {
            pod.age += 1;
            pod.unready = if ready.contains(ordinal) { 0 } else { pod.unready + 1 };
            pod.ends_in = pod.ends_in.map(|ticks| ticks - 1);
            let starts = !self.broken.contains(&pod.revision) && pod.revision >= level;
            pod.running |= starts && !pod.wedged && !useless.contains(ordinal) && self.chance.one_in(2);
        }
    }

    pub(super) fn run_cluster(&mut self) {
        let Some(mut cluster) = self.cluster.take() else { return };
        let quorate = cluster.state.configuration.has_quorum(|id| self.runs(id));
        let before = cluster.leader;
        cluster.leader = before.filter(|&id| quorate && self.runs(id));
        if before.is_some() && cluster.leader.is_none() {
            self.lose_uncommitted(&mut cluster);
        }
        // It finds out sooner or later.
        let ignorant = !self.chance.one_in(4);
        cluster.deposed = cluster.deposed.take().filter(|(id, _)| ignorant && self.runs(*id));
        let quorate = cluster.state.configuration.has_quorum(|id| self.runs(id));
        if cluster.leader.is_none() && quorate && self.chance.one_in(2) {
            let able = |id: &MemberId| self.runs(*id) && cluster.caught_up.contains(id);
            let candidates: Vec<_> =
                cluster.state.configuration.voters.iter().copied().filter(able).collect();
            let pick = self.chance.next() as usize;
            cluster.leader = candidates.get(pick % candidates.len().max(1)).copied();
            cluster.term += 1;
        }
        if cluster.leader.is_some() {
            self.make_progress(&mut cluster);
        }
        self.cluster = Some(cluster);
    }

    /// What a lost leader alone had is lost with it; what others had too may stay.
    pub(super) fn lose_uncommitted(&mut self, cluster: &mut Cluster) {
        if !cluster.state.committed && self.chance.one_in(2) {
            cluster.state = cluster.previous.clone();
        }
    }

    /// Another leader is elected by the others; the old one goes on believing that it leads.
    pub(super) fn depose(&mut self) {
        let Some(mut cluster) = self.cluster.take() else { return };
        if let Some(old) = cluster.leader.filter(|id| self.runs(*id)) {
            self.cluster = Some(cluster.clone());
            let ordinal =
                self.claims.iter().find(|(_, claim)| claim.member == old).map(|(&ordinal, _)| ordinal);
            let said = ordinal.and_then(|ordinal| self.node(ordinal));
            let mut next = cluster.clone();
            self.lose_uncommitted(&mut next);
            let able = |id: MemberId| id != old && self.runs(id) && next.caught_up.contains(&id);
            let successor = next.state.configuration.voters.iter().copied().find(|&id| able(id));
            if next.state.configuration.has_quorum(able) && successor.is_some() {
                next.leader = successor;
                next.term += 1;
                next.deposed = said.map(|said| (old, said));
                cluster = next;
            }
        }
        self.cluster = Some(cluster);
    }

    pub(super) fn make_progress(&mut self, cluster: &mut Cluster) {
        for id in cluster.state.configuration.ids() {
            if self.runs(id) && self.chance.one_in(2) {
                cluster.caught_up.insert(id);
                let volumes = self.claims.values_mut().filter(|claim| claim.member == id);
                volumes.for_each(|claim| claim.cluster = cluster.id);
            }
        }
        if !cluster.state.committed && self.chance.one_in(2) {
            cluster.state.committed = true;
        } else if cluster.state.committed && cluster.state.configuration.is_joint() && self.chance.one_in(2) {
            cluster.previous = cluster.state.clone();
            cluster.state.configuration.outgoing.clear();
            cluster.state.configuration.forget_strangers();
            cluster.state.id = ConfigurationId { term: cluster.term, index: cluster.state.id.index + 1 };
            cluster.state.committed = false;
            // A leader that is not a member of C_new steps down once it is committed (dissertation, section 4.2.2).
            cluster.leader = cluster.leader.filter(|id| cluster.state.configuration.contains(*id));
        }
    }
}
