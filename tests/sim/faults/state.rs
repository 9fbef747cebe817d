//! States that come to differ, as by a defect of memory: in what no client sees, until members compare what they hold.
//!
//! It is legal of one member in a run, while others are a quorum without it, in every configuration that may be in force. It may spread all the same: a
//! member that lacks a snapshot may take that of the one that differs before anybody can tell. Then it is not said any more who is to be told from the rest.

use quorate_api::etcdserverpb::alarm_request::AlarmAction;
use quorate_api::etcdserverpb::{AlarmRequest, AlarmType};
use quorate_api::log::command::Operation;
use quorate_node::kv::Store;
use quorate_node::level::ALARMS;
use quorate_node::replica::Agreement;
use quorate_node::snapshots::{Digest, Report};
use quorate_raft::{Configuration, MemberId};
use rand_chacha::ChaCha8Rng;

use crate::host::{Host, Process, name};
use crate::world::World;

/// Nobody has it: no client raises an alarm of it.
const STRANGER: u64 = 999;

/// Whether a state is not that of the others.
fn differs(state: &Store) -> bool {
    state.alarms().iter().any(|alarm| alarm.member_id == STRANGER)
}

impl World {
    /// An alarm is raised in the state of one member that the log knows nothing of.
    pub(super) fn make_differ(&mut self, random: &mut ChaCha8Rng) -> Option<String> {
        let id = self.victim(random)?;
        if self.hosts.values().any(|host| host.differs) {
            return None;
        }
        let quorum_without = |c: &Configuration| c.quorum(|other| other != id && !self.is_gone(other));
        if !self.invariants.configurations().all(quorum_without) {
            return None;
        }
        let host = self.hosts.get_mut(&id).filter(|host| !host.lost && !host.flipped)?;
        let process = host.process()?;
        let mut state = process.applier.store().write();
        if state.level() < ALARMS {
            return None;
        }
        let (action, alarm) = (AlarmAction::Activate.into(), AlarmType::Corrupt.into());
        let raised = state.apply(&Operation::Alarm(AlarmRequest { action, member_id: STRANGER, alarm }));
        assert!(raised.is_ok(), "an alarm can be raised: {raised:?}");
        drop(state);
        host.differs = true;
        self.coverage.count("states that came to differ");
        Some(name(id))
    }

    /// A member holds one snapshot more.
    pub(crate) fn note_held(&mut self, id: MemberId, report: &Report) {
        let host = self.hosts.get_mut(&id).expect("it has reported");
        let manifest = match report {
            Report::Received(manifest, state) => {
                // What it held before is none of its own any more.
                host.held.clear();
                if differs(state) && !std::mem::replace(&mut host.differs, true) {
                    self.coverage.count("states that came to differ with a snapshot");
                }
                manifest
            }
            Report::Taken(manifest) => manifest,
            _ => return,
        };
        host.held.push(Digest::of(manifest));
        if host.differs {
            self.invariants.has_another_snapshot(id, manifest);
        } else {
            self.invariants.has_snapshot(id, manifest);
        }
    }

    /// What a member thinks of its state. Nobody is taken for corrupt whose state is that of the others, while one member alone differs: that is not
    /// left alone to say what is right ([`World::may_shape`]).
    pub(crate) fn agrees(&mut self, id: MemberId) {
        let spread = self.have_spread();
        let any = self.hosts.values().any(|host| host.differs);
        let host = self.hosts.get_mut(&id).expect("a member");
        let Some(process) = host.process() else { return };
        match process.replica.agreement() {
            Agreement::Whole => {}
            Agreement::Divided(index) => {
                assert!(any, "DIGESTS: {} sees members divided at {index}, and none differs", name(id));
                self.coverage.count("times that members were divided");
            }
            Agreement::Corrupt(corrupt) => {
                assert!(host.differs || spread, "DIGESTS: {} is taken for corrupt: {corrupt:?}", name(id));
                if host.corrupt.replace(corrupt).is_none() {
                    self.coverage.count("members that found out that their state differs");
                }
            }
        }
    }

    /// Whether people give the cluster this shape: they leave no voters whose quorum holds what differs. A quorum is right by definition, and what is
    /// that of the log would be corrupt from then on.
    pub(super) fn may_shape(&self, wanted: &Configuration) -> bool {
        !wanted.quorum(|id| self.hosts.get(&id).is_some_and(|host| host.differs))
    }

    /// Whether people replace a member: it is corrupt, or members are divided, and it is the one that differs.
    pub(crate) fn is_to_be_replaced(&self, id: MemberId) -> bool {
        let divided = |host: &Host| {
            host.process().is_some_and(|process| matches!(process.replica.agreement(), Agreement::Divided(_)))
        };
        let host = &self.hosts[&id];
        host.corrupt.is_some() || (host.differs && self.hosts.values().any(divided))
    }

    /// Whether the state of a member need not be that of the others.
    pub(crate) fn may_differ(&mut self, id: MemberId) -> bool {
        let host = &self.hosts[&id];
        let differs_still = |process: &Process| differs(&process.applier.store().read());
        let may = host.differs && host.process().is_none_or(differs_still);
        if may {
            self.coverage.count("states that differ and could not be told from the rest");
        }
        may
    }

    /// Whether the state of a member differs from that of the others, a quorum holds another snapshot of the same entry than it, and it does not know
    /// yet.
    pub(crate) fn is_to_find_out(&self, id: MemberId, configuration: &Configuration) -> bool {
        let host = &self.hosts[&id];
        let differs = host.process().is_some_and(|process| differs(&process.applier.store().read()));
        if !differs || host.corrupt.is_some() || self.have_spread() {
            return false;
        }
        let contradicts = |own: &Digest| {
            let at = |held: &&Digest| (held.id, held.level) == (own.id, own.level);
            let holds = |id| self.hosts[&id].held.iter().find(at).map(|held| held.hash);
            self.hosts.keys().filter_map(|id| holds(*id)).any(|hash| {
                hash != own.hash
                    && configuration.quorum(|id| self.hosts.contains_key(&id) && holds(id) == Some(hash))
            })
        };
        host.held.iter().rev().take(TOLD).any(contradicts)
    }

    /// Whether several members differ from the rest. Copies of a member are none.
    fn have_spread(&self) -> bool {
        self.members_hosts().filter(|host| host.differs).count() > 1
    }
}

/// So many of its newest snapshots a member tells of for certain.
const TOLD: usize = 2;
