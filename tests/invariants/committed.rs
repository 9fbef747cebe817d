//! What is committed is committed for everyone, and was durable on a quorum when that was first known: a member whose disk was
//! damaged since it acknowledged counts, as it votes for nobody before it has again what it lost.

use std::collections::BTreeMap;
use std::ops::Range;

use quorate_raft::{Configuration, Index, LogId, MemberId, Term};

use super::member::{Member, Name};

#[derive(Debug, Default)]
pub(crate) struct Committed {
    entries: Vec<Name>,
    /// In which term each was committed: that of the leader who knew it first. Later than its own, if it was committed with others.
    terms: Vec<Term>,
}

impl Committed {
    /// A member begins with this much committed.
    pub(crate) fn founded(&mut self, member: &Member, commit: Index) {
        for name in &member.log[self.entries.len().min(commit as usize)..commit as usize] {
            self.entries.push(*name);
            self.terms.push(name.term);
        }
    }

    /// The newest entry.
    pub(crate) fn last(&self) -> Index {
        self.entries.len() as Index
    }

    /// The name of a committed entry.
    pub(crate) fn at(&self, index: Index) -> LogId {
        LogId { term: self.entries[index as usize - 1].term, index }
    }

    /// Everything that is committed up to `index`.
    pub(crate) fn until(&self, index: Index) -> &[Name] {
        &self.entries[..index as usize]
    }

    /// Whether `id` is committed.
    pub(crate) fn holds(&self, id: LogId) -> bool {
        id.index <= self.last() && (id.index == 0 || self.at(id.index) == id)
    }

    /// The newest entry that was committed in a term before `term`.
    pub(crate) fn newest_before(&self, term: Term) -> Option<LogId> {
        let count = self.terms.partition_point(|committed_in| *committed_in < term);
        (count > 0).then(|| self.at(count as Index))
    }

    /// A member in `term` takes everything up to `commit` to be committed. Returns what nobody knew before.
    pub(crate) fn told(&mut self, id: MemberId, member: &Member, commit: Index, term: Term) -> Range<Index> {
        let known = self.last();
        assert!(
            commit <= member.log.len() as Index,
            "COMMITTED: {id} takes entry {commit} to be committed, and its log ends at {}",
            member.log.len()
        );
        let common = commit.min(known) as usize;
        if common > 0 {
            assert_eq!(
                member.log[common - 1],
                self.entries[common - 1],
                "COMMITTED: at {id} another entry is committed at {common}"
            );
        }
        if commit > known {
            self.entries.extend_from_slice(&member.log[known as usize..commit as usize]);
            let term = term.max(self.terms.last().copied().unwrap_or(0));
            self.terms.resize(self.entries.len(), term);
        }
        known + 1..self.last() + 1
    }

    /// The entry at `index`, which `leader` has just told of, is on the disks of a quorum: of the configuration that held at
    /// that place, or of the leader's newest.
    pub(crate) fn is_durable(
        &self,
        index: Index,
        leader: &Member,
        members: &BTreeMap<MemberId, Member>,
    ) -> bool {
        let wanted = self.entries[index as usize - 1];
        let has = |id: &MemberId| members.get(id).is_some_and(|m| m.acknowledges(index, wanted));
        let found = leader.configurations_around(index).into_iter().flatten().any(|c| quorum(c, has));
        assert!(
            found,
            "COMMITTED: entry {index} of term {} was committed, but no quorum has it on disk; configurations: {:?}",
            wanted.term,
            leader.configurations_around(index)
        );
        found
    }
}

/// Whether those for whom `holds` is true are a quorum: here by the paper's words, not by the core's code.
pub(crate) fn quorum(configuration: &Configuration, holds: impl Fn(&MemberId) -> bool) -> bool {
    let majority = |set: &std::collections::BTreeSet<MemberId>| {
        set.iter().filter(|id| holds(id)).count() * 2 > set.len()
    };
    majority(&configuration.voters)
        && (configuration.outgoing.is_empty() || majority(&configuration.outgoing))
}
