//! A small model of the world that plans are carried out in: a `StatefulSet` with its controller, pods, claims and volumes,
//! and a cluster that elects, commits and leaves joint configurations. It asserts what must never be done.

mod act;
mod check;
mod fault;
mod hands;
mod pass;
mod recover;
mod see;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use quorate_crds::{Disruptions, ReplaceableCause, ScaleDownPolicy};

pub(super) use self::fault::Fault;
use self::recover::Runner;
use super::{Action, Budget, Course, Plan, Recovery, Replacement, Wanted, plan};
use crate::membership::{MemberId, Ordinal};
use crate::observed::{ConfigurationState, Machine, Mark, NodeStatus, Observed, Recorded};

const NAME: &str = "demo";
/// How long a cause for replacement has to last.
const PATIENCE: Duration = Duration::from_mins(3);
/// Ticks after which a pod has had its time to come up.
const SETTLED: u32 = 20;

/// How long a tick takes, where the plan counts seconds.
const TICK: Duration = Duration::from_secs(10);
const GIB: u128 = 1 << 30;

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

#[derive(Clone, Debug)]
struct Pod {
    uid: u64,
    revision: u32,
    running: bool,
    /// What runs beside its node fails: the pod is not ready.
    beside_fails: bool,
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
    /// The size of new volumes, in GiB.
    size: u32,
    /// It is being deleted without its pods.
    going: bool,
    /// It belongs to a resource that is gone, and is taken away, with its pods, after so many ticks.
    earlier: Option<u32>,
}

// Each is a fact of its own.
#[allow(clippy::struct_excessive_bools)]
#[derive(Clone, Debug)]
struct Claim {
    uid: u64,
    terminating: bool,
    member: MemberId,
    cluster: u64,
    /// It was kept from an earlier resource.
    older: bool,
    /// The size that it asks for, in GiB.
    size: u32,
    /// What the operator has written on it.
    mark: Option<Mark>,
    /// The object of its volume is missing.
    lost: Option<Lost>,
    /// The machine that its volume is bound to.
    machine: Machine,
    /// The data on its volume is damaged: a node that starts on it ends.
    damaged: bool,
    /// Its volume stays without it.
    retained: bool,
}

#[derive(Clone, Copy, Debug)]
struct Lost {
    ticks: u32,
    /// The object comes back, and the data with it.
    comes_back: bool,
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
    /// The level of the data: nodes that do not support it end.
    level: u32,
    /// A leader that has been deposed and does not know, and what it says.
    deposed: Option<(MemberId, NodeStatus)>,
}

#[derive(Clone, Debug)]
pub(super) struct World {
    pub(super) wanted: Wanted,
    identity: Option<u64>,
    bootstrapped: bool,
    recorded: BTreeMap<Ordinal, Recorded>,
    /// The clusters that have been founded.
    founded: BTreeSet<u64>,
    /// Claims that were to be deleted because their volumes are of no use.
    deleted_as_lost: BTreeSet<u64>,
    /// Claims on whose volumes people have put others' data.
    copied: BTreeSet<u64>,
    /// At the address of a pod, as the API server has it, another pod answers.
    wrong_addresses: BTreeMap<Ordinal, Ordinal>,
    set: Option<Set>,
    /// The budget for disruptions, as it was applied last.
    budget: Budget,
    /// The template that the spec wants. Its nodes support the level of the same number.
    newest_revision: u32,
    last_revision: u32,
    /// Templates whose nodes do not start.
    broken: BTreeSet<u32>,
    /// Ticks since all members have run one version that supports a higher level than the data has, as the status says.
    raisable: Option<u32>,
    pods: BTreeMap<Ordinal, Pod>,
    claims: BTreeMap<Ordinal, Claim>,
    cluster: Option<Cluster>,
    last_id: u64,
    /// What was seen in the rounds before, and what was wanted.
    news: Vec<(Observed, Wanted)>,
    /// The recovery in the status, and the pod that does it.
    recovery: Option<Recovery>,
    recovering: Option<Runner>,
    /// A quorum is lost for good, and nothing has been done about it.
    disaster: bool,
    /// Ticks that have passed, and since which of them each thing lasts that the operator has seen.
    now: u32,
    ages: BTreeMap<String, u32>,
    pub(super) chance: Chance,
}

impl World {
    pub(super) fn new(replicas: u32, seed: u64) -> Self {
        Self {
            wanted: Wanted {
                replicas,
                when_scaled: ScaleDownPolicy::Delete,
                paused: false,
                hibernate: false,
                disruptions: Disruptions::Protect,
                replacement: Replacement {
                    automatic: ReplaceableCause::ALL.into_iter().take(2).collect(),
                    patience: Some(PATIENCE),
                },
                recover: None,
                volume_size: Some(GIB),
                finalize_after: Some(TICK * 30),
            },
            identity: None,
            bootstrapped: false,
            recorded: BTreeMap::new(),
            founded: BTreeSet::new(),
            deleted_as_lost: BTreeSet::new(),
            copied: BTreeSet::new(),
            wrong_addresses: BTreeMap::new(),
            set: None,
            budget: Budget { min_available: 1, always_allow: false },
            newest_revision: 1,
            last_revision: 1,
            broken: BTreeSet::new(),
            raisable: None,
            pods: BTreeMap::new(),
            claims: BTreeMap::new(),
            cluster: None,
            last_id: 0,
            news: Vec::new(),
            recovery: None,
            recovering: None,
            disaster: false,
            now: 0,
            ages: BTreeMap::new(),
            chance: Chance::new(seed),
        }
    }

    /// The cluster's ID, as the status has it.
    pub(super) fn id(&self) -> Option<u64> {
        self.identity
    }

    /// The size that the spec wants of volumes, in GiB.
    fn wanted_size(&self) -> u32 {
        self.wanted.volume_size.and_then(|size| u32::try_from(size / GIB).ok()).unwrap_or(1)
    }

    fn fresh(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    /// One round of the operator. Returns the action that was planned.
    pub(super) fn round(&mut self, lossy: bool) -> (Plan, Observed) {
        let mut seen = self.observe(lossy);
        self.remember(&seen);
        let fresh = 1_000_000 + self.fresh();
        let planned = plan(&self.wanted, &seen, fresh);
        self.check(&planned);
        self.apply(&planned, &seen);
        if seen.earlier.is_some() {
            return (planned, seen);
        }
        let first = |action: &Action| {
            matches!(
                action,
                Action::SetIdentity { .. } | Action::BeginRecovery(_) | Action::FinishRecovery(_)
            )
        };
        if planned.action().is_some_and(first) {
            return (planned, seen);
        }
        // The step is planned with the `StatefulSet` as it has become, and the budget follows it.
        seen.stateful_set = self.set_state();
        let planned = plan(&self.wanted, &seen, fresh);
        self.check(&planned);
        self.budget = planned.budget;
        if let Some(Action::DeleteClaim { ordinal, .. }) = planned.action() {
            let lost = self.claims.get(ordinal).filter(|claim| claim.is_useless());
            self.deleted_as_lost.extend(lost.map(|claim| claim.uid));
        }
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
        let keeps = self.wanted.when_scaled == ScaleDownPolicy::Retain;
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
            && ordinals.iter().all(|ordinal| self.claims.contains_key(ordinal))
            && self
                .claims
                .iter()
                .all(|(ordinal, claim)| ordinals.contains(ordinal) || keeps || claim.is_kept())
            && self.pods.values().all(|pod| pod.revision == self.newest_revision)
            && self.set.is_some_and(|set| !set.going && set.size == self.wanted_size())
            && ordinals.iter().all(|o| self.claims.get(o).is_some_and(|c| c.size >= self.wanted_size()))
    }
}

impl Claim {
    fn empty(uid: u64, member: MemberId) -> Self {
        Self {
            uid,
            terminating: false,
            member,
            cluster: 0,
            older: false,
            size: 1,
            mark: None,
            lost: None,
            machine: Machine::Ready,
            damaged: false,
            retained: false,
        }
    }

    /// Whether no pod can use its volume, now.
    fn is_useless(&self) -> bool {
        self.lost.is_some() || self.damaged || self.machine != Machine::Ready
    }

    /// Whether no pod will ever use its volume.
    fn is_gone(&self) -> bool {
        self.lost.is_some_and(|lost| !lost.comes_back) || self.damaged || self.machine == Machine::Gone
    }

    /// Whether scaling leaves it alone.
    fn is_kept(&self) -> bool {
        self.older || self.mark.is_some_and(|mark| mark.removed == Some(ScaleDownPolicy::Retain))
    }
}
