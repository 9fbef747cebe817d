//! Hands on the membership and the data, and an operator that does not know yet that it is none any more.

use std::collections::BTreeSet;

use quorate_crds::Disruptions;

use super::super::{Action, Means, plan};
use super::{Fault, World};
use crate::membership::{Configuration, Member, Ordinal};
use crate::observed::{Leader, Observed};

/// How many rounds old the news of a second operator are at most.
const OLD: usize = 4;

impl World {
    /// What people do to the membership and to single volumes.
    pub(super) fn suffer_hands(&mut self, fault: &Fault, late: Option<&Action>) {
        match fault {
            // One that asks while a change is under way is refused by the nodes.
            Fault::RemoveMember(ordinal) if late.is_none() => self.remove_by_hand(*ordinal),
            Fault::AddMember if late.is_none() => {
                let id = self.fresh();
                let name = String::new();
                let member =
                    Member { name, peer_address: "nowhere:2380".to_owned(), client_urls: Vec::new() };
                self.change_by_hand(|wanted| {
                    wanted.learners.insert(id);
                    wanted.members.insert(id, member);
                });
            }
            Fault::RestoreVolume(ordinal) if self.can_lose(&[*ordinal].into(), late) => {
                let Some(claim) = self.claims.get(ordinal) else { return };
                let member = claim.member;
                if let Some(cluster) = self.cluster.as_mut().filter(|cluster| cluster.leader != Some(member))
                {
                    // It lacks what it has acknowledged since, until the leader has sent it again.
                    cluster.caught_up.remove(&member);
                    if let Some(pod) = self.pods.get_mut(ordinal) {
                        pod.running = false;
                    }
                }
            }
            Fault::Allow(allow) => {
                self.wanted.disruptions = if *allow { Disruptions::Allow } else { Disruptions::Protect };
            }
            _ => {}
        }
    }

    /// A person removes a voter. It is their doing, and they do not take the quorum away, now or with a pod that is ending.
    fn remove_by_hand(&mut self, ordinal: Ordinal) {
        let Some(cluster) = &self.cluster else { return };
        let configuration = &cluster.state.configuration;
        let Some(&id) =
            configuration.voters.iter().find(|&&id| configuration.ordinal(super::NAME, id) == Some(ordinal))
        else {
            return;
        };
        let mut voters = configuration.voters.clone();
        voters.remove(&id);
        let next = Configuration { voters, ..Configuration::default() };
        let ending: BTreeSet<Ordinal> =
            self.pods.iter().filter(|(_, pod)| pod.ends_in.is_some()).map(|(&o, _)| o).collect();
        let at = |id| configuration.ordinal(super::NAME, id);
        let stays = |id| {
            let doomed = at(id).is_none_or(|ordinal| self.is_doomed(ordinal) || ending.contains(&ordinal));
            self.runs(id) && cluster.caught_up.contains(&id) && !doomed
        };
        if cluster.leader == Some(id) || !next.has_quorum(stays) || self.disaster {
            return;
        }
        self.change_by_hand(|wanted| {
            wanted.voters.remove(&id);
            wanted.members.remove(&id);
        });
    }

    fn change_by_hand(&mut self, change: impl FnOnce(&mut Configuration)) {
        let Some(cluster) = &self.cluster else { return };
        let (id, mut wanted) = (cluster.state.id, cluster.state.configuration.clone());
        if !wanted.is_joint() {
            change(&mut wanted);
            self.change(id, &wanted);
            self.hold_budget();
        }
    }

    /// Keeps what was seen in a round.
    pub(super) fn remember(&mut self, seen: &Observed) {
        self.news.push((seen.clone(), self.wanted.clone()));
        if self.news.len() > OLD {
            self.news.remove(0);
        }
    }

    /// Its lease keeps it from writing objects and the status, and from deleting pods past the budget; what else it does is on its way already.
    pub(super) fn act_on_old_news(&mut self, late: Option<&Action>) {
        let Some((seen, wanted)) = self.news.first().cloned().filter(|_| late.is_none()) else { return };
        let fresh = self.fresh();
        let planned = plan(&wanted, &seen, 2_000_000 + fresh);
        let Some(action) = planned.action().filter(|action| self.stands(&seen, action)) else { return };
        self.act(&action.clone(), wanted.replicas);
    }

    /// What is read again before an act: the pod, the claim and the leader are as they were seen.
    fn stands(&self, seen: &Observed, action: &Action) -> bool {
        match action {
            Action::EndPod { ordinal, by: Means::Eviction, .. } => {
                self.claim_stands(seen, *ordinal) && self.leader_stands(seen)
            }
            Action::DeleteClaim { ordinal, .. } => {
                !self.is_ready(*ordinal) && self.claim_stands(seen, *ordinal) && self.leader_stands(seen)
            }
            Action::ChangeMembership { .. }
            | Action::TransferLeadership { .. }
            | Action::RetainVolume { .. }
            | Action::EndRecovery { .. } => true,
            _ => false,
        }
    }

    fn claim_stands(&self, seen: &Observed, ordinal: Ordinal) -> bool {
        match (seen.claims.get(&ordinal), self.claims.get(&ordinal)) {
            (None, None) => true,
            (Some(before), Some(now)) => {
                let machine = seen.machines.get(&before.machine.clone().unwrap_or_default());
                before.uid == now.uid.to_string()
                    && before.terminating == now.terminating
                    && before.lost.is_some() == now.lost.is_some()
                    && machine == Some(&now.machine)
            }
            _ => false,
        }
    }

    fn leader_stands(&self, seen: &Observed) -> bool {
        let Some(Leader { status, state, .. }) = seen.leader() else { return true };
        let Some(cluster) = &self.cluster else { return false };
        let well = |id| self.runs(id) && cluster.caught_up.contains(&id);
        cluster.leader == Some(status.member_id)
            && cluster.term == status.term
            && (cluster.state.id, cluster.state.committed) == (state.id, true)
            && status.progress.iter().all(|(&id, before)| !(before.active && before.caught_up) || well(id))
    }
}
