//! What a disk held when it was copied, and whether its member may forget what came after.

use std::collections::BTreeSet;

use quorate_raft::{Configuration, HardState, Index, MemberId};

use super::Invariants;
use super::member::{Member, Name};

/// What the disk of a member was known to hold.
#[derive(Debug, Clone)]
pub(crate) struct Past {
    durable: Vec<Name>,
    state: HardState,
    covered: Index,
    /// The newest in that log.
    configuration: Option<Configuration>,
}

impl Invariants {
    /// The disk of a member is copied.
    pub(crate) fn copied(&self, id: MemberId) -> Past {
        let member = &self.members[&id];
        let end = member.durable.len() as Index;
        let newest = member.configurations.iter().rfind(|(id, _)| id.index <= end);
        Past {
            durable: member.durable.clone(),
            state: member.durable_state,
            covered: member.covered,
            configuration: newest.map(|(_, configuration)| configuration.clone()),
        }
    }

    /// The disk of a member, which is down, holds again what was copied. Returns where its log ended.
    pub(crate) fn put_back(&mut self, id: MemberId, past: Past) -> Index {
        let member = self.members.get_mut(&id).expect("it was founded");
        let end = member.durable.len() as Index;
        member.under_way.clear();
        member.log.clone_from(&past.durable);
        member.durable = past.durable;
        member.durable_state = past.state;
        member.covered = past.covered;
        end
    }

    /// Host `copy` begins with what was copied of the disk of member `of`. It is watched as one that no configuration names.
    pub(crate) fn copied_as(&mut self, of: MemberId, copy: MemberId, past: Past) {
        let end = past.durable.len() as Index;
        let configurations = self.members[&of].configurations.iter().filter(|(id, _)| id.index <= end);
        let mut member = Member::default();
        member.configurations = configurations.cloned().collect();
        self.members.insert(copy, member);
        self.removals.copied_as(of, copy);
        self.put_back(copy, past);
    }

    /// Whether the configuration in that log may be in force.
    pub(crate) fn may_count_by(&self, past: &Past) -> bool {
        self.configurations().any(|configuration| past.configuration.as_ref() == Some(configuration))
    }

    /// Whether nothing depends on what the disk of `id` has and the copy has not: its term and vote are the same, the whole of its log is
    /// durable at a quorum of others, by every configuration that may be in force, and so may be the one by which it counts votes then.
    /// `is_gone` are members whose disks count for nothing.
    pub(crate) fn can_forget(&self, id: MemberId, past: &Past, is_gone: impl Fn(MemberId) -> bool) -> bool {
        let member = &self.members[&id];
        let same_vote =
            (member.durable_state.term, member.durable_state.vote) == (past.state.term, past.state.vote);
        let end = member.durable.len() as Index;
        let Some(last) = member.durable.last().copied() else { return false };
        if !same_vote || !self.may_count_by(past) || !member.is_whole() || member.covered > end {
            return false;
        }
        let holds = |other: &MemberId| {
            let has = |other| self.members.get(other).is_some_and(|other| other.acknowledges(end, last));
            *other != id && !is_gone(*other) && has(other)
        };
        let majority = |set: &BTreeSet<MemberId>| {
            set.is_empty() || set.iter().filter(|other| holds(other)).count() * 2 > set.len()
        };
        self.configurations().all(|c| majority(&c.voters) && majority(&c.outgoing))
    }
}
