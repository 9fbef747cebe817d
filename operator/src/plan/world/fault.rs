//! What goes wrong, or is changed, from outside.

use std::collections::{BTreeMap, BTreeSet};

use quorate_crds::ScaleDownPolicy;

use super::super::Action;
use super::{Claim, GIB, Lost, Pod, Set, World};
use crate::membership::{MemberId, Ordinal};
use crate::observed::Machine;

/// The ID of an older cluster of the name.
const STRANGER: u64 = 999;

/// What goes wrong, or is changed, from outside.
#[derive(Clone, Debug)]
pub(in super::super) enum Fault {
    /// A container ends, and starts again.
    Crash(Ordinal),
    /// Somebody deletes a pod.
    DeletePod(Ordinal),
    /// Somebody deletes a claim; it waits for its pod.
    DeleteClaim(Ordinal),
    /// A drain asks a pod to go.
    Evict(Ordinal),
    /// What runs beside the nodes fails, in all pods, or works again.
    Beside(bool),
    /// A claim and its pod are deleted.
    LoseVolume(Ordinal),
    /// Somebody deletes the `StatefulSet` with its pods.
    DeleteStatefulSet,
    /// The leader is cut off, and another one is elected before it knows.
    Depose,
    /// The spec wants another number.
    Scale(u32),
    /// The spec wants another image.
    Template,
    /// The spec wants no pods, or wants them again.
    Hibernate,
    /// The spec wants larger volumes.
    Grow,
    /// The spec wants an image whose nodes do not start.
    BrokenTemplate,
    /// The spec wants the image of before, whose nodes may not support the level of the data.
    TakeBack,
    /// The status of the resource is lost, as some backups leave it.
    LoseStatus,
    /// The resource is deleted and made anew over its volumes, maybe with another number of replicas.
    MakeAnew(u32),
    /// The objects of volumes are missing, for a while or for good.
    LoseObjects(Vec<Ordinal>, bool),
    /// The machine that a volume is bound to goes, for good or for a while.
    LoseMachine(Ordinal, bool),
    /// The data of a volume is damaged.
    Damage(Ordinal),
    /// Machines are gone, and the quorum with them.
    Disaster(Vec<Ordinal>),
    /// A person asks for a new cluster of this member, where the quorum is lost for good.
    Recover(Ordinal),
    /// Somebody removes a member by hand, as `etcdctl member remove` does.
    RemoveMember(Ordinal),
    /// Somebody adds a learner by hand that no pod runs.
    AddMember,
    /// A volume is put back to an earlier day.
    RestoreVolume(Ordinal),
    /// The spec lets the pods of one voter or two go, or not any more.
    Allow(bool),
    /// An operator that lost its lease acts on what it saw some rounds ago.
    SecondOperator,
    /// At the address of a pod another one answers.
    WrongAddress(Ordinal, Ordinal),
    /// A volume is put in the place of another: a copy of it.
    CopyVolume(Ordinal, Ordinal),
    /// Somebody scales the `StatefulSet`.
    ScaleSet(u32),
    /// The claim of an older cluster of the name is there.
    Stranger(Ordinal),
    /// Volumes of members that are scaled away are to be kept, or not any more.
    FlipPolicy,
    /// Nothing, for a while.
    Calm,
}

impl World {
    /// Something goes wrong while `late` is still on its way. Volumes are lost only where a quorum of them remains, in the
    /// configurations that are and in the one that `late` asks for: no operator brings back more. A claim that is deleted
    /// under its running pod is not lost yet: there it is the operator who must not go too far.
    pub(in super::super) fn suffer(&mut self, fault: &Fault, late: Option<&Action>) {
        match fault {
            Fault::Crash(ordinal) => {
                if let Some(pod) = self.pods.get_mut(ordinal) {
                    pod.running = false;
                }
            }
            Fault::DeletePod(ordinal) => {
                if !self.is_doomed(*ordinal) || self.can_lose(&[*ordinal].into(), late) {
                    self.end(*ordinal);
                }
            }
            Fault::DeleteClaim(ordinal) => {
                let wanted = self.set.is_some_and(|set| *ordinal < set.replicas);
                let held = wanted && self.pods.get(ordinal).is_some_and(|pod| self.stays(pod));
                if self.cluster.is_some()
                    && self.identity.is_some()
                    && !self.disaster
                    && (held && !ends(late, *ordinal) || self.can_lose(&[*ordinal].into(), late))
                {
                    self.mark(*ordinal);
                }
            }
            Fault::LoseVolume(ordinal) => {
                if self.can_lose(&[*ordinal].into(), late) {
                    self.mark(*ordinal);
                    self.end(*ordinal);
                }
            }
            Fault::DeleteStatefulSet => {
                let doomed: BTreeSet<_> = self.pods.keys().copied().filter(|&o| self.is_doomed(o)).collect();
                if doomed.is_empty() || self.can_lose(&doomed, late) {
                    self.set = None;
                    let all: Vec<_> = self.pods.keys().copied().collect();
                    for ordinal in all {
                        self.end(ordinal);
                    }
                }
            }
            Fault::Evict(ordinal) => self.drain(*ordinal, late),
            Fault::Beside(fails) => self.pods.values_mut().for_each(|pod| pod.beside_fails = *fails),
            Fault::Depose => self.depose(),
            Fault::Calm => {}
            Fault::Scale(replicas) => self.wanted.replicas = *replicas,
            Fault::Hibernate => self.wanted.hibernate = !self.wanted.hibernate,
            Fault::Grow => self.wanted.volume_size = self.wanted.volume_size.map(|size| size + GIB),
            Fault::Template => self.next_template(),
            Fault::BrokenTemplate => {
                self.next_template();
                self.broken.insert(self.newest_revision);
            }
            Fault::TakeBack => self.newest_revision = (self.newest_revision - 1).max(1),
            _ => self.suffer_people(fault, late),
        }
    }

    /// What people do to the objects, and backups to the data.
    fn suffer_people(&mut self, fault: &Fault, late: Option<&Action>) {
        match fault {
            // Without a status nobody but a person knows what becomes of volumes that are being deleted.
            Fault::LoseStatus | Fault::MakeAnew(_) if self.disaster || self.recovering.is_some() => {}
            Fault::LoseStatus if self.claims.values().all(|claim| !claim.terminating) => self.lose_status(),
            Fault::MakeAnew(replicas)
                if self.can_lose(&BTreeSet::new(), late)
                    && self.claims.values().all(|claim| !claim.terminating) =>
            {
                self.lose_status();
                self.wanted.replicas = *replicas;
                self.claims.values_mut().for_each(|claim| claim.older = true);
                self.set = self.set.map(|set| Set { earlier: Some(3), ..set });
            }
            Fault::LoseObjects(ordinals, for_good) => {
                let all: BTreeSet<_> = ordinals.iter().copied().collect();
                if *for_good && !self.can_lose(&all, late) {
                    return;
                }
                for ordinal in all {
                    if let Some(claim) = self.claims.get_mut(&ordinal).filter(|claim| claim.lost.is_none()) {
                        claim.lost = Some(Lost { ticks: 0, comes_back: !for_good });
                    }
                }
            }
            Fault::Disaster(ordinals) => {
                let all: BTreeSet<_> = ordinals.iter().copied().collect();
                if late.is_none() {
                    self.suffer_disaster(&all);
                }
            }
            Fault::RemoveMember(_) | Fault::AddMember | Fault::RestoreVolume(_) | Fault::Allow(_) => {
                self.suffer_hands(fault, late);
            }
            Fault::SecondOperator => self.act_on_old_news(late),
            Fault::Recover(ordinal) => self.ask_to_recover(Some(*ordinal)),
            Fault::LoseMachine(ordinal, for_good)
                if (!for_good && !self.is_doomed(*ordinal)) || self.can_lose(&[*ordinal].into(), late) =>
            {
                if let Some(claim) = self.claims.get_mut(ordinal) {
                    claim.machine = if *for_good { Machine::Gone } else { Machine::Away };
                    // Its pod is taken away, and made anew without a place to run.
                    self.pods.remove(ordinal);
                }
            }
            Fault::Damage(ordinal) if self.can_lose(&[*ordinal].into(), late) => {
                if let Some(claim) = self.claims.get_mut(ordinal) {
                    claim.damaged = true;
                    if let Some(pod) = self.pods.get_mut(ordinal) {
                        pod.running = false;
                    }
                }
            }
            Fault::WrongAddress(asked, answers) => {
                self.wrong_addresses.insert(*asked, *answers);
            }
            Fault::CopyVolume(from, to) => {
                let copied = self.claims.get(from).map(|claim| (claim.member, claim.cluster));
                if let Some((member, cluster)) =
                    copied.filter(|_| from != to && self.can_lose(&[*to].into(), late))
                    && let Some(claim) = self.claims.get_mut(to)
                {
                    (claim.member, claim.cluster) = (member, cluster);
                    self.copied.insert(claim.uid);
                    if let Some(pod) = self.pods.get_mut(to) {
                        pod.running = false;
                    }
                }
            }
            Fault::ScaleSet(replicas) => {
                let surplus =
                    self.pods.keys().copied().filter(|o| o >= replicas && self.is_doomed(*o)).collect();
                if self.can_lose(&surplus, late)
                    && let Some(set) = self.set.as_mut()
                {
                    set.replicas = *replicas;
                }
            }
            Fault::Stranger(ordinal) if self.cluster.is_some() => {
                let (uid, member) = (self.fresh(), self.fresh());
                let claim = Claim { cluster: STRANGER, older: true, ..Claim::empty(uid, member) };
                self.claims.entry(*ordinal).or_insert(claim);
            }
            Fault::FlipPolicy => {
                self.wanted.when_scaled = match self.wanted.when_scaled {
                    ScaleDownPolicy::Delete => ScaleDownPolicy::Retain,
                    ScaleDownPolicy::Retain => ScaleDownPolicy::Delete,
                };
            }
            _ => {}
        }
    }

    /// An eviction, where Kubernetes admits it. One of a pod whose volume goes with it is a person's doing.
    pub(in super::super) fn drain(&mut self, ordinal: Ordinal, late: Option<&Action>) {
        let changing = matches!(late, Some(Action::ChangeMembership { .. }));
        if self.admits(ordinal)
            && !changing
            && (!self.is_doomed(ordinal) || self.can_lose(&[ordinal].into(), late))
        {
            self.check_end(ordinal);
            self.end(ordinal);
        }
    }

    fn next_template(&mut self) {
        self.last_revision += 1;
        self.newest_revision = self.last_revision;
    }

    fn lose_status(&mut self) {
        self.raisable = None;
        (self.identity, self.bootstrapped) = (None, false);
        self.recorded.clear();
    }

    /// People do what the status asks of them: strangers' volumes and copies go, and missing objects come back where pods still run.
    pub(in super::super) fn mend(&mut self) {
        let level = self.cluster.as_ref().map_or(0, |cluster| cluster.level);
        if self.broken.contains(&self.newest_revision) || self.newest_revision < level {
            let works = |revision: &u32| !self.broken.contains(revision) && *revision >= level;
            self.newest_revision = (1..=self.last_revision).rev().find(works).unwrap_or(level);
        }
        self.wanted.hibernate = false;
        self.wrong_addresses.clear();
        self.ask_to_recover(None);
        let recovers = self.disaster || self.recovers() || self.recovering.is_some();
        self.pods.values_mut().for_each(|pod| pod.beside_fails = false);
        let mut known = BTreeMap::new();
        let named = |world: &Self, id| {
            let cluster = world.cluster.as_ref()?;
            let state = if cluster.state.committed { &cluster.state } else { &cluster.previous };
            state.configuration.ordinal(super::NAME, id)
        };
        let all: Vec<_> = self.claims.iter().map(|(&ordinal, claim)| (ordinal, claim.member)).collect();
        for &(ordinal, member) in &all {
            let right = named(self, member).unwrap_or(ordinal);
            known
                .entry(member)
                .and_modify(|kept| {
                    if ordinal == right {
                        *kept = ordinal;
                    }
                })
                .or_insert(ordinal);
        }
        for (ordinal, member) in all {
            let running = self.pods.get(&ordinal).is_some_and(|pod| pod.running);
            let displaced = known.get(&member) != Some(&ordinal)
                || named(self, member).is_some_and(|right| right != ordinal);
            let Some(claim) = self.claims.get_mut(&ordinal) else { continue };
            claim.lost = claim.lost.filter(|lost| !running && !lost.comes_back);
            // One of which nobody knows whose it is, the operator leaves to people.
            let unknown = claim.is_useless() && claim.older && claim.mark.is_none();
            // A founding that came late, after the status with its ID was lost: the plan refuses, and says to delete it.
            let given_up = self.bootstrapped
                && !recovers
                && self.identity.is_some_and(|id| ![0, id].contains(&claim.cluster));
            let unfounded =
                !self.bootstrapped && self.identity.is_some_and(|id| ![0, id].contains(&claim.cluster));
            if displaced || unknown || unfounded || given_up || claim.cluster == STRANGER {
                claim.terminating = true;
                self.end(ordinal);
            }
        }
    }

    fn mark(&mut self, ordinal: Ordinal) {
        if let Some(claim) = self.claims.get_mut(&ordinal) {
            claim.terminating = true;
        }
    }

    /// Whether a pod runs, or will, and nobody ends it. One whose node cannot start has to end for what mends it.
    fn stays(&self, pod: &Pod) -> bool {
        let level = self.cluster.as_ref().map_or(0, |cluster| cluster.level);
        let starts = !self.broken.contains(&pod.revision) && pod.revision >= level;
        starts && !pod.wedged && pod.ends_in.is_none()
    }

    /// Whether the volume of a pod goes with it, or no other pod could use it any more.
    pub(super) fn is_doomed(&self, ordinal: Ordinal) -> bool {
        self.claims.get(&ordinal).is_some_and(|claim| claim.terminating || claim.is_gone())
    }

    /// Whether the volumes that stay hold a quorum without these: those that are not being deleted, and those whose pod
    /// nobody ends. Before the members are there, the founder's volume is all there is.
    pub(super) fn can_lose(&self, lost: &BTreeSet<Ordinal>, late: Option<&Action>) -> bool {
        let Some(cluster) = &self.cluster else { return false };
        let held = |ordinal: Ordinal| {
            let pod = self.pods.get(&ordinal);
            let wanted = self.set.is_none_or(|set| ordinal < set.replicas);
            wanted && pod.is_some_and(|pod| self.stays(pod)) && !ends(late, ordinal)
        };
        let stays = |id: MemberId| {
            // A copy elsewhere is not the member: it goes.
            let right = cluster.state.configuration.ordinal(super::NAME, id);
            self.claims.iter().any(|(&o, claim)| {
                claim.member == id
                    && right.is_none_or(|right| right == o)
                    && !lost.contains(&o)
                    && !deletes(late, o)
                    && !claim.is_gone()
                    && (!claim.terminating || held(o))
            })
        };
        let before = cluster.state.committed || cluster.previous.configuration.has_quorum(stays);
        let asked = match late {
            Some(Action::ChangeMembership { wanted, .. }) => wanted.has_quorum(stays),
            _ => true,
        };
        asked && before && cluster.state.configuration.has_quorum(stays)
    }
}

/// Whether an action that is on its way deletes this pod.
fn ends(late: Option<&Action>, ordinal: Ordinal) -> bool {
    matches!(late, Some(Action::EndPod { ordinal: other, .. }) if *other == ordinal)
}

/// Whether an action that is on its way deletes this claim.
fn deletes(late: Option<&Action>, ordinal: Ordinal) -> bool {
    matches!(late, Some(Action::DeleteClaim { ordinal: other, .. }) if *other == ordinal)
}
