//! Elections: pre-votes, votes, and who gets them (Raft paper, 5.2 and 5.4.1; dissertation, 4.2.3 and 9.6).

use std::collections::BTreeMap;

use crate::quorum::Tally;
use crate::raft::{Raft, RoleState};
use crate::{Body, LogId, MemberId, Term};

/// One who asks to be elected, or whether it would be.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Candidate {
    /// Only asking: no term is entered and no vote spent.
    pub(crate) pre_vote: bool,
    votes: BTreeMap<MemberId, bool>,
}

impl Raft {
    /// Asks whether the others would vote for this member. They would not while they hear a leader, so one who was cut off
    /// or removed finds out without disturbing anybody.
    pub(crate) fn pre_campaign(&mut self) {
        let common = &mut self.common;
        assert!(!common.is_bound(), "its own vote is promised away as well");
        common.leader = None;
        common.needed = false;
        common.timer.restart();
        self.role = RoleState::Candidate(Candidate { pre_vote: true, votes: BTreeMap::new() });
        self.ask_for_votes(true, false);
        self.count_vote(self.common.id(), true);
    }

    /// Enters the next term, votes for itself and asks the others to. Both wait for the disk: this member's own vote counts
    /// once it is durable, like everybody's.
    pub(crate) fn campaign(&mut self, transfer: bool) {
        let common = &mut self.common;
        common.enter_term(common.term + 1);
        common.vote_for(common.id());
        common.timer.restart();
        self.role = RoleState::Candidate(Candidate { pre_vote: false, votes: BTreeMap::new() });
        self.ask_for_votes(false, transfer);
        self.common.send(self.common.id(), Body::Vote { pre_vote: false, granted: true });
    }

    /// A request for a vote, in this member's term or an earlier one, or for a pre-vote in any.
    ///
    /// It is answered whatever the local configuration says of the candidate: that may be behind, and the vote may be the
    /// one that is missing (Raft paper, end of section 6; failure 20).
    pub(crate) fn on_request_vote(
        &mut self,
        candidate: MemberId,
        term: Term,
        (pre_vote, transfer): (bool, bool),
        last: LogId,
    ) {
        // What this member has lost it cannot compare with: until that is repaired nobody is up to date.
        let up_to_date = last >= self.common.log.last() && !self.common.is_repairing();
        if last < self.common.log.last() && !self.hears_a_leader() {
            self.common.asked_by_older();
        }
        let granted = if pre_vote {
            up_to_date && term > self.common.term && !self.hears_a_leader()
        } else {
            let common = &self.common;
            // This term may have come by another message than the request, which then meets nobody who hears a leader.
            let bound = common.is_bound() && !transfer;
            let free = common.vote.is_none() && common.leader.is_none() && !bound;
            up_to_date && term == common.term && (free || common.vote == Some(candidate))
        };
        let common = &mut self.common;
        let answer = Body::Vote { pre_vote, granted };
        if granted && pre_vote {
            return common.send_in(term, candidate, answer);
        }
        if granted {
            common.vote_for(candidate);
            common.timer.restart();
        }
        // A refusal tells our own term: a candidate that is behind learns it from that (failure 35).
        common.send(candidate, answer);
    }

    /// An answer. `term` is this member's, or the one after in a pre-vote that was granted.
    pub(crate) fn on_vote(&mut self, from: MemberId, term: Term, pre_vote: bool, granted: bool) {
        let RoleState::Candidate(candidate) = &self.role else { return };
        let asked = self.common.term + u64::from(pre_vote && granted);
        if candidate.pre_vote == pre_vote && term == asked {
            self.count_vote(from, granted);
        }
    }

    /// Whether a leader is known to be alive, and votes that nobody handed over for are refused: a leader itself relies on
    /// check-quorum to find out when it no longer is.
    pub(crate) fn hears_a_leader(&self) -> bool {
        let common = &self.common;
        self.is_leader() || common.is_bound() || (common.leader.is_some() && common.timer.recent())
    }

    fn count_vote(&mut self, from: MemberId, granted: bool) {
        let RoleState::Candidate(candidate) = &mut self.role else { return };
        candidate.votes.entry(from).or_insert(granted);
        let pre_vote = candidate.pre_vote;
        match self.common.membership.current().tally(&candidate.votes) {
            Tally::Open => {}
            Tally::Won if self.common.disk_hangs() => self.become_follower(),
            Tally::Won if pre_vote => self.campaign(false),
            Tally::Won => self.lead(),
            Tally::Lost => self.become_follower(),
        }
    }

    fn ask_for_votes(&mut self, pre_vote: bool, transfer: bool) {
        let common = &mut self.common;
        let request = Body::RequestVote { pre_vote, last: common.log.last(), transfer };
        let term = common.term + u64::from(pre_vote);
        let others = common.membership.current().all_voters().filter(|voter| *voter != common.id());
        for voter in others.collect::<Vec<_>>() {
            common.send_in(term, voter, request.clone());
        }
    }
}
