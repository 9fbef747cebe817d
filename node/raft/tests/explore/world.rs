//! What a world begins with, and how much may happen in it.

use std::collections::BTreeSet;

use bytes::Bytes;
use quorate_raft::{Configuration, Entry, HardState, MemberId, Payload, Restored, Term};

use crate::member::{Fault, Input};

/// What a world begins with, and how much may happen in it.
pub(crate) struct World {
    pub(crate) name: &'static str,
    pub(crate) members: Vec<(MemberId, Restored)>,
    /// Happen first, in this order, each at the member with this number, and whatever they send and write arrives: so that a search
    /// begins in the midst of things.
    pub(crate) prelude: Vec<(MemberId, Input)>,
    /// The last term: whoever is in it loses no patience.
    pub(crate) terms: Term,
    pub(crate) bounds: Bounds,
    /// In this order, each once at the most.
    pub(crate) changes: Vec<Configuration>,
    pub(crate) fault: Fault,
}

/// How often each may happen, to all members together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Bounds {
    pub(crate) ticks: u8,
    pub(crate) restarts: u8,
    /// While one of them is left nobody loses patience: elections follow it. And no change begins any more once there was one.
    pub(crate) outages: u8,
    pub(crate) damages: u8,
    pub(crate) proposals: u8,
    pub(crate) changes: u8,
    pub(crate) reads: u8,
    /// How often a member finds that it lacks what precedes the entries that a leader of its term sends: they have overtaken
    /// others, or others were lost, or the leader does not know yet how far it is. Once that is used up such entries do not arrive.
    /// None: any number of times.
    pub(crate) gaps: Option<u8>,
}

impl World {
    /// Of members that have founded a cluster with all of them.
    pub(crate) fn of(name: &'static str, ids: &[u64], terms: u64) -> Self {
        Self {
            name,
            members: members(ids, ids, &[]),
            prelude: Vec::new(),
            terms,
            bounds: Bounds::default(),
            changes: Vec::new(),
            fault: Fault::None,
        }
    }

    /// Of four members, on the way from {1,2,3} to {1,4} and back, from this step on.
    pub(crate) fn of_changes(name: &'static str, from: usize) -> Self {
        let way =
            [configuration(&[1, 4], &[]), configuration(&[1, 4], &[2, 3]), configuration(&[1, 2, 3], &[])];
        let mut world = Self::of(name, &[1, 2, 3], 3);
        world.members = members(&[1, 2, 3, 4], &[1, 2, 3], &[4]);
        let begun = way[..from].iter().map(|wanted| (MemberId(1), Input::Change(Box::new(wanted.clone()))));
        world.prelude.extend(begun);
        world.changes = way[from..].to_vec();
        world
    }

    /// Of voters 1, 2 and 3, of which 3 is lost for good, and learner 4. 1 has appended the joint configuration in which 4 is to take
    /// its own place, and nobody has it. 3 has led since, and nobody has its entry but 4. So 2 needs 1, 1 needs 2 and 4, and 4 has the newest log.
    pub(crate) fn of_a_learner_ahead(name: &'static str) -> Self {
        let mut world = Self::of(name, &[], 4);
        world.members = members(&[1, 2, 4], &[1, 2, 3], &[4]);
        let joint = Configuration {
            outgoing: configuration(&[1, 2, 3], &[]).voters,
            ..configuration(&[2, 3, 4], &[])
        };
        let own = Entry { term: 2, index: 2, payload: Payload::Configuration(Box::new(joint)) };
        let newest = Entry { term: 3, index: 2, payload: Payload::Noop };
        for ((_, disk), (term, vote, entry)) in world.members.iter_mut().zip([
            (2, Some(MemberId(1)), Some(own)),
            (3, Some(MemberId(3)), None),
            (3, None, Some(newest)),
        ]) {
            disk.hard_state = HardState { term, vote, commit: 1 };
            disk.entries.extend(entry);
        }
        world
    }

    /// The world goes on from where 1 leads, and everyone knows that all is committed.
    pub(crate) fn after_an_election(mut self) -> Self {
        self.prelude.insert(0, (MemberId(1), Input::Tick));
        self
    }
}

pub(crate) fn configuration(voters: &[u64], learners: &[u64]) -> Configuration {
    let set = |ids: &[u64]| ids.iter().copied().map(MemberId).collect::<BTreeSet<_>>();
    let (voters, learners) = (set(voters), set(learners));
    let addresses = voters.union(&learners).map(|id| (*id, Bytes::new())).collect();
    Configuration { voters, learners, addresses, ..Configuration::default() }
}

/// Members whose logs hold the configuration, committed.
fn members(ids: &[u64], voters: &[u64], learners: &[u64]) -> Vec<(MemberId, Restored)> {
    let payload = Payload::Configuration(Box::new(configuration(voters, learners)));
    let disk = Restored {
        hard_state: HardState { term: 1, vote: None, commit: 1 },
        entries: vec![Entry { term: 1, index: 1, payload }],
        ..Restored::default()
    };
    ids.iter().map(|id| (MemberId(*id), disk.clone())).collect()
}
