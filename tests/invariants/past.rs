//! What a disk held when it was copied, and whether its member may forget what came after.

use std::collections::BTreeSet;

use quorate_raft::{Configuration, HardState, Index, MemberId};

use super::Invariants;
use super::member::Name;

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

    /// Whether nothing depends on what the disk of `id` has and the copy has not: its term and vote are the same, the whole of its log is
    /// durable at a quorum of others, by every configuration that may be in force, and so may be the one by which it counts votes then.
    /// `is_gone` are members whose disks count for nothing.
    pub(crate) fn can_forget(&self, id: MemberId, past: &Past, is_gone: impl Fn(MemberId) -> bool) -> bool {
        let member = &self.members[&id];
        let same_vote =
            (member.durable_state.term, member.durable_state.vote) == (past.state.term, past.state.vote);
        let end = member.durable.len() as Index;
        let Some(last) = member.durable.last().copied() else { return false };
        let knows = |configuration| past.configuration.as_ref() == Some(configuration);
        if !same_vote || !self.configurations().any(knows) || !member.is_whole() || member.covered > end {
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
