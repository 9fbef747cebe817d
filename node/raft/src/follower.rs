//! What a member does that follows: it takes entries over, and learns what is committed.

use crate::raft::{Raft, RoleState};
use crate::{Body, Contradiction, Entry, Index, LogId, MemberId, Term};

impl Raft {
    /// AppendEntries of this term (Raft paper, 5.3).
    pub(crate) fn on_append(
        &mut self,
        leader: MemberId,
        previous: LogId,
        entries: Vec<Entry>,
        commit: Index,
    ) {
        if !self.follow(leader) {
            return;
        }
        let common = &mut self.common;
        if !consecutive(previous, &entries) || entries.last().is_some_and(|entry| entry.term > common.term) {
            return;
        }
        if !common.log.contains(previous) {
            // Where the logs may agree at best: not beyond our end, not in a later term than the leader has there.
            // Nor before our base: that is committed, so the leader has it.
            let hint = common.log.agreement(previous).unwrap_or(common.log.base());
            return common.reject(leader, previous.index, hint);
        }
        let matched = previous.index + entries.len() as u64;
        if !self.take_over(leader, entries) {
            return;
        }
        // Only what this message has verified: beyond it our log may differ from the leader's (failure 11).
        self.common.commit_to(commit.min(matched));
        self.common.send(leader, Body::AppendAccepted { matched });
    }

    /// A heartbeat of this term. Its commit is within what the leader knows to match here, and to be durable.
    pub(crate) fn on_heartbeat(
        &mut self,
        leader: MemberId,
        commit: Index,
        commit_term: Option<Term>,
        round: u64,
    ) {
        if !self.follow(leader) {
            return;
        }
        let common = &mut self.common;
        let last = common.log.last();
        let is_there = match commit_term {
            Some(term) if term > 0 => common.log.contains(LogId { term, index: commit }),
            Some(_) | None => commit <= last.index,
        };
        if !is_there {
            // What the leader knows to be durable here is not, or another entry stands in its place: the proof that this member went back in
            // time, if it does not know what it has lost. In a quiet cluster the leader would send nothing.
            if !common.is_repairing() {
                common.owe_all_of(common.term);
            }
            common.reject(leader, commit, last);
        } else if commit_term != Some(0) {
            common.commit_to(commit);
        }
        common.ask_for_bound(leader);
        let priority = common.priority();
        let promise = common.promise();
        common.send(leader, Body::HeartbeatAck { round, priority, promise });
    }

    /// The leader of this term hands over (dissertation, 3.10).
    pub(crate) fn on_timeout_now(&mut self, from: MemberId) {
        if self.common.leader == Some(from) && self.is_follower() && self.common.may_campaign() {
            self.campaign(true);
        }
    }

    /// See [`Raft::disconnected`].
    pub(crate) fn suspect_leader(&mut self) {
        // Staggered, not drawn at random: all followers notice at the same moment, and should not ask all at once.
        let id = self.common.id();
        let voters = self.common.membership.current().all_voters();
        let rank = voters.filter(|voter| Some(*voter) != self.common.leader && *voter < id).count();
        let rank = u32::try_from(rank).unwrap_or(u32::MAX);
        let promise = self.common.promise();
        self.common.timer.suspect(rank.saturating_mul(2).saturating_add(1), promise);
    }

    /// A leader of this term was heard just now. False if the term has another: then nothing that it says counts.
    ///
    /// Two leaders in one term there can only be when a member has forgotten its vote, or a copy of it has voted as well (or by a defect).
    /// That is seldom this member's fault, and it does no harm by following the one that it knows: the other gets nothing committed
    /// by it. So it goes on, and says so ([`crate::Status::contradiction`]).
    pub(crate) fn follow(&mut self, leader: MemberId) -> bool {
        let known = *self.common.leader.get_or_insert(leader);
        if known != leader {
            let (term, contradiction) = (self.common.term, &mut self.common.contradiction);
            let is_said = match contradiction {
                Some(Contradiction::TwoLeaders { term: said, .. }) => *said == term,
                Some(Contradiction::Committed { .. }) => true,
                None => false,
            };
            if !is_said {
                *contradiction = Some(Contradiction::TwoLeaders { term, leaders: (known, leader) });
            }
            return false;
        }
        self.role = RoleState::Follower;
        self.common.needed = false;
        self.common.timer.heard();
        true
    }

    /// Appends what is new among `entries`, whose predecessor matches. The log is cut only where it conflicts: an older or
    /// shorter message never takes away what a newer one brought (Raft paper, figure 2, AppendEntries, 3 and 4; failure 12).
    ///
    /// False if something committed would have to go: then nothing is changed, and the process is to end
    /// ([`crate::Contradiction::Committed`]).
    fn take_over(&mut self, leader: MemberId, entries: Vec<Entry>) -> bool {
        let common = &mut self.common;
        let known = entries.iter().take_while(|entry| common.log.contains(entry.id())).count();
        let mut new = entries.into_iter().skip(known).peekable();
        if let Some(first) = new.peek().map(Entry::id)
            && first.index <= common.log.last().index
        {
            if first.index <= common.commit() {
                common.contradiction = Some(Contradiction::Committed { leader, theirs: first });
                return false;
            }
            common.truncate(first.index);
        }
        new.for_each(|entry| common.append(entry));
        true
    }
}

/// Whether `entries` continue `previous`, in index and term. What a leader sends does.
fn consecutive(previous: LogId, entries: &[Entry]) -> bool {
    let mut before = previous;
    entries.iter().all(|entry| {
        let continues = entry.index == before.index + 1 && entry.term >= before.term;
        before = entry.id();
        continues
    })
}
