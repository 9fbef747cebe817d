//! A member that knows, durably, that it was removed from its cluster never takes itself for a member again, and never campaigns, unless a
//! later configuration in its log has it: whatever its log still tells. So what it shows it stores, before it does anything else.

use std::collections::BTreeMap;

use quorate_node::replica::Standing;
use quorate_raft::{Configuration, Index, MemberId};

use super::member::Member;

#[derive(Debug, Default)]
pub(crate) struct Removals {
    /// The entries by which members have shown themselves removed in this life.
    shown: BTreeMap<MemberId, Index>,
    /// Those of which their disks tell.
    known: BTreeMap<MemberId, Index>,
    /// Hosts that have begun with a copy of another's disk, and whose: it is that member that configurations name.
    copies: BTreeMap<MemberId, MemberId>,
}

impl Removals {
    /// Host `copy` begins with what was copied of the disk of member `of`.
    pub(crate) fn copied_as(&mut self, of: MemberId, copy: MemberId) {
        self.copies.insert(copy, of);
    }

    fn named(&self, id: MemberId) -> MemberId {
        self.copies.get(&id).copied().unwrap_or(id)
    }

    /// A member starts with this `mark` in its identity, 0 for none. What stood in a `damaged` log may be forgotten.
    pub(crate) fn started(&mut self, id: MemberId, mark: Index, damaged: bool) {
        self.shown.remove(&id);
        if mark > 0 {
            self.known.insert(id, mark);
        } else if damaged {
            self.known.remove(&id);
        }
    }

    /// The mark in a member's identity is durable.
    pub(crate) fn stored(&mut self, id: MemberId, mark: Index) {
        if mark > 0 {
            self.known.insert(id, mark);
        } else {
            self.known.remove(&id);
        }
    }

    /// More of the log of a member is durable: if that tells of the removal, no mark is needed for as long as it is there.
    pub(crate) fn persisted(&mut self, id: MemberId, member: &Member) {
        if let Some(removed) = self.shown.get(&id).copied().filter(|removed| is_told(member, *removed)) {
            self.known.insert(id, removed);
        }
    }

    /// A member shows how it stands, and the entry that has removed it. The `mark` is stored, or will be before the member acts again.
    pub(crate) fn stands(
        &mut self,
        id: MemberId,
        member: &Member,
        standing: Standing,
        removed: Index,
        mark: Index,
    ) {
        assert_eq!(removed, mark, "REMOVAL: {id} shows which entry has removed it, and does not store that");
        if standing == Standing::Removed {
            self.shown.insert(id, removed);
            self.persisted(id, member);
        } else {
            self.shown.remove(&id);
        }
        let Some(known) = self.known.get(&id) else { return };
        assert!(
            standing == Standing::Removed || has_it_after(*known, member, |c| c.is_member(self.named(id))),
            "REMOVAL: {id} was removed by entry {known}, and has forgotten it: {standing:?}"
        );
    }

    /// A member asks for votes.
    pub(crate) fn campaigns(&self, id: MemberId, member: &Member) {
        let Some(known) = self.known.get(&id) else { return };
        assert!(
            has_it_after(*known, member, |c| c.is_member(self.named(id))),
            "REMOVAL: {id} was removed by entry {known}, and campaigns"
        );
    }
}

/// Whether the log on disk holds the entry, and that it is committed. Of what a snapshot covers it tells nothing.
fn is_told(member: &Member, removed: Index) -> bool {
    member.covered < removed
        && removed <= member.durable_state.commit
        && member.durable.len() as Index >= removed
}

/// Whether a configuration behind entry `removed` of the member's log has it.
fn has_it_after(removed: Index, member: &Member, has: impl Fn(&Configuration) -> bool) -> bool {
    member.configurations.iter().any(|(at, configuration)| at.index > removed && has(configuration))
}
