//! What must hold at every step of every run, whatever happens: one file for each invariant.
//!
//! A simulator reports what it sees of each member ([`Invariants`]); each invariant remembers what it needs and looks at what is
//! new, so that a check costs as little as the step itself. A broken one panics with what it saw.
//!
//! To add one: a file with a struct, a method for what it watches, a field here, and a call where that is reported.

mod acknowledged;
mod committed;
mod configurations;
mod election;
mod leader_completeness;
mod leases;
mod log_matching;
mod member;
mod monotonic;
mod once;
mod past;
mod promises;
mod reads;
mod recovery;
mod removal;
mod snapshots;
mod state_machine;
mod votes;

use std::collections::BTreeMap;

use quorate_node::replica::{Message, Standing};
use quorate_node::snapshots::Manifest;
use quorate_raft::{
    Body, Configuration, HardState, Index, LogId, MemberId, Payload, Restored, Role, Status, Term, Write,
    WriteId,
};

pub(crate) use member::Member;
pub(crate) use past::Past;
pub(crate) use state_machine::Shown;

/// What has been seen so far, in the whole cluster.
#[derive(Debug, Default)]
pub(crate) struct Invariants {
    members: BTreeMap<MemberId, Member>,
    acknowledged: acknowledged::Acknowledged,
    committed: committed::Committed,
    configurations: configurations::Configurations,
    election: election::ElectionSafety,
    pub(crate) leases: leases::Leases,
    matching: log_matching::LogMatching,
    once: once::Once,
    machine: state_machine::StateMachineSafety,
    reads: reads::Reads,
    removals: removal::Removals,
    snapshots: snapshots::Snapshots,
    votes: votes::Votes,
}

impl Invariants {
    /// A member begins with `restored` on its disk: a cluster's founder, or an empty one.
    pub(crate) fn founded(&mut self, id: MemberId, restored: &Restored) {
        let mut member = Member::default();
        for entry in &restored.entries {
            self.note(id, &mut member, entry);
        }
        member.settle(restored.hard_state);
        self.committed.founded(&member, restored.hard_state.commit);
        self.members.insert(id, member);
    }

    /// A member has read its disk, and starts from what it found.
    ///
    /// If its disk was `damaged`, an older snapshot may take the place of the newest. `mark` is the entry by which it knows to have been
    /// removed, 0 for none.
    pub(crate) fn started(&mut self, id: MemberId, found: &Restored, damaged: bool, mark: Index) {
        self.recover(id, found, damaged);
        self.removals.started(id, mark, damaged);
    }

    /// The mark of a removal in the identity of a member is durable; 0 for none.
    pub(crate) fn stored_removal(&mut self, id: MemberId, mark: Index) {
        self.removals.stored(id, mark);
    }

    /// How a member stands in its cluster, and the entry that has removed it: as it shows it, and as its identity is to say.
    pub(crate) fn stands(&mut self, id: MemberId, standing: Standing, removed: Index, mark: Index) {
        self.removals.stands(id, &self.members[&id], standing, removed, mark);
    }

    /// A member has a snapshot, durably: one that it took, or one that came. Whether nobody had it before.
    pub(crate) fn has_snapshot(&mut self, id: MemberId, manifest: &Manifest) -> bool {
        let member = self.members.get_mut(&id).expect("it was founded");
        member.covered = member.covered.max(manifest.id().index);
        self.snapshots.durable(id, manifest, &self.committed)
    }

    /// The same of a snapshot that is not that of the others: its member's state has come to differ.
    pub(crate) fn has_another_snapshot(&mut self, id: MemberId, manifest: &Manifest) {
        let member = self.members.get_mut(&id).expect("it was founded");
        member.covered = member.covered.max(manifest.id().index);
    }

    /// A member handed out a write: its log and its hard state are what it says from now on.
    pub(crate) fn wrote(&mut self, id: MemberId, write: &Write) {
        let mut member = self.members.remove(&id).expect("it was founded");
        monotonic::wrote(id, &member, write);
        let covered = write.reset.map(|reset| {
            assert!(
                self.committed.holds(reset),
                "RECOVERY: {id} begins anew after {reset:?}, which is not committed"
            );
            let configurations = self.configurations.until(reset.index, |id| self.committed.holds(id));
            (self.committed.until(reset.index).to_vec(), configurations)
        });
        member.begin(write, covered);
        for entry in &write.entries {
            self.note(id, &mut member, entry);
        }
        member.end();
        self.members.insert(id, member);
        if let Some(HardState { commit, term, .. }) = write.hard_state {
            self.knows_committed(id, commit, term);
        }
    }

    /// The disk of a member has told it that this write, and all before it, are durable.
    pub(crate) fn persisted(&mut self, id: WriteId, at: MemberId) {
        let member = self.members.get_mut(&at).expect("it was founded");
        member.persisted(id);
        self.removals.persisted(at, member);
    }

    /// The same of all before this write, and of that one up to this entry.
    pub(crate) fn persisted_part(&mut self, id: WriteId, index: Index, at: MemberId) {
        let member = self.members.get_mut(&at).expect("it was founded");
        member.persisted_part(id, index);
        self.removals.persisted(at, member);
    }

    /// A message leaves.
    pub(crate) fn sent(&mut self, id: MemberId, message: &Message) {
        let Message::Raft(message) = message else { return };
        let member = &self.members[&id];
        promises::sent(member, message);
        match &message.body {
            Body::AppendEntries { commit, .. } | Body::Heartbeat { commit, .. } => {
                self.election.leads(id, message.term);
                self.knows_committed(id, *commit, message.term);
            }
            Body::Vote { pre_vote: false, granted: true } => self.votes.cast(id, message.term, message.to),
            Body::RequestVote { pre_vote, .. } => {
                self.removals.campaigns(id, member);
                if !pre_vote {
                    self.votes.cast(id, message.term, id);
                }
            }
            _ => {}
        }
    }

    /// What a member shows of itself.
    pub(crate) fn showed(&mut self, status: &Status) {
        let id = status.id;
        let member = self.members.get_mut(&id).expect("it was founded");
        monotonic::showed(member, status);
        member.term = status.term;
        member.commit = status.commit;
        if status.role == Role::Leader && self.election.leads(id, status.term) {
            leader_completeness::elected(member, status.term, &self.committed);
        }
        self.knows_committed(id, status.commit, status.term);
    }

    /// A member has applied everything up to `applied`: what its state shows then.
    pub(crate) fn applied(&mut self, id: MemberId, applied: Index, shown: Shown) {
        if applied <= self.members[&id].applied {
            return;
        }
        self.knows_committed(id, applied, self.members[&id].term);
        let member = self.members.get_mut(&id).expect("it was founded");
        self.machine.applied(id, member, applied, shown);
        member.applied = applied;
    }

    /// A member answers that it has done command `number` of its client.
    pub(crate) fn acknowledged(&mut self, id: MemberId, number: u64, revision: i64) {
        let applied = self.members[&id].applied;
        self.acknowledged.answered((id, number), applied, &self.once, &self.committed);
        self.reads.acknowledged(revision);
    }

    /// The newest revision that was acknowledged anywhere: what a read that begins now has to see.
    pub(crate) fn newest_acknowledged(&self) -> i64 {
        self.reads.newest()
    }

    /// A member serves a read at `revision` that began when `began` was the newest acknowledged.
    pub(crate) fn read(&mut self, id: MemberId, began: i64, revision: i64) {
        self.reads.served(id, began, revision);
    }

    /// Whether a write replaces a part of the log, and whether that takes a configuration with it.
    pub(crate) fn replaces(&self, id: MemberId, write: &Write) -> (bool, bool) {
        let member = &self.members[&id];
        let Some(first) = write.entries.first().map(|entry| entry.index).filter(|_| write.reset.is_none())
        else {
            return (false, false);
        };
        let configured = member.configurations.last().is_some_and(|(id, _)| id.index >= first);
        (first <= member.log.len() as Index, configured)
    }

    /// The newest configuration in a member's log before `index`, and whether anybody has seen another at that place.
    pub(crate) fn configuration_before(&self, id: MemberId, index: Index) -> Option<&(LogId, Configuration)> {
        self.members[&id].configurations.iter().rfind(|(id, _)| id.index < index)
    }

    /// Whether this configuration has been in any log.
    pub(crate) fn knows_configuration(&self, id: LogId) -> bool {
        self.configurations.knows(id)
    }

    /// Configurations that may be in force somewhere: the newest that is committed, and all that came into a log after it.
    pub(crate) fn configurations(&self) -> impl Iterator<Item = &Configuration> {
        self.configurations.in_force(self.committed.last(), |id| self.committed.holds(id))
    }

    /// An entry enters the log of a member.
    fn note(&mut self, id: MemberId, member: &mut Member, entry: &quorate_raft::Entry) {
        let name = member.push(entry);
        let previous = member.term_at(entry.index - 1).unwrap_or(0);
        if !self.matching.appended(id, entry, name, previous) {
            return;
        }
        // Nobody had it before.
        match &entry.payload {
            Payload::Command(bytes) => self.once.appended(entry.id(), bytes),
            Payload::Configuration(configuration) => {
                self.configurations.appended(entry.id(), configuration, &member.configurations);
            }
            Payload::Noop => {}
        }
    }

    /// A member in `term` takes everything up to `commit` to be committed.
    fn knows_committed(&mut self, id: MemberId, commit: Index, term: Term) {
        let new = self.committed.told(id, &self.members[&id], commit, term);
        if new.is_empty() {
            return;
        }
        self.committed.is_durable(new.end - 1, &self.members[&id], &self.members);
        for index in new {
            self.once.committed(self.committed.at(index));
        }
    }
}
