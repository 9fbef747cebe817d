//! A small model of the world that plans are carried out in: a `StatefulSet` with its controller, pods, claims and volumes,
//! and a cluster that elects, commits and leaves joint configurations. It asserts, for every plan, what must never happen.

use std::collections::{BTreeMap, BTreeSet};

use quorate_crds::ScaleDownPolicy;

use super::{Action, Course, Plan, Wanted, plan};
use crate::membership::{Configuration, ConfigurationId, MemberId, Ordinal};
use crate::observed::{
    ClaimState, ConfigurationState, NodeStatus, Observed, PodState, Progress, Role, StatefulSetState,
};

const NAME: &str = "demo";
/// Ticks after which a pod has had its time to come up.
const SETTLED: u32 = 20;

/// A generator of random numbers that needs no crate (xorshift, Marsaglia 2003).
#[derive(Clone, Debug)]
pub(super) struct Chance(u64);

impl Chance {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// True once in `n` times.
    pub(super) fn one_in(&mut self, n: u64) -> bool {
        self.next().is_multiple_of(n)
    }
}

/// What goes wrong, or is changed, from outside.
#[derive(Clone, Debug)]
pub(super) enum Fault {
    /// A container ends, and starts again.
    Crash(Ordinal),
    /// Somebody deletes a pod.
    DeletePod(Ordinal),
    /// Somebody deletes a claim; it waits for its pod.
    DeleteClaim(Ordinal),
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
    /// Nothing, for a while.
    Calm,
}

#[derive(Clone, Debug)]
struct Pod {
    uid: u64,
    revision: u32,
    running: bool,
    /// Made while its claim was being deleted: it waits for a claim that nobody makes.
    wedged: bool,
    age: u32,
    /// Ticks since it was last ready.
    unready: u32,
    /// Ticks until it ends; absent while nobody has deleted it. Until then it runs as before.
    ends_in: Option<u32>,
}

#[derive(Clone, Copy, Debug)]
struct Set {
    replicas: u32,
    revision: u32,
    /// Its controller has taken up the newest template.
    taken_up: bool,
}

#[derive(Clone, Debug)]
struct Claim {
    uid: u64,
    terminating: bool,
    member: MemberId,
    cluster: u64,
}

#[derive(Clone, Debug)]
struct Cluster {
    id: u64,
    term: u64,
    leader: Option<MemberId>,
    state: ConfigurationState,
    /// What it goes back to if the newest configuration, not committed, is lost with its leader.
    previous: ConfigurationState,
    caught_up: BTreeSet<MemberId>,
    /// A leader that has been deposed and does not know, and what it says.
    deposed: Option<(MemberId, NodeStatus)>,
}

#[derive(Clone, Debug)]
pub(super) struct World {
    pub(super) wanted: Wanted,
    identity: Option<u64>,
    bootstrapped: bool,
    set: Option<Set>,
    newest_revision: u32,
    pods: BTreeMap<Ordinal, Pod>,
    claims: BTreeMap<Ordinal, Claim>,
    cluster: Option<Cluster>,
    last_id: u64,
    pub(super) chance: Chance,
}

impl World {
    pub(super) fn new(replicas: u32, seed: u64) -> Self {
        Self {
            wanted: Wanted { replicas, when_scaled: ScaleDownPolicy::Delete, paused: false },
            identity: None,
            bootstrapped: false,
            set: None,
            newest_revision: 1,
            pods: BTreeMap::new(),
            claims: BTreeMap::new(),
            cluster: None,
            last_id: 0,
            chance: Chance::new(seed),
        }
    }

    fn fresh(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    // --- What the operator sees ---------------------------------------------------------------------------------

    /// Observes the world; a node may fail to answer now and then.
    pub(super) fn observe(&mut self, lossy: bool) -> Observed {
        let mut nodes = BTreeMap::new();
        for (&ordinal, pod) in &self.pods.clone() {
            let unheard = lossy && self.chance.one_in(8);
            if pod.running && !unheard {
                nodes.extend(self.node(ordinal).map(|node| (ordinal, node)));
            }
        }
        let pods = self.pods.iter().map(|(&ordinal, pod)| {
            let state = PodState {
                uid: pod.uid.to_string(),
                revision: Some(pod.revision.to_string()),
                terminating: pod.ends_in.is_some(),
                pending: !pod.running,
                ready: self.is_ready(ordinal),
                pod_ready: self.is_ready(ordinal),
                stuck: pod.unready > SETTLED,
                ip: pod.running.then(|| "10.0.0.1".to_owned()),
                settled: pod.age > SETTLED,
                trouble: None,
            };
            (ordinal, state)
        });
        let claims = self.claims.iter().map(|(&ordinal, claim)| {
            let state = ClaimState {
                uid: claim.uid.to_string(),
                terminating: claim.terminating,
                bound: true,
                lost: false,
                ours: true,
                size: None,
            };
            (ordinal, state)
        });
        Observed {
            name: NAME.to_owned(),
            identity: self.identity,
            bootstrapped: self.bootstrapped,
            stateful_set: self.set_state(),
            pods: pods.collect(),
            claims: claims.collect(),
            nodes,
        }
    }

    fn set_state(&self) -> Option<StatefulSetState> {
        self.set.map(|set| StatefulSetState {
            replicas: set.replicas,
            update_revision: set.taken_up.then(|| set.revision.to_string()),
            claim_size: None,
        })
    }

    fn node(&self, ordinal: Ordinal) -> Option<NodeStatus> {
        let claim = self.claims.get(&ordinal)?;
        let deposed = self.cluster.as_ref().and_then(|cluster| cluster.deposed.as_ref());
        if let Some((_, said)) = deposed.filter(|(id, _)| *id == claim.member) {
            return Some(said.clone());
        }
        let mut node = NodeStatus {
            cluster_id: claim.cluster,
            member_id: claim.member,
            peer_address: format!("{NAME}-{ordinal}:2380"),
            ..NodeStatus::default()
        };
        let Some(cluster) = self.cluster.as_ref().filter(|cluster| cluster.id == claim.cluster) else {
            return Some(node);
        };
        node.term = cluster.term;
        node.role = if cluster.leader == Some(claim.member) {
            node.configuration = Some(cluster.state.clone());
            let members = cluster.state.configuration.ids().into_iter();
            let progress =
                |id| Progress { active: self.runs(id), caught_up: cluster.caught_up.contains(&id) };
            node.progress = members.map(|id| (id, progress(id))).collect();
            Role::Leader
        } else if cluster.state.configuration.contains(claim.member) {
            Role::Follower
        } else {
            Role::Removed
        };
        Some(node)
    }

    fn runs(&self, member: MemberId) -> bool {
        self.claims.iter().any(|(ordinal, claim)| {
            claim.member == member && self.pods.get(ordinal).is_some_and(|pod| pod.running)
        })
    }

    /// While there is no leader, nobody is ready.
    fn is_ready(&self, ordinal: Ordinal) -> bool {
        let Some(cluster) = self.cluster.as_ref().filter(|cluster| cluster.leader.is_some()) else {
            return false;
        };
        let runs = self.pods.get(&ordinal).is_some_and(|pod| pod.running);
        runs && self.claims.get(&ordinal).is_some_and(|claim| cluster.caught_up.contains(&claim.member))
    }

    fn leads(&self, ordinal: Ordinal) -> bool {
        let leader = self.cluster.as_ref().and_then(|cluster| cluster.leader);
        leader.is_some() && self.claims.get(&ordinal).map(|claim| claim.member) == leader
    }

    /// Whether the voters that run and stay, without this one, hold the majorities.
    fn quorate_without(&self, gone: Option<MemberId>) -> bool {
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

    // --- What a plan must never do ------------------------------------------------------------------------------

    /// Asserts that a plan is safe in the world as it is.
    pub(super) fn check(&self, plan: &Plan) {
        for (ordinal, claim) in self.claims.range(plan.pods..) {
            let has_pod = self.set.is_some_and(|set| *ordinal < set.replicas);
            assert!(
                !(self.is_named(claim.member) && has_pod),
                "the pod of a member goes while a configuration names it: {plan:?}"
            );
        }
        if let Some(cluster) = &self.cluster {
            let halves = [&cluster.state.configuration.voters, &cluster.state.configuration.outgoing];
            let spare = halves.iter().filter(|half| !half.is_empty()).map(|half| (half.len() - 1) / 2).min();
            assert!(
                plan.disruptions as usize <= spare.unwrap_or(0),
                "more evictions than the quorum survives"
            );
        }
        match plan.action() {
            Some(Action::SetIdentity(_)) => assert_eq!(self.identity, None, "an ID is never replaced"),
            Some(Action::Bootstrap { .. }) => {
                assert!(
                    self.cluster.is_none() || self.identity != self.cluster.as_ref().map(|c| c.id),
                    "founded twice"
                );
            }
            // One that only believes that it leads commits nothing.
            Some(Action::ChangeMembership { leader, expected, wanted }) if self.leads(*leader) => {
                self.check_change(*expected, wanted);
            }
            Some(Action::DeletePod { ordinal, .. }) => {
                let member = self.claims.get(ordinal).map(|claim| claim.member);
                let costs = self.quorate_without(None) && !self.quorate_without(member);
                assert!(!costs, "the deletion of pod {ordinal} costs the quorum");
            }
            Some(Action::DeleteClaim { ordinal, .. }) => {
                let named = self.claims.get(ordinal).is_some_and(|claim| self.is_named(claim.member));
                assert!(!named, "the volume of a member of the configuration is deleted");
            }
            Some(Action::ChangeMembership { .. } | Action::TransferLeadership { .. }) | None => {}
        }
    }

    /// Whether a configuration names a member: the newest one, or the one that may come back.
    fn is_named(&self, id: MemberId) -> bool {
        self.cluster.as_ref().is_some_and(|cluster| {
            let uncommitted = !cluster.state.committed;
            cluster.state.configuration.contains(id)
                || (uncommitted && cluster.previous.configuration.contains(id))
        })
    }

    fn check_change(&self, expected: ConfigurationId, wanted: &Configuration) {
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
        }
    }

    // --- What a plan does ---------------------------------------------------------------------------------------

    /// Writes the status and applies the objects, as the controller does before it acts.
    pub(super) fn apply(&mut self, plan: &Plan, seen: &Observed) {
        if let Some(Action::SetIdentity(id)) = plan.action() {
            self.identity = self.identity.or(Some(*id));
            return;
        }
        let taken_up = self.set.is_some_and(|set| {
            set.taken_up && (set.replicas, set.revision) == (plan.pods, self.newest_revision)
        });
        self.set = Some(Set { replicas: plan.pods, revision: self.newest_revision, taken_up });
        self.bootstrapped |= seen.founded();
    }

    /// Carries an action out, maybe a round later than it was planned.
    pub(super) fn act(&mut self, action: &Action) {
        match action {
            Action::Bootstrap { ordinal, cluster_id } => self.found(*ordinal, *cluster_id),
            Action::ChangeMembership { leader, expected, wanted } if self.leads(*leader) => {
                self.change(*expected, wanted);
            }
            // The ID is written with the status. One that only believes that it leads commits nothing.
            Action::SetIdentity(_) | Action::ChangeMembership { .. } => {}
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
            Action::DeletePod { ordinal, uid } => {
                if self.pods.get(ordinal).is_some_and(|pod| pod.uid.to_string() == *uid) {
                    self.end(*ordinal);
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

    /// A pod is deleted: it runs on for a while before it is gone.
    fn end(&mut self, ordinal: Ordinal) {
        let ticks = u32::try_from(self.chance.next() % 4).unwrap_or(0);
        if let Some(pod) = self.pods.get_mut(&ordinal) {
            pod.ends_in = Some(pod.ends_in.map_or(ticks, |earlier| earlier.min(ticks)));
        }
    }

    fn found(&mut self, ordinal: Ordinal, id: u64) {
        let running = self.pods.get(&ordinal).is_some_and(|pod| pod.running);
        let Some(claim) = self.claims.get_mut(&ordinal).filter(|claim| running && claim.cluster == 0) else {
            return;
        };
        claim.cluster = id;
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
        self.cluster = Some(Cluster { id, term: 1, leader: None, state, previous, caught_up, deposed: None });
    }

    fn change(&mut self, expected: ConfigurationId, wanted: &Configuration) {
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

    // --- What happens by itself ---------------------------------------------------------------------------------

    /// A little time passes.
    pub(super) fn tick(&mut self) {
        self.run_controller();
        self.run_pods();
        self.run_cluster();
    }

    fn run_controller(&mut self) {
        let Some(set) = self.set.as_mut() else { return };
        set.taken_up |= self.chance.one_in(2);
        let Set { replicas, revision, .. } = *set;
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
                self.claims.insert(ordinal, Claim { uid, terminating: false, member, cluster: 0 });
            }
            let uid = self.fresh();
            let pod = Pod { uid, revision, running: false, wedged, age: 0, unready: 0, ends_in: None };
            self.pods.insert(ordinal, pod);
        }
    }

    fn run_pods(&mut self) {
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
            pod.running |= !pod.wedged && self.chance.one_in(2);
        }
    }

    fn run_cluster(&mut self) {
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
    fn lose_uncommitted(&mut self, cluster: &mut Cluster) {
        if !cluster.state.committed && self.chance.one_in(2) {
            cluster.state = cluster.previous.clone();
        }
    }

    /// Another leader is elected by the others; the old one goes on believing that it leads.
    fn depose(&mut self) {
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

    fn make_progress(&mut self, cluster: &mut Cluster) {
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

    /// Something goes wrong while `late` is still on its way. Volumes are lost only where a quorum of them remains, in the
    /// configurations that are and in the one that `late` asks for: no operator brings back more. A claim that is deleted
    /// under its running pod is not lost yet: there it is the operator who must not go too far.
    pub(super) fn suffer(&mut self, fault: &Fault, late: Option<&Action>) {
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
                let held = self.pods.get(ordinal).is_some_and(|pod| !pod.wedged && pod.ends_in.is_none());
                if self.cluster.is_some()
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
            Fault::Depose => self.depose(),
            Fault::Calm => {}
            Fault::Scale(replicas) => self.wanted.replicas = *replicas,
            Fault::Template => self.newest_revision += 1,
        }
    }

    fn mark(&mut self, ordinal: Ordinal) {
        if let Some(claim) = self.claims.get_mut(&ordinal) {
            claim.terminating = true;
        }
    }

    /// Whether the volume of a pod goes with it.
    fn is_doomed(&self, ordinal: Ordinal) -> bool {
        self.claims.get(&ordinal).is_some_and(|claim| claim.terminating)
    }

    /// Whether the volumes that stay hold a quorum without these: those that are not being deleted, and those whose pod
    /// nobody ends. Before the members are there, the founder's volume is all there is.
    fn can_lose(&self, lost: &BTreeSet<Ordinal>, late: Option<&Action>) -> bool {
        let Some(cluster) = &self.cluster else { return false };
        let held = |ordinal: Ordinal| {
            let pod = self.pods.get(&ordinal);
            pod.is_some_and(|pod| !pod.wedged && pod.ends_in.is_none()) && !ends(late, ordinal)
        };
        let stays = |id: MemberId| {
            self.claims.iter().any(|(&o, claim)| {
                claim.member == id && !lost.contains(&o) && (!claim.terminating || held(o))
            })
        };
        let before = cluster.state.committed || cluster.previous.configuration.has_quorum(stays);
        let asked = match late {
            Some(Action::ChangeMembership { wanted, .. }) => wanted.has_quorum(stays),
            _ => true,
        };
        asked && before && cluster.state.configuration.has_quorum(stays)
    }

    // --- The end ------------------------------------------------------------------------------------------------

    /// One round of the operator. Returns the action that was planned.
    pub(super) fn round(&mut self, lossy: bool) -> (Plan, Observed) {
        let mut seen = self.observe(lossy);
        let fresh = 1_000_000 + self.fresh();
        let planned = plan(&self.wanted, &seen, fresh);
        self.check(&planned);
        self.apply(&planned, &seen);
        if let Some(Action::SetIdentity(_)) = planned.action() {
            return (planned, seen);
        }
        // The step is planned with the `StatefulSet` as it has become.
        seen.stateful_set = self.set_state();
        let planned = plan(&self.wanted, &seen, fresh);
        self.check(&planned);
        (planned, seen)
    }

    /// Whether everything is as wanted, or refused with good reason.
    pub(super) fn is_settled(&mut self) -> bool {
        let seen = self.observe(false);
        let planned = plan(&self.wanted, &seen, 1);
        let few = self.wanted.replicas < 3;
        match planned.step.map(|step| step.course) {
            // With one voter or two, no pod can go without an outage.
            Some(Course::Refuse(_)) if few => true,
            Some(_) => false,
            None => self.is_as_wanted(),
        }
    }

    fn is_as_wanted(&self) -> bool {
        let Some(cluster) = &self.cluster else { return false };
        let ordinals: BTreeSet<_> = (0..self.wanted.replicas).collect();
        let voters = &cluster.state.configuration.voters;
        let held: BTreeSet<_> = self
            .claims
            .iter()
            .filter(|(_, c)| voters.contains(&c.member))
            .map(|(&ordinal, _)| ordinal)
            .collect();
        held == ordinals
            && voters.len() == ordinals.len()
            && cluster.state.configuration.learners.is_empty()
            && self.pods.keys().copied().collect::<BTreeSet<_>>() == ordinals
            && self.claims.keys().copied().collect::<BTreeSet<_>>() == ordinals
            && self.pods.values().all(|pod| pod.revision == self.newest_revision)
    }
}

/// Whether an action that is on its way deletes this pod.
fn ends(late: Option<&Action>, ordinal: Ordinal) -> bool {
    matches!(late, Some(Action::DeletePod { ordinal: other, .. }) if *other == ordinal)
}
