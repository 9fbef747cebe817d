//! What a leader does: it appends, replicates, commits, and finds out whether it still leads.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::common::Common;
use crate::lease::Renewals;
use crate::priority::Deference;
use crate::progress::Follower;
use crate::reads::{LeaderReads, Reader};
use crate::transfer::Transfer;
use crate::{Body, Index, LogId, MemberId, Payload, Progress, ProposeError, ReadDone};

/// Whether a leader goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(crate) enum Standing {
    /// It leads.
    Leads,
    /// It has to step down.
    StepsDown,
}

/// The state of one leadership: it begins with the election and is thrown away with the role.
///
/// Invariants: the leader only appends to its log (Leader Append-Only; Raft paper, figure 3); `followers` has everyone in
/// the configuration but the leader, and those who are told that they left it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Leader {
    pub(crate) followers: BTreeMap<MemberId, Follower>,
    pub(crate) transfer: Option<Transfer>,
    pub(crate) deference: Deference,
    pub(crate) renewals: Renewals,
    /// The first entry of its term. Until that is committed the leader does not know what is.
    first: Index,
    reads: LeaderReads,
    /// Ticks since the last heartbeat.
    quiet: u32,
    /// The ends of the log that [`Leader::caught_up`] compares with: now at least one election timeout old, and younger.
    marks: (Index, Index),
    /// Ticks since the younger mark was set.
    marked: u32,
}

impl Leader {
    /// Begins to lead, by an entry of its term that does nothing (Raft paper, section 8).
    pub(crate) fn new(common: &mut Common) -> Self {
        let first = common.append_payload(Payload::Noop);
        let mut leader = Self {
            followers: BTreeMap::new(),
            transfer: None,
            deference: Deference::default(),
            renewals: Renewals::default(),
            first,
            reads: LeaderReads::default(),
            quiet: 0,
            marks: (first, first),
            marked: 0,
        };
        leader.meet(common, first);
        leader
    }

    /// Appends commands, in order.
    pub(crate) fn propose(
        &mut self,
        common: &mut Common,
        commands: Vec<Bytes>,
    ) -> Result<Index, ProposeError> {
        self.refuse_while_handing_over()?;
        let first = common.log.last().index + 1;
        for command in commands {
            common.append_payload(Payload::Command(command));
        }
        Ok(first)
    }

    /// While leadership is handed over the end of the log stands still.
    pub(crate) fn refuse_while_handing_over(&self) -> Result<(), ProposeError> {
        match &self.transfer {
            Some(transfer) => Err(ProposeError::Transferring { target: transfer.target }),
            None => Ok(()),
        }
    }

    /// Time passes.
    pub(crate) fn tick(&mut self, common: &mut Common) -> Standing {
        self.followers.values_mut().for_each(Follower::tick);
        self.renewals.pass(1, common.config.lease);
        let patience = common.config.election_ticks;
        self.followers.retain(|_, follower| follower.leaving.is_none() || follower.is_active(patience));
        self.mark(common);
        self.give_up_late_transfer(common);
        self.defer_to_preferred(common);
        self.quiet += 1;
        if self.quiet >= common.config.heartbeat_ticks {
            self.quiet = 0;
            if common.config.lease.is_some() {
                self.reads.number_anew();
            }
            self.begin_round(common);
            self.send_heartbeats(common);
        }
        if common.disk_hangs() || !self.has_quorum(common) || (common.barred && self.has_heir(common)) {
            Standing::StepsDown
        } else {
            self.advance(common)
        }
    }

    /// Whether another voter holds all of the log.
    fn has_heir(&self, common: &Common) -> bool {
        let heir = self.furthest_voter(common).and_then(|id| self.followers.get(&id));
        heir.is_some_and(|heir| heir.matched == common.log.last().index)
    }

    /// A follower's log agrees up to `matched`, durably.
    pub(crate) fn on_accepted(&mut self, common: &mut Common, from: MemberId, matched: Index) -> Standing {
        if let Some(follower) = self.followers.get_mut(&from)
            && matched <= common.log.last().index
        {
            follower.heard();
            follower.accepted(matched, common.log.base().index);
            self.farewell_if_told(from);
            self.hand_over_if_ready(common);
        }
        self.advance(common)
    }

    /// A follower lacks the entry before those that it was sent.
    pub(crate) fn on_rejected(
        &mut self,
        common: &Common,
        from: MemberId,
        rejected: Index,
        hint: LogId,
        lost: bool,
    ) {
        if let Some(follower) = self.followers.get_mut(&from) {
            follower.heard();
            // Where they agree may be compacted: then the follower is behind all that is kept.
            let agreed = common.log.agreement(hint).map(|agreed| agreed.index);
            if lost {
                follower.lost(agreed.unwrap_or_default());
            }
            let behind = common.log.base().index.saturating_sub(1);
            follower.rejected(rejected, agreed.unwrap_or(behind));
        }
    }

    /// A follower is there and follows this term. That says nothing of its log (failure 11).
    pub(crate) fn on_heartbeat_ack(
        &mut self,
        common: &mut Common,
        from: MemberId,
        round: u64,
        priority: u32,
        promise: u32,
    ) {
        if let Some(follower) = self.followers.get_mut(&from)
            && round <= self.reads.newest()
        {
            follower.heard();
            follower.recover(common.config.heartbeat_ticks);
            follower.round = follower.round.max(round);
            follower.priority = priority;
            if promise >= common.config.election_ticks {
                follower.renewed = follower.renewed.max(self.renewals.sent_at(round));
            }
            self.farewell_if_told(from);
            self.confirm_reads(common);
        }
    }

    /// The connection of a follower broke: what was on its way is likely lost.
    pub(crate) fn on_disconnected(&mut self, peer: MemberId) {
        if let Some(follower) = self.followers.get_mut(&peer) {
            follower.probe();
        }
    }

    /// Somebody wants to read: at once while there is a lease.
    pub(crate) fn on_read(&mut self, common: &mut Common, reader: Reader) {
        if self.has_lease(common) && self.knows_commit(common) {
            settle(common, reader, Some(common.commit()));
        } else {
            self.reads.arrive(reader);
        }
    }

    /// Sends what there is to send: a round of reads, entries, news of the commit index.
    pub(crate) fn flush(&mut self, common: &mut Common) {
        if self.reads.is_due() && self.begin_round(common) {
            self.send_heartbeats(common);
        }
        for (id, follower) in &mut self.followers {
            while let Some(message) = follower.next_message(common) {
                common.send(*id, message);
            }
        }
    }

    /// Whether [`Self::flush`] has something to send.
    pub(crate) fn has_output(&self, common: &Common) -> bool {
        (self.reads.is_due() && self.knows_commit(common))
            || self.followers.values().any(|follower| follower.wants_message(common))
    }

    /// Commits what a quorum holds, and does what follows from that.
    pub(crate) fn advance(&mut self, common: &mut Common) -> Standing {
        loop {
            self.commit(common);
            if !self.continue_change(common) {
                break;
            }
        }
        if self.is_removed(common) { Standing::StepsDown } else { Standing::Leads }
    }

    /// The last words of a leader that steps down: its readers have to ask again; if it was removed, the others learn what is
    /// committed. If it goes by itself the voter that is furthest need not wait for its timeout (dissertation, 4.2.2).
    pub(crate) fn step_down(mut self, common: &mut Common) {
        let removed = self.is_removed(common);
        if removed {
            self.send_heartbeats(common);
        }
        if let Some(heir) = self.furthest_voter(common)
            && (removed || common.disk_hangs() || common.barred)
        {
            common.send(heir, Body::TimeoutNow);
        }
        for reader in self.reads.give_up() {
            settle(common, reader, None);
        }
    }

    /// Takes those into `followers` who have become members at `index`, and marks those who are no longer.
    pub(crate) fn meet(&mut self, common: &Common, index: Index) {
        let members = common.membership.current().members();
        for (id, follower) in &mut self.followers {
            follower.leaving = if members.contains(id) { None } else { follower.leaving.or(Some(index)) };
        }
        for id in members.into_iter().filter(|id| *id != common.id()) {
            self.followers.entry(id).or_insert_with(|| Follower::new(index));
        }
    }

    /// Whether an entry of this term is committed, and so everything before it (Raft paper, section 8).
    pub(crate) fn knows_commit(&self, common: &Common) -> bool {
        common.commit() >= self.first
    }

    /// Whether a member lags by no more than an election timeout's worth of entries (dissertation, 4.2.1).
    pub(crate) fn caught_up(&self, id: MemberId, patience: u32) -> bool {
        self.followers.get(&id).is_some_and(|f| f.matched >= self.marks.0 && f.is_active(patience))
    }

    /// See [`crate::Raft::progress`].
    pub(crate) fn progress(&self, common: &Common) -> Vec<Progress> {
        let patience = common.config.election_ticks;
        let own = |id| {
            let matched = common.writes.durable();
            Progress { id, matched, active: true, caught_up: true, offered: None, lost: false }
        };
        let of = |id, f: &Follower| Progress {
            id,
            matched: f.matched,
            active: f.is_active(patience),
            caught_up: self.caught_up(id, patience),
            offered: f.offered(),
            lost: f.lost,
        };
        let of = |id| self.followers.get(&id).map_or_else(|| own(id), |follower| of(id, follower));
        common.membership.current().members().into_iter().map(of).collect()
    }

    /// Only entries of its own term does a leader commit by counting; earlier ones are committed with them (Raft paper, 5.4.2
    /// and figure 8; failure 10). The leader counts what its own disk has, like anyone's (failure 5).
    fn commit(&self, common: &mut Common) {
        let index = common.membership.current().reached(|id| self.matched(common, id));
        if common.log.term_at(index) == Some(common.term) {
            common.commit_to(index);
        }
    }

    fn matched(&self, common: &Common, id: MemberId) -> Index {
        if id == common.id() {
            common.writes.durable()
        } else {
            self.followers.get(&id).map_or(0, |follower| follower.matched)
        }
    }

    /// Whether a quorum was heard within an election timeout. A leader that was not steps down, so that it does not hold up
    /// others who could be elected (dissertation, 6.2; failure 34).
    fn has_quorum(&self, common: &Common) -> bool {
        let patience = common.config.election_ticks;
        let active = |id| id == common.id() || self.followers.get(&id).is_some_and(|f| f.is_active(patience));
        common.membership.current().quorum(active)
    }

    /// Whether the leader is committed to be no voter: it was removed, or is a learner whose log was needed. Until then it leads, but
    /// does not count itself (Raft paper, section 6; failure 25).
    fn is_removed(&self, common: &Common) -> bool {
        self.knows_commit(common)
            && common.membership.is_committed(common.commit())
            && !common.membership.current().is_voter(common.id())
    }

    /// One who left and has answered since it was told so needs nothing more.
    fn farewell_if_told(&mut self, id: MemberId) {
        let told = |f: &Follower| f.leaving.is_some_and(|left| f.matched >= left && f.knows_committed(left));
        if self.followers.get(&id).is_some_and(told) {
            self.followers.remove(&id);
        }
    }

    fn send_heartbeats(&mut self, common: &mut Common) {
        let round = self.reads.newest();
        if common.config.lease.is_some() {
            self.renewals.sent(round);
        }
        for (id, follower) in &mut self.followers {
            let commit = follower.heartbeat_commit(common.commit());
            let commit_term = Some(common.log.term_at(commit).unwrap_or_default());
            common.send(*id, Body::Heartbeat { commit, commit_term, round });
        }
    }

    /// Begins a round of reads, if some wait and the leader knows what is committed. Returns whether others have to be asked.
    fn begin_round(&mut self, common: &mut Common) -> bool {
        if !self.reads.is_waiting() || !self.knows_commit(common) {
            return false;
        }
        self.reads.begin(common.commit());
        !self.confirm_reads(common)
    }

    /// Settles the reads whose round a quorum has confirmed. Returns whether that was the newest round.
    fn confirm_reads(&mut self, common: &mut Common) -> bool {
        let newest = self.reads.newest();
        let confirmed =
            |id| if id == common.id() { newest } else { self.followers.get(&id).map_or(0, |f| f.round) };
        let round = common.membership.current().reached(confirmed);
        for (reader, index) in self.reads.confirmed(round) {
            settle(common, reader, Some(index));
        }
        round == newest
    }

    /// Every election timeout the end of the log becomes the younger mark, and the younger one the older.
    fn mark(&mut self, common: &Common) {
        self.marked += 1;
        if self.marked >= common.config.election_ticks {
            self.marked = 0;
            self.marks = (self.marks.1, common.log.last().index);
        }
    }
}

/// Tells a reader its index, or that it has to ask again.
fn settle(common: &mut Common, reader: Reader, index: Option<Index>) {
    match reader {
        Reader::Local(id) => common.reads.push(ReadDone { id, index }),
        Reader::Remote(member, id) => common.send(member, Body::ReadIndexReply { id, index }),
    }
}
