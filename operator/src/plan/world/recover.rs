//! A quorum that is lost for good, and the way back that a person asks for.

use std::collections::BTreeSet;

use super::super::{RecoveryPod, Request, Stage};
use super::{Cluster, NAME, World};
use crate::membership::{Configuration, ConfigurationId, Member, Ordinal};
use crate::observed::{ConfigurationState, Machine};

/// The pod that makes a new cluster of a volume.
#[derive(Clone, Debug)]
pub(super) struct Runner {
    pub(super) uid: u64,
    ordinal: Ordinal,
    from: u64,
    to: u64,
    done: bool,
}

impl World {
    /// The machines of these volumes are gone, all at once, and a quorum with them. At least one member is left that has what was committed.
    pub(super) fn suffer_disaster(&mut self, ordinals: &BTreeSet<Ordinal>) {
        let steady = self.cluster.as_ref().is_some_and(|cluster| cluster.state.committed);
        let founded = steady && self.bootstrapped && self.identity.is_some() && !self.recovers();
        if !founded || !self.candidates().iter().any(|ordinal| !ordinals.contains(ordinal)) {
            return;
        }
        for ordinal in ordinals {
            if let Some(claim) = self.claims.get_mut(ordinal) {
                claim.machine = Machine::Gone;
                self.pods.remove(ordinal);
            }
        }
        self.disaster |= !self.can_lose(&BTreeSet::new(), None);
    }

    /// A person asks for a new cluster where nothing else helps: of this member, or of any.
    pub(super) fn ask_to_recover(&mut self, wish: Option<Ordinal>) {
        let led = self.cluster.as_ref().is_some_and(|cluster| {
            cluster.leader.is_some() && cluster.state.configuration.has_quorum(|id| self.runs(id))
        });
        if led && wish.is_none() && !self.recovers() {
            // The plan has said that nothing is lost.
            (self.wanted.recover, self.disaster) = (None, false);
        }
        let Some(cluster) = self.identity.filter(|_| self.disaster) else { return };
        // What was begun with one member goes on, unless a person wants another.
        let asked = self.wanted.recover.as_ref().is_some_and(|request| request.cluster == cluster);
        if asked && wish.is_none() {
            return;
        }
        let candidates = self.candidates();
        let Some(ordinal) = wish.filter(|o| candidates.contains(o)).or(candidates.first().copied()) else {
            return;
        };
        let member = self.claims[&ordinal].member;
        self.wanted.recover = Some(Request { cluster, pod: format!("{NAME}-{ordinal}"), member });
    }

    /// Whether a recovery was begun that has not ended.
    pub(super) fn recovers(&self) -> bool {
        self.recovery.as_ref().is_some_and(|begun| Some(begun.from) == self.identity)
    }

    /// The members that have what was committed, and whose volumes can be had.
    fn candidates(&self) -> Vec<Ordinal> {
        let Some(cluster) = self.cluster.as_ref().filter(|cluster| Some(cluster.id) == self.identity) else {
            return Vec::new();
        };
        let fits = |(&ordinal, claim): (&Ordinal, &super::Claim)| {
            let configuration = &cluster.state.configuration;
            let right = configuration.ordinal(NAME, claim.member) == Some(ordinal);
            let has = configuration.contains(claim.member) && cluster.caught_up.contains(&claim.member);
            let known =
                claim.mark.is_some_and(|mark| mark.member == claim.member && mark.cluster == cluster.id);
            (right && has && known && !claim.terminating && !claim.is_useless()).then_some(ordinal)
        };
        self.claims.iter().filter_map(fits).collect()
    }

    pub(super) fn see_recovery(&self) -> Option<RecoveryPod> {
        self.recovering.as_ref().map(|runner| RecoveryPod {
            uid: runner.uid.to_string(),
            to: runner.to,
            terminating: false,
            stage: if runner.done { Stage::Succeeded } else { Stage::Runs(None) },
        })
    }

    pub(super) fn run_recovery(&mut self, ordinal: Ordinal, from: u64, to: u64) {
        if self.recovering.is_none() {
            let uid = self.fresh();
            self.recovering = Some(Runner { uid, ordinal, from, to, done: false });
        }
    }

    /// The pod of the recovery gets on. It may be interrupted at any point, and begun again.
    pub(super) fn run_runner(&mut self) {
        let Some(mut runner) = self.recovering.take() else { return };
        let free = !self.pods.contains_key(&runner.ordinal);
        let usable = self.claims.get(&runner.ordinal).is_some_and(|claim| !claim.is_useless());
        if !runner.done && free && usable && self.chance.one_in(3) {
            let member = self.fresh();
            let quorate = self.cluster.as_ref().is_some_and(|cluster| {
                cluster.id == runner.from && cluster.state.configuration.has_quorum(|id| self.runs(id))
            });
            let claim = self.claims.get_mut(&runner.ordinal).expect("it is usable");
            runner.done = claim.cluster == runner.to;
            if claim.cluster == runner.from {
                assert!(!quorate, "a cluster is given up that has its quorum");
                assert!(!self.founded.contains(&runner.to), "cluster {} is founded twice", runner.to);
                (claim.cluster, claim.member) = (runner.to, member);
                self.founded.insert(runner.to);
                // What the data needs to be read stays with it.
                let level = self.cluster.as_ref().map_or(0, |cluster| cluster.level);
                self.cluster = Some(Cluster { level, ..alone(runner.to, runner.ordinal, member) });
                runner.done = true;
            }
        }
        // It is lost with its machine, and nobody knows how far it was.
        if !self.chance.one_in(12) || runner.done {
            self.recovering = Some(runner);
        }
    }
}

/// A new cluster of one.
fn alone(id: u64, ordinal: Ordinal, member: u64) -> Cluster {
    let described =
        Member { name: format!("{NAME}-{ordinal}"), peer_address: String::new(), client_urls: Vec::new() };
    let configuration = Configuration {
        voters: [member].into(),
        members: [(member, described)].into(),
        ..Configuration::default()
    };
    let state = ConfigurationState {
        id: ConfigurationId { term: 1_000_000, index: 1 },
        configuration,
        committed: true,
    };
    let (previous, caught_up) = (state.clone(), [member].into());
    Cluster { id, term: 1_000_000, leader: None, state, previous, caught_up, level: 0, deposed: None }
}
