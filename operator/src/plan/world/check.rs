//! What must never be planned, and never be done.

use std::collections::BTreeSet;

use super::super::{Action, Means, Plan, StepKind};
use super::{Claim, NAME, TICK, World};
use crate::membership::{Configuration, ConfigurationId, MemberId, Ordinal, majority, tolerance};

impl World {
    /// Asserts that a plan is safe in the world as it is.
    pub(super) fn check(&self, plan: &Plan) {
        // A recovery takes all pods away, and gives the configuration up.
        let needed = if self.recovers() || self.recovering.is_some() { u32::MAX } else { plan.pods };
        for (ordinal, claim) in self.claims.range(needed..) {
            let has_pod = self.set.is_some_and(|set| *ordinal < set.replicas);
            // A pod that hibernates comes back with its volume.
            let whole = !claim.terminating && claim.lost.is_none();
            let comes_back = self.wanted.hibernate && (whole || !self.pods.contains_key(ordinal));
            assert!(
                comes_back || !(self.is_named(*ordinal, claim.member) && has_pod),
                "the pod of a member goes while a configuration names it: {plan:?}"
            );
        }
        let updates = plan.step.as_ref().is_some_and(|step| step.kind == StepKind::UpdatePod);
        match plan.action() {
            // A template whose nodes do not start stops at one pod.
            Some(Action::EndPod { ordinal, .. }) if updates && self.is_ready(*ordinal) => {
                let goes_on = |other: Ordinal| {
                    other == *ordinal
                        || self.is_ready(other)
                            && self.pods.get(&other).is_some_and(|pod| pod.ends_in.is_none())
                };
                let all = (0..self.wanted.replicas).all(goes_on);
                assert!(all, "a pod is replaced while another is not ready: {plan:?}");
            }
            Some(Action::RaiseLevel { to, .. }) => {
                assert!(self.supports(*to), "a level that a member does not support: {plan:?}");
                let due = self
                    .wanted
                    .finalize_after
                    .is_some_and(|after| self.raisable.is_some_and(|ticks| TICK * ticks >= after));
                assert!(due, "the upgrade could still be taken back: {plan:?}");
            }
            Some(Action::SetIdentity { id, founded }) => {
                assert_eq!(self.identity, None, "an ID is never replaced");
                let held: BTreeSet<_> =
                    self.claims.values().map(|claim| claim.cluster).filter(|&c| c != 0).collect();
                assert!(*founded || held.is_empty(), "a new ID beside volumes of clusters {held:?}");
                assert!(!founded || held.contains(id), "an ID that no volume has");
            }
            // One that only believes that it leads commits nothing.
            Some(Action::ChangeMembership { leader, expected, wanted }) if self.leads(*leader) => {
                self.check_change(*expected, wanted);
            }
            // What becomes of a volume is decided by the spec at the time of the plan.
            Some(Action::DeleteClaim { ordinal, .. }) => {
                let stays = |claim: &Claim| !claim.is_useless() && !claim.retained && claim.is_kept();
                let kept = self.claims.get(ordinal).is_some_and(stays);
                assert!(!kept, "a volume that was kept is deleted");
            }
            _ => {}
        }
    }

    /// Asserts that what is done now, maybe later than it was planned, is safe. The spec wanted so many replicas when it was planned.
    pub(super) fn check_deed(&self, action: &Action, replicas: u32) {
        match action {
            Action::Bootstrap { ordinal, cluster_id } => {
                let empty = self.claims.get(ordinal).is_some_and(|claim| claim.cluster == 0);
                let runs = self.pods.get(ordinal).is_some_and(|pod| pod.running);
                if empty && runs {
                    assert!(!self.founded.contains(cluster_id), "cluster {cluster_id} is founded twice");
                    let held = self.claims.values().any(|claim| claim.cluster != 0);
                    assert!(!held, "a cluster is founded beside the volumes of one");
                }
            }
            Action::ChangeMembership { leader, expected, wanted } if self.leads(*leader) => {
                self.check_members(*expected, wanted, replicas);
            }
            Action::DeleteClaim { ordinal, uid } => self.check_volume(*ordinal, uid),
            Action::EndPod { ordinal, by: Means::Eviction, .. } if !self.admits(*ordinal) => {}
            Action::EndPod { ordinal, .. } => self.check_end(*ordinal),
            _ => {}
        }
    }

    /// Each ordinal has one member, and a voter whose volume is there stays, unless the spec wants fewer.
    fn check_members(&self, expected: ConfigurationId, wanted: &Configuration, replicas: u32) {
        let Some(cluster) = self.cluster.as_ref().filter(|cluster| cluster.state.id == expected) else {
            return;
        };
        let ordinals: Vec<_> = wanted.voters.iter().map(|&id| wanted.ordinal(NAME, id)).collect();
        let distinct: BTreeSet<_> = ordinals.iter().collect();
        assert_eq!(distinct.len(), ordinals.len(), "two voters of one ordinal: {wanted:?}");
        for &id in cluster.state.configuration.voters.difference(&wanted.voters) {
            let Some(ordinal) = cluster.state.configuration.ordinal(NAME, id).filter(|&o| o < replicas)
            else {
                continue;
            };
            let has_volume = self.claims.get(&ordinal).is_some_and(|claim| claim.member == id);
            assert!(!has_volume, "the voter of {ordinal} is removed, and its volume is there: {wanted:?}");
        }
    }

    /// Whoever ends a pod with the leave of the budget, or of the plan: the quorum that is there stays.
    pub(super) fn check_end(&self, ordinal: Ordinal) {
        // A copy is not the member.
        let here = |id: &MemberId| self.cluster.as_ref()?.state.configuration.ordinal(NAME, *id);
        let member =
            self.claims.get(&ordinal).map(|claim| claim.member).filter(|id| here(id) == Some(ordinal));
        if self.budget.always_allow {
            // The spec lets the quorum of one voter or two go, and says so.
            let voters = self.cluster.as_ref().map_or(0, |cluster| cluster.state.configuration.voters.len());
            assert!(voters < 3, "the budget lets all go, and there are {voters} voters");
            return;
        }
        let costs = self.quorate_without(None) && !self.quorate_without(member);
        assert!(!costs, "the end of pod {ordinal} costs the quorum");
    }

    fn check_volume(&self, ordinal: Ordinal, uid: &str) {
        let Some(claim) = self.claims.get(&ordinal).filter(|claim| claim.uid.to_string() == uid) else {
            return;
        };
        // What people put on the volume after its member was removed no pod runs, and nobody sees.
        let removed = claim.mark.as_ref().is_some_and(|mark| mark.removed.is_some());
        // Nor of what they put on one that was made for a member which never came, unless its node was seen: then the claim says so.
        let unknown = claim.mark.is_none() && self.copied.contains(&claim.uid);
        let ours = claim.cluster == 0
            || removed
            || unknown
            || self.cluster.as_ref().is_some_and(|cluster| cluster.id == claim.cluster);
        let given_up = self.recovery.as_ref().is_some_and(|begun| begun.from == claim.cluster);
        if given_up && !removed {
            assert!(claim.lost.is_some() || claim.retained, "a volume is not kept aside: {claim:?}");
            return;
        }
        assert!(ours, "the volume of another cluster is deleted");
        if claim.is_useless() {
            let kept = claim.lost.is_some() || claim.retained;
            let named = self.is_named(ordinal, claim.member);
            assert!(kept || !named, "a claim goes, and its volume with it: {claim:?}");
            let needed = self.can_lose(&BTreeSet::new(), None) && !self.can_lose(&[ordinal].into(), None);
            assert!(!needed, "a volume that may come back was needed");
            return;
        }
        assert!(
            !self.is_named(ordinal, claim.member),
            "the volume of a member of the configuration is deleted"
        );
    }

    /// Whether a configuration names a member for this ordinal: the newest one, or the one that may come back. A copy elsewhere is none.
    pub(super) fn is_named(&self, ordinal: Ordinal, id: MemberId) -> bool {
        let names = |configuration: &Configuration| {
            configuration.contains(id) && configuration.ordinal(NAME, id) == Some(ordinal)
        };
        self.cluster.as_ref().is_some_and(|cluster| {
            let uncommitted = !cluster.state.committed;
            names(&cluster.state.configuration) || (uncommitted && names(&cluster.previous.configuration))
        })
    }

    pub(super) fn check_change(&self, expected: ConfigurationId, wanted: &Configuration) {
        let Some(cluster) = &self.cluster else { panic!("a change of a cluster that is not there") };
        if expected != cluster.state.id {
            return; // The nodes refuse it.
        }
        let well = |id| self.runs(id) && cluster.caught_up.contains(&id);
        assert!(!wanted.is_joint() && !wanted.voters.is_empty());
        assert!(wanted.voters.is_disjoint(&wanted.learners));
        assert!(
            wanted.ids().iter().eq(wanted.members.keys()),
            "every member has an address, and nobody else: {wanted:?}"
        );
        if wanted.voters != cluster.state.configuration.voters {
            assert!(cluster.state.configuration.has_quorum(well), "a change without the old quorum");
            assert!(wanted.has_quorum(well), "a change to a configuration without a quorum: {wanted:?}");
            let margin = |voters: &BTreeSet<MemberId>| {
                voters.iter().filter(|id| well(**id)).count().saturating_sub(majority(voters.len()))
            };
            let (before, after) = (margin(&cluster.state.configuration.voters), margin(&wanted.voters));
            assert!(
                after >= before.min(tolerance(wanted.voters.len())),
                "{before} more failures were survived, and {after} are: {wanted:?}"
            );
        }
    }
}
