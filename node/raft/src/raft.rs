//! The state machine's inputs and its one output, and the changes of role.

use bytes::Bytes;

use crate::candidate::Candidate;
use crate::common::Common;
use crate::leader::{Leader, Standing};
use crate::reads::{ForwardedReads, Reader};
use crate::{
    Body, ChangeError, Config, Configuration, Contradiction, Index, LogId, MemberId, Message, Output,
    ProposeError, Restored, Role, Status, Term, TransferError, WriteId,
};

/// One member's protocol. See the crate's documentation for how it is driven.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Raft {
    pub(crate) common: Common,
    pub(crate) role: RoleState,
    /// Reads of this member's callers while it does not lead.
    forwarded: ForwardedReads,
    /// The newest number given to a read.
    newest_read: u64,
    /// What the status showed at the last output.
    shown: Shown,
}

/// What a member has in its role alone.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum RoleState {
    /// Follows, votes or not.
    Follower,
    /// Asks to be elected, or whether it would be.
    Candidate(Candidate),
    /// Leads.
    Leader(Box<Leader>),
}

/// The part of [`Status`] whose change is reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Shown {
    role: Role,
    term: Term,
    leader: Option<MemberId>,
    configuration: LogId,
    wanted: Option<LogId>,
    disk_hangs: bool,
    repairing: bool,
    contradiction: Option<Contradiction>,
}

/// Inputs.
impl Raft {
    /// A member as it comes up with what its disk holds: a follower, or a learner, of the restored term.
    ///
    /// # Panics
    /// If `restored` cannot be what this member wrote: its entries have gaps, begin later than they may, are of a later term
    /// than the hard state, or fewer than are committed though nothing is said to be lost. Whoever reads a disk checks for
    /// damage. If the lease is not shorter
    /// than the election timeout, or the first patience after a start is none, or longer than that.
    pub fn new(config: Config, restored: Restored) -> Self {
        let mut common = Common::new(config, restored);
        let forwarded = ForwardedReads::new(common.timer.draw());
        let shown = Shown {
            role: Role::Learner,
            term: 0,
            leader: None,
            configuration: LogId::default(),
            wanted: None,
            disk_hangs: false,
            repairing: false,
            contradiction: None,
        };
        Self { common, role: RoleState::Follower, forwarded, newest_read: 0, shown }
    }

    /// The log of the founder of a cluster: one entry with the configuration `{id}`, for a disk that is empty.
    /// It is to be made durable, and then restored from.
    pub fn founding(id: MemberId, address: Bytes) -> Restored {
        Restored::founding(id, address)
    }

    /// Time passes.
    pub fn tick(&mut self) {
        self.common.writes.tick();
        let expired = self.common.timer.tick();
        let late = self.forwarded.tick();
        self.common.reads.extend(late);
        match &mut self.role {
            RoleState::Leader(leader) => {
                let standing = leader.tick(&mut self.common);
                self.stand(standing);
            }
            RoleState::Follower | RoleState::Candidate(_) => self.tick_election(expired),
        }
    }

    /// `ticks` more have passed, and [`Self::tick`] was not called for them: nothing ran. Only a lease counts them. What others have
    /// said meanwhile has not been heard yet, so that nobody loses patience over them.
    pub fn overslept(&mut self, ticks: u64) {
        if let RoleState::Leader(leader) = &mut self.role {
            leader.renewals.pass(ticks, self.common.config.lease);
        }
    }

    /// A message has come. Messages may be lost, doubled, late and out of order.
    pub fn step(&mut self, message: Message) {
        let Message { from, to, term, body } = message;
        if to != self.common.id() || from == to {
            return;
        }
        if term > self.common.term && !self.enter_term_of(from, term, &body) {
            return;
        }
        if term < self.common.term {
            return self.answer_outdated(from, &body);
        }
        self.handle(from, term, body);
    }

    /// Write `id`, and all before it, are durable.
    ///
    /// # Panics
    /// If no such write was handed out.
    pub fn persisted(&mut self, id: WriteId) {
        let news = self.common.persisted(id);
        self.is_durable(news);
    }

    /// All writes before `id` are durable, and of that one the beginning, up to entry `index`: the disk gets on. What the write
    /// promises is kept back until all of it is durable; its entries count from now on.
    ///
    /// # Panics
    /// If no such write was handed out.
    pub fn persisted_part(&mut self, id: WriteId, index: Index) {
        let news = self.common.persisted_part(id, index);
        self.is_durable(news);
    }

    /// More is durable than before. A vote of this member for itself may be among it.
    fn is_durable(&mut self, news: Option<Vec<Message>>) {
        let Some(messages) = news else { return };
        for own in messages {
            self.handle(own.from, own.term, own.body);
        }
        if let RoleState::Leader(leader) = &mut self.role {
            let standing = leader.advance(&mut self.common);
            self.stand(standing);
        }
    }

    /// The connection that `peer`'s messages came by was closed by its side: its process is likely gone. Ends the stickiness to it if it
    /// leads, and lets a pre-vote follow soon; does not elect by itself. When the leader is heard again before, all is as it was.
    pub fn disconnected(&mut self, peer: MemberId) {
        match &mut self.role {
            RoleState::Leader(leader) => leader.on_disconnected(peer),
            RoleState::Follower if self.common.leader == Some(peer) => self.suspect_leader(),
            RoleState::Follower | RoleState::Candidate(_) => {}
        }
    }

    /// Another member remembers more of this one than its disk holds, and that it was in `term` then: this member went back in time, and has
    /// forgotten what it promised up to that term at the least. It follows, and has no vote until a leader has repaired it.
    /// See [`crate::repair`]. Saying it twice does no harm, but for the time that the second repair takes.
    pub fn went_back(&mut self, term: Term) {
        if term > self.common.term {
            self.common.enter_term(term);
        }
        self.become_follower();
        self.common.owe_all_of(self.common.term);
    }

    /// From now on this member is not to lead: the state that its log has led to here is not to be trusted, as its caller has found out. It follows,
    /// votes and acknowledges as before. It leads only while no other voter holds all of its log: if it is the only one, if an older one asks for its
    /// vote in vain ([`Common::asked_by_older`]), or if it leads now; then it hands over. For as long as the process lives.
    pub fn bar(&mut self) {
        self.common.barred = true;
        if matches!(self.role, RoleState::Candidate(_)) {
            self.become_follower();
        }
    }

    /// Appends commands, in order; returns the index of the first, and the term. Those of one call share the fate of their
    /// term: if an entry of another term is committed at one's index, that one and all after it are lost. How many are
    /// under way at most is the caller's to bound.
    pub fn propose(&mut self, commands: Vec<Bytes>) -> Result<(Index, Term), ProposeError> {
        let (leader, common) = self.leading()?;
        let first = leader.propose(common, commands)?;
        Ok((first, common.term))
    }

    /// Starts a batch of linearizable reads, on any member; the answer comes in [`Output::reads`] under the number returned.
    /// Numbers are unique and count up. A number is settled exactly once.
    pub fn read_index(&mut self) -> u64 {
        self.newest_read += 1;
        let number = self.newest_read;
        match &mut self.role {
            RoleState::Leader(leader) => leader.on_read(&mut self.common, Reader::Local(number)),
            RoleState::Follower | RoleState::Candidate(_) => {
                self.forwarded.arrive(number, self.common.config.election_ticks);
            }
        }
        number
    }

    /// Starts the change from configuration `expected` to `wanted` (whose `outgoing` is empty), through a joint one if the voters differ.
    /// Returns the ID of what was appended; if nothing is to be changed, that of what is there.
    pub fn change_membership(
        &mut self,
        expected: LogId,
        wanted: Configuration,
    ) -> Result<LogId, ChangeError> {
        let (leader, common) = self.leading()?;
        leader.change(common, expected, wanted)
    }

    /// Hands leadership to `target`, or to the voter that is furthest. Given up after an election timeout.
    pub fn transfer(&mut self, target: Option<MemberId>) -> Result<MemberId, TransferError> {
        let (leader, common) = self.leading()?;
        leader.transfer(common, target)
    }
}

/// Outputs.
impl Raft {
    /// What is to be done now. Call after any number of inputs, and again while [`Self::has_output`]: a long backlog of
    /// committed entries comes in pieces.
    pub fn output(&mut self) -> Output {
        self.ask_leader();
        if let RoleState::Leader(leader) = &mut self.role {
            leader.flush(&mut self.common);
        }
        let shown = self.show();
        Output {
            write: self.common.take_write(),
            messages: self.common.take_messages(),
            committed: self.common.take_committed(),
            reads: std::mem::take(&mut self.common.reads),
            wanted: self.common.wanted().cloned(),
            status_changed: std::mem::replace(&mut self.shown, shown) != shown,
        }
    }

    /// Whether [`Self::output`] has something, without any further input.
    pub fn has_output(&self) -> bool {
        let role = match &self.role {
            RoleState::Leader(leader) => leader.has_output(&self.common),
            RoleState::Follower | RoleState::Candidate(_) => {
                self.common.leader.is_some() && self.forwarded.is_waiting()
            }
        };
        role || self.common.has_output() || self.shown != self.show()
    }

    /// What this member knows.
    pub fn status(&self) -> Status {
        let common = &self.common;
        Status {
            id: common.id(),
            role: self.role(),
            term: common.term,
            leader: common.leader,
            last: common.log.last(),
            commit: common.commit(),
            configuration: common.membership.current().clone(),
            configuration_id: common.membership.id(),
            disk_hangs: common.disk_hangs(),
            repairing: common.is_repairing(),
            contradiction: common.contradiction,
        }
    }

    /// The newest term, and its leader if known: what [`Self::status`] says of it, without a copy of the rest.
    pub fn leadership(&self) -> (Term, Option<MemberId>) {
        (self.common.term, self.common.leader)
    }

    /// What is known to be committed: the same.
    pub fn commit(&self) -> Index {
        self.common.commit()
    }

    /// The end of the log: the same.
    pub fn last(&self) -> LogId {
        self.common.log.last()
    }

    /// Of each member, as the leader sees it: the match index, whether it was heard of within an election timeout, and
    /// whether it is close enough to the end of the log to be made a voter. Empty on others.
    pub fn progress(&self) -> Vec<Progress> {
        match &self.role {
            RoleState::Leader(leader) => leader.progress(&self.common),
            RoleState::Follower | RoleState::Candidate(_) => Vec::new(),
        }
    }

    /// A copy that will do the same, whatever comes, and is equal to the copy of another that will: the writes that are under
    /// way are numbered from 1, what waits for them is said once, in one order, and times count no further than they make a difference. For those who explore all states of a
    /// cluster: with it they are finite, as long as terms, logs and numbers of reads are. What chance will draw is left out; at
    /// `election_ticks` 1, and `start_ticks` with it, it decides nothing. Leases count time without end, and have to be off.
    #[must_use]
    pub fn canonical(&self) -> Self {
        let mut copy = self.clone();
        copy.common.make_canonical();
        copy.forwarded.begin_time();
        if let RoleState::Leader(leader) = &mut copy.role {
            leader.followers.values_mut().for_each(|follower| follower.saturate(&copy.common.config));
        }
        copy
    }

    fn role(&self) -> Role {
        let common = &self.common;
        match &self.role {
            RoleState::Leader(_) => Role::Leader,
            RoleState::Candidate(candidate) if candidate.pre_vote => Role::PreCandidate,
            RoleState::Candidate(_) => Role::Candidate,
            RoleState::Follower if common.membership.current().is_voter(common.id()) => Role::Follower,
            RoleState::Follower => Role::Learner,
        }
    }

    fn show(&self) -> Shown {
        let common = &self.common;
        Shown {
            role: self.role(),
            term: common.term,
            leader: common.leader,
            configuration: common.membership.id(),
            wanted: common.wanted().map(|snapshot| snapshot.id),
            disk_hangs: common.disk_hangs(),
            repairing: common.is_repairing(),
            contradiction: common.contradiction,
        }
    }
}

/// Messages, by term.
impl Raft {
    /// A message of a later term. Returns whether it goes on to be handled.
    fn enter_term_of(&mut self, from: MemberId, term: Term, body: &Body) -> bool {
        match body {
            // These speak of a term that nobody has entered.
            Body::RequestVote { pre_vote: true, .. } | Body::Vote { pre_vote: true, granted: true } => true,
            // Who hears a leader neither votes nor enters the candidate's term: a server that was removed or cut off cannot
            // depose a leader that works (dissertation, 4.2.3; failure 25).
            Body::RequestVote { transfer: false, .. } if self.hears_a_leader() => false,
            _ if body.is_answer() && !self.heeds(from) => false,
            _ => {
                self.common.enter_term(term);
                self.become_follower();
                true
            }
        }
    }

    /// Whether the later term of an answer from `from` counts. A leader steps down for members that cannot follow it, and for
    /// nobody else; one who follows asked long ago, and its leader will find out for itself.
    fn heeds(&self, from: MemberId) -> bool {
        match &self.role {
            RoleState::Leader(leader) => leader.followers.get(&from).is_some_and(|f| f.leaving.is_none()),
            RoleState::Candidate(_) => true,
            RoleState::Follower => !self.hears_a_leader(),
        }
    }

    /// A message of an earlier term. Whoever leads or campaigns there learns of this one; the rest is late.
    fn answer_outdated(&mut self, from: MemberId, body: &Body) {
        let answer = match body {
            Body::AppendEntries { previous, .. } => {
                return self.common.reject(from, previous.index, self.common.log.last());
            }
            Body::Heartbeat { .. } | Body::InstallSnapshot { .. } => {
                Body::HeartbeatAck { round: 0, priority: 0, promise: 0 }
            }
            Body::RequestVote { pre_vote, .. } => Body::Vote { pre_vote: *pre_vote, granted: false },
            _ => return,
        };
        self.common.send(from, answer);
    }

    /// A message of this term, or of the next about a pre-vote.
    fn handle(&mut self, from: MemberId, term: Term, body: Body) {
        match body {
            Body::AppendEntries { previous, entries, commit } => {
                self.on_append(from, previous, entries, commit);
            }
            Body::InstallSnapshot { snapshot, base } => self.on_offer(from, *snapshot, base),
            Body::Heartbeat { commit, commit_term, round } => {
                self.on_heartbeat(from, commit, commit_term, round);
            }
            Body::RequestVote { pre_vote, last, transfer } => {
                self.on_request_vote(from, term, (pre_vote, transfer), last);
            }
            Body::Vote { pre_vote, granted } => self.on_vote(from, term, pre_vote, granted),
            Body::TimeoutNow => self.on_timeout_now(from),
            Body::AskEnd { id } => {
                if let RoleState::Leader(leader) = &self.role
                    && leader.followers.contains_key(&from)
                {
                    let last = self.common.log.last().index;
                    self.common.send(from, Body::End { id, last });
                }
            }
            Body::End { id, last } => self.common.bounded(from, id, last),
            Body::ReadIndexReply { id, index } => {
                let settled = self.forwarded.answered(id, index);
                self.common.reads.extend(settled);
            }
            Body::ReadIndex { id } => match &mut self.role {
                RoleState::Leader(leader) if leader.followers.contains_key(&from) => {
                    leader.on_read(&mut self.common, Reader::Remote(from, id));
                }
                _ => self.common.send(from, Body::ReadIndexReply { id, index: None }),
            },
            Body::AppendAccepted { matched } => {
                if let RoleState::Leader(leader) = &mut self.role {
                    let standing = leader.on_accepted(&mut self.common, from, matched);
                    self.stand(standing);
                }
            }
            Body::AppendRejected { rejected, hint, lost } => {
                if let RoleState::Leader(leader) = &mut self.role {
                    leader.on_rejected(&self.common, from, rejected, hint, lost);
                }
            }
            Body::HeartbeatAck { round, priority, promise } => {
                if let RoleState::Leader(leader) = &mut self.role {
                    leader.on_heartbeat_ack(&mut self.common, from, round, priority, promise);
                }
            }
        }
    }
}

/// Roles.
impl Raft {
    pub(crate) fn is_leader(&self) -> bool {
        matches!(self.role, RoleState::Leader(_))
    }

    pub(crate) fn is_follower(&self) -> bool {
        matches!(self.role, RoleState::Follower)
    }

    /// Follows, in the same term or one just entered, until a leader is heard.
    pub(crate) fn become_follower(&mut self) {
        match std::mem::replace(&mut self.role, RoleState::Follower) {
            RoleState::Follower => return,
            RoleState::Candidate(_) => {}
            RoleState::Leader(leader) => leader.step_down(&mut self.common),
        }
        self.common.leader = None;
        self.common.timer.restart();
    }

    /// A quorum voted for this member, itself among it if it is a voter, all durably.
    pub(crate) fn lead(&mut self) {
        let id = self.common.id();
        assert_eq!(self.common.vote, Some(id), "one leads who voted for itself");
        assert!(self.common.leader.is_none(), "election safety: {:?} leads this term", self.common.leader);
        self.common.leader = Some(id);
        self.common.needed = false;
        let mut leader = Leader::new(&mut self.common);
        for number in self.forwarded.take_unsent() {
            leader.on_read(&mut self.common, Reader::Local(number));
        }
        self.role = RoleState::Leader(Box::new(leader));
    }

    /// Steps down if it has to.
    fn stand(&mut self, standing: Standing) {
        if standing == Standing::StepsDown {
            self.become_follower();
        }
    }

    fn leading(&mut self) -> Result<(&mut Leader, &mut Common), ProposeError> {
        match &mut self.role {
            RoleState::Leader(leader) => Ok((leader, &mut self.common)),
            _ => Err(ProposeError::NotLeader { leader: self.common.leader }),
        }
    }

    /// The only voter need not wait for anyone. Others campaign when their patience is at its end, and those who may not, or not again,
    /// only forget the leader.
    fn tick_election(&mut self, expired: bool) {
        let common = &self.common;
        let alone =
            self.is_follower() && common.membership.current().is_alone(common.id()) && !common.is_bound();
        if !expired && !alone {
            return;
        }
        if self.common.may_campaign() {
            self.pre_campaign();
        } else {
            self.become_follower();
            self.common.leader = None;
            self.common.timer.restart();
        }
    }

    /// Asks the leader for what this member's callers want to read.
    fn ask_leader(&mut self) {
        let Common { term, leader, .. } = self.common;
        let lost = self.forwarded.follow(leader.map(|leader| (term, leader)));
        self.common.reads.extend(lost);
        let Some(leader) = leader.filter(|leader| *leader != self.common.id()) else { return };
        if let Some(id) = self.forwarded.question(term, leader) {
            self.common.send(leader, Body::ReadIndex { id });
        }
    }
}

/// What a leader knows of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Progress {
    /// Who.
    pub id: MemberId,
    /// Verified and durable there.
    pub matched: Index,
    /// Heard of within an election timeout.
    pub active: bool,
    /// Close enough to the end of the log to be made a voter.
    pub caught_up: bool,
    /// The snapshot that it was offered and has not installed yet.
    pub offered: Option<LogId>,
    /// It says that it does not hold what it acknowledged in this term: its disk is damaged, or went back in time.
    pub lost: bool,
}
