//! Snapshots: the log up to an entry, replaced by what it has led to (Raft paper, section 7).
//!
//! The core knows only a snapshot's identity. Snapshots are canonical: every member's snapshot at an entry holds the same
//! bytes, so an identity stands for contents that can be fetched in pieces from anyone, and a transfer goes on under
//! another leader. The contents are the caller's: it makes them, fetches them, checks them, keeps them.
//!
//! A leader that does not hold the next entry of a follower any more offers its newest snapshot, by a small message, until
//! the follower holds what the leader's log begins with. The follower says what it wants in [`crate::Output::wanted`], goes
//! on answering heartbeats, and acknowledges when the contents are installed.

use crate::common::Common;
use crate::raft::{Raft, RoleState};
use crate::{Body, Configuration, Index, LogId, MemberId};

/// What is known of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Snapshot {
    /// The last entry that it covers.
    pub id: LogId,
    /// The newest configuration up to that entry.
    pub configuration: Configuration,
    /// Where that configuration stood in the log: its ID.
    pub configuration_id: LogId,
}

impl Raft {
    /// The identity of the snapshot at `index`, for a caller whose state has everything up to there and nothing beyond.
    /// None if that entry is not committed here, or lies before the newest snapshot and is compacted.
    pub fn snapshot_at(&self, index: Index) -> Option<Snapshot> {
        let common = &self.common;
        if index > common.commit() {
            return None;
        }
        let id = LogId { term: common.log.term_at(index)?, index };
        let (configuration_id, configuration) = common.membership.at(index)?.clone();
        Some(Snapshot { id, configuration, configuration_id })
    }

    /// The snapshot that this member offers to others, if it leads.
    pub fn newest_snapshot(&self) -> Option<LogId> {
        self.common.snapshot.as_ref().map(|snapshot| snapshot.id)
    }

    /// The caller has `snapshot`, whole and durable; what the log holds up to `keep_after` may go. What follows serves members
    /// that are a little behind without a snapshot. An older one than the newest known changes nothing.
    ///
    /// # Panics
    /// If the snapshot covers what was not handed out to be applied, or contradicts the log (failure 22).
    pub fn compact(&mut self, snapshot: Snapshot, keep_after: Index) {
        self.common.compact(snapshot, keep_after);
    }

    /// `snapshot`'s contents are whole, verified and durable here: the newest that there is, unless a newer one is known. Returns
    /// whether they are to take the place of the caller's state now, before anything else that is handed out to be applied:
    /// what follows begins after the snapshot. If not, this member has got there by its log meanwhile.
    ///
    /// A snapshot that was superseded as [`crate::Output::wanted`] may still be reported: it is as true as the newer one.
    #[must_use = "the state has to be replaced"]
    pub fn installed(&mut self, snapshot: &Snapshot) -> bool {
        let Snapshot { id, .. } = *snapshot;
        if id.term > self.common.term {
            self.common.enter_term(id.term);
            self.become_follower();
        }
        let leads = matches!(self.role, RoleState::Leader(_));
        let common = &mut self.common;
        let replaces = id.index > common.commit() && !common.log.contains(id);
        if replaces {
            assert!(!leads, "a leader holds what is committed, and {id:?} is");
            common.install(snapshot.clone());
        } else {
            // Rule 7 of figure 13: the log holds the snapshot's last entry, so it stays, and with it what follows.
            common.commit_to(id.index);
            common.adopt(snapshot.clone());
        }
        let matched = common.commit();
        if let Some(leader) = common.leader.filter(|_| !leads) {
            common.send(leader, Body::AppendAccepted { matched });
        }
        replaces
    }

    /// The contents of the snapshot `id` cannot be had: nobody has them any more, or they are damaged. Whatever the leader
    /// offers next is wanted instead, if need be the same again.
    pub fn install_failed(&mut self, id: LogId) {
        self.common.wanted.take_if(|wanted| wanted.id == id);
    }

    /// A leader of this term offers `snapshot`; its log begins after `base`.
    ///
    /// If this member can be served from the leader's log it says so, and wants nothing. Otherwise what it wants already stays
    /// wanted while it is of use, whoever offers what: a transfer is not begun anew by another leader, a newer snapshot or a
    /// repeated offer (failure 33).
    pub(crate) fn on_offer(&mut self, leader: MemberId, snapshot: Snapshot, base: LogId) {
        if !self.follow(leader) {
            return;
        }
        let common = &mut self.common;
        if base.index > snapshot.id.index || snapshot.id.term > common.term {
            return;
        }
        if common.log.contains(snapshot.id) {
            common.commit_to(snapshot.id.index);
        }
        let held = if common.log.contains(base) { base.index } else { 0 };
        let matched = held.max(common.commit());
        if matched >= base.index {
            return common.send(leader, Body::AppendAccepted { matched });
        }
        if common.wanted().is_none_or(|wanted| wanted.id.index < base.index) {
            common.wanted = Some(snapshot);
        }
    }
}

impl Common {
    /// The snapshot that this member lacks, until it is installed or the log has got there.
    pub(crate) fn wanted(&self) -> Option<&Snapshot> {
        let lacking = |wanted: &&Snapshot| wanted.id.index > self.commit() && !self.log.contains(wanted.id);
        self.wanted.as_ref().filter(lacking)
    }
}
