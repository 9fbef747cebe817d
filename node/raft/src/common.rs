//! What a member has in every role.

use crate::log::Log;
use crate::membership::Membership;
use crate::outbox::Outbox;
use crate::timer::ElectionTimer;
use crate::writes::Writes;
use crate::{
    Body, Config, Contradiction, Entry, HardState, Index, LogId, MemberId, Message, Payload, ReadDone,
    Restored, Snapshot, Term, WriteId,
};

/// The state of a member that outlives its roles.
///
/// Invariants, asserted where they could break: `term` and `commit` never fall; within a term `vote` and `leader` are set
/// once; `handed <= commit <= end of the log`; the committed prefix of the log is never cut; what is handed out to be
/// applied is committed, and durable here.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Common {
    pub(crate) config: Config,
    pub(crate) term: Term,
    pub(crate) vote: Option<MemberId>,
    /// The leader of `term`, if known.
    pub(crate) leader: Option<MemberId>,
    pub(crate) log: Log,
    pub(crate) membership: Membership,
    /// The newest snapshot that the caller has. The log's base is never beyond it.
    pub(crate) snapshot: Option<Snapshot>,
    /// This member's log may be needed, though it has no vote, or is barred. See [`Common::asked_by_older`].
    pub(crate) needed: bool,
    /// What was offered and has to be fetched: see [`Common::wanted`].
    pub(crate) wanted: Option<Snapshot>,
    pub(crate) writes: Writes,
    pub(crate) timer: ElectionTimer,
    /// Reads of this member's callers that are settled.
    pub(crate) reads: Vec<ReadDone>,
    commit: Index,
    /// What was handed out to be applied.
    handed: Index,
    /// What this member owes: damage took it away, or it went back in time. See [`crate::repair`].
    pub(crate) lost: Option<LogId>,
    /// The number of its questions for the end of the leader's log: drawn when it asks first.
    pub(crate) asks: Option<u64>,
    /// What it has met that cannot be.
    pub(crate) contradiction: Option<Contradiction>,
    /// It is not to lead: see [`crate::Raft::bar`].
    pub(crate) barred: bool,
    outbox: Outbox,
}

impl Common {
    /// The most bytes of committed entries that are handed out at once.
    const APPLY_BYTES: usize = 1 << 20;

    pub(crate) fn new(config: Config, restored: Restored) -> Self {
        let HardState { term, vote, commit } = restored.hard_state;
        assert!(
            config.lease.is_none_or(|lease| lease.ticks < config.election_ticks),
            "a lease is shorter than the promise that it rests on"
        );
        assert!(
            (1..=config.election_ticks).contains(&config.start_ticks),
            "the first patience is no longer than any other"
        );
        let newest = restored.entries.last().map_or(0, |entry| entry.term);
        assert!(newest <= term, "an entry of term {newest} is durable, but the term is {term}");
        let covered = restored.snapshot.as_ref().map_or_else(LogId::default, |snapshot| snapshot.id);
        let reached = restored.entries.last().is_some_and(|entry| entry.index >= covered.index);
        let log = Log::restored(restored.snapshot.as_ref().map(|snapshot| snapshot.id), restored.entries);
        let mut common = Self {
            term,
            vote,
            leader: None,
            membership: Membership::new(restored.snapshot.as_ref(), log.after(covered.index)),
            snapshot: restored.snapshot.clone(),
            needed: false,
            wanted: None,
            writes: Writes::new(restored.hard_state, log.last().index),
            log,
            timer: ElectionTimer::new(&config),
            reads: Vec::new(),
            commit: 0,
            handed: covered.index,
            lost: restored.lost,
            asks: None,
            contradiction: None,
            barred: false,
            outbox: Outbox::default(),
            config,
        };
        if restored.snapshot.is_some() {
            common.finish_install(covered, reached);
        }
        let last = common.log.last().index;
        assert!(
            commit <= last || common.is_repairing(),
            "entry {commit} is committed, but the log ends at {last}"
        );
        common.commit_to(commit.max(covered.index).min(last));
        common
    }

    /// A snapshot may be durable while the log on disk does not know of it yet, nor the hard state of its term.
    ///
    /// A log that has not `reached` it may be one that begins after it, or one that never came so far: it is told again.
    fn finish_install(&mut self, snapshot: LogId, reached: bool) {
        self.enter_term(self.term.max(snapshot.term));
        if !reached || self.log.term_at(snapshot.index) != Some(snapshot.term) {
            self.begin_after(snapshot);
        }
    }

    /// A snapshot, durable here, takes the place of the whole log and of the state (Raft paper, figure 13; failure 30). The
    /// configuration comes with it (failure 22).
    pub(crate) fn install(&mut self, snapshot: Snapshot) {
        let id = snapshot.id;
        assert!(id.index > self.commit, "what is committed stays: {} is, and {id:?} comes", self.commit);
        self.membership = Membership::new(Some(&snapshot), &[]);
        self.snapshot = Some(snapshot);
        self.commit = id.index;
        self.handed = id.index;
        self.begin_after(id);
        self.mend();
    }

    fn begin_after(&mut self, id: LogId) {
        self.log = Log::new(id, []);
        self.writes.reset(id);
    }

    /// The caller has `snapshot`, of what the log has led to as well: it is what others are offered, if it is the newest.
    pub(crate) fn adopt(&mut self, snapshot: Snapshot) {
        if self.snapshot.as_ref().is_none_or(|newest| newest.id < snapshot.id) {
            self.snapshot = Some(snapshot);
        }
    }

    /// The caller has `snapshot`; the log up to `keep_after` goes.
    pub(crate) fn compact(&mut self, snapshot: Snapshot, keep_after: Index) {
        let id = snapshot.id;
        assert!(id.index <= self.handed, "{id:?} covers more than was applied: {}", self.handed);
        if self.snapshot.as_ref().is_some_and(|newest| newest.id > id) {
            return;
        }
        assert!(self.log.contains(id), "the log does not hold {id:?}");
        let stands = (snapshot.configuration_id, &snapshot.configuration);
        let known = self.membership.at(id.index).map(|(id, configuration)| (*id, configuration));
        assert_eq!(Some(stands), known, "the configuration at {id:?}");
        self.adopt(snapshot);
        self.log.compact(keep_after.min(id.index));
        self.membership.compacted(self.log.base().index);
    }

    /// See [`crate::Raft::canonical`].
    pub(crate) fn make_canonical(&mut self) {
        let offset = self.writes.renumber(self.config.disk_ticks);
        self.outbox.make_canonical(offset);
        self.timer.saturate();
    }

    pub(crate) fn id(&self) -> MemberId {
        self.config.id
    }

    pub(crate) fn commit(&self) -> Index {
        self.commit
    }

    pub(crate) fn hard_state(&self) -> HardState {
        HardState { term: self.term, vote: self.vote, commit: self.commit }
    }

    /// Whether this member may campaign: if it has a vote in a configuration that may count, or is needed and belongs to one.
    pub(crate) fn may_campaign(&self) -> bool {
        let may_belong = || self.membership.may_belong(self.id(), self.commit);
        // One that is barred leads where nobody else can.
        let is_alone = || self.membership.current().is_alone(self.id());
        let is_barred = self.barred && !self.needed && !is_alone();
        let may_lead = !self.disk_hangs() && !self.is_repairing() && !is_barred;
        (self.may_vote() || (self.needed && may_belong())) && may_lead
    }

    fn may_vote(&self) -> bool {
        self.membership.may_vote(self.id(), self.commit)
    }

    /// Somebody whose log is older has asked for a vote, while nobody is heard to lead. A member that has no vote is needed all the
    /// same: the other counts by a configuration in which it has one, may not win without it, and perhaps nobody else holds
    /// this log any more. So it campaigns when its patience ends, unless it hears a leader before. A quorum of its own newest
    /// configuration elects it, as safely as anybody; itself it does not count. Like a leader that is removed it leads until its log is
    /// committed, and hands over.
    ///
    /// With that somebody can be elected wherever a quorum of each configuration that may count is up. Let C be the newest that is
    /// committed. Some voter of C has it, and may campaign. If others of whom it needs a vote refuse, their logs are newer, so
    /// they have C as well; and they belong to it, as who is to vote was a learner before. One of them may campaign
    /// therefore, and so on: the logs only get newer, and whoever has the newest of them is refused by nobody. A member that C has removed is
    /// not asked on that way, and so it need not campaign.
    pub(crate) fn asked_by_older(&mut self) {
        self.needed = !self.may_vote() || self.barred;
    }

    /// What others are told of the wish to lead: none while this member could not.
    pub(crate) fn priority(&self) -> u32 {
        if self.disk_hangs() || self.is_repairing() || self.barred { 0 } else { self.config.priority }
    }

    /// Whether the disk makes no progress. Whoever leads could promise nothing then: another's disk may do better (failure 40).
    pub(crate) fn disk_hangs(&self) -> bool {
        self.writes.waited() >= self.config.disk_ticks
    }

    /// Sends in the current term, as soon as what the message claims is durable.
    pub(crate) fn send(&mut self, to: MemberId, body: Body) {
        self.send_in(self.term, to, body);
    }

    /// Sends in a term of its own: for pre-votes, which speak of the next one.
    pub(crate) fn send_in(&mut self, term: Term, to: MemberId, body: Body) {
        let message = Message { from: self.id(), to, term, body };
        self.outbox.send(message, &self.writes, self.hard_state(), &self.log);
    }

    /// Enters `term` if it is newer: without a vote, without a leader. In the same term vote and leader stay (failure 3).
    pub(crate) fn enter_term(&mut self, term: Term) {
        assert!(term >= self.term, "the term never falls: {} to {term}", self.term);
        if term > self.term {
            self.term = term;
            self.vote = None;
            self.leader = None;
            self.outbox.forget_before(term);
        }
    }

    /// Votes, once a term.
    pub(crate) fn vote_for(&mut self, candidate: MemberId) {
        assert!(self.vote.is_none_or(|voted| voted == candidate), "one vote in term {}", self.term);
        self.vote = Some(candidate);
    }

    /// Appends entries that continue the log.
    pub(crate) fn append(&mut self, entry: Entry) {
        self.membership.appended(&entry);
        self.log.append(entry);
    }

    /// Appends an entry of the current term: the leader's part.
    pub(crate) fn append_payload(&mut self, payload: Payload) -> Index {
        let index = self.log.last().index + 1;
        self.append(Entry { term: self.term, index, payload });
        index
    }

    /// Cuts the log back to before `from`, and everything that is derived from it.
    pub(crate) fn truncate(&mut self, from: Index) {
        assert!(
            from > self.commit,
            "what is committed is never cut off: {from}, with {} committed",
            self.commit
        );
        self.log.truncate(from);
        self.membership.truncated(from);
        self.writes.truncated(from);
    }

    /// Everything up to `index` is committed: news, or known already.
    pub(crate) fn commit_to(&mut self, index: Index) {
        assert!(
            index <= self.log.last().index,
            "{index} is committed, the log ends at {}",
            self.log.last().index
        );
        self.commit = self.commit.max(index);
        self.mend();
    }

    /// What may be applied: committed and durable here. A cluster of one would otherwise answer its clients before its disk
    /// has the entry (failure 5).
    pub(crate) fn applicable(&self) -> Index {
        self.commit.min(self.writes.durable())
    }

    /// The next piece of what is to be applied. A long backlog comes in several, so that nobody is stuck in one for long.
    pub(crate) fn take_committed(&mut self) -> Vec<Entry> {
        let piece = self.log.slice(self.handed + 1, self.applicable(), Self::APPLY_BYTES);
        self.handed += piece.len() as u64;
        piece
    }

    /// The next write, if one is due.
    pub(crate) fn take_write(&mut self) -> Option<crate::Write> {
        self.writes.next(self.hard_state(), &self.log)
    }

    /// What may be sent.
    pub(crate) fn take_messages(&mut self) -> Vec<Message> {
        self.outbox.take()
    }

    /// Write `id`, and all before it, are durable: lets go the messages that waited for that. Returns those to this member
    /// itself, or none if it is no news.
    pub(crate) fn persisted(&mut self, id: WriteId) -> Option<Vec<Message>> {
        let is_news = self.writes.persisted(id);
        self.released(is_news)
    }

    /// The same when of write `id` only what it has up to entry `index` is durable, and all before it.
    pub(crate) fn persisted_part(&mut self, id: WriteId, index: Index) -> Option<Vec<Message>> {
        let is_news = self.writes.persisted_part(id, index);
        self.released(is_news)
    }

    fn released(&mut self, is_news: bool) -> Option<Vec<Message>> {
        if !is_news {
            return None;
        }
        self.mend();
        self.outbox.release(self.writes.proof());
        Some(self.outbox.take_own())
    }

    /// Whether there is something to write, to send, to apply or to settle.
    pub(crate) fn has_output(&self) -> bool {
        self.outbox.is_ready()
            || !self.reads.is_empty()
            || self.handed < self.applicable()
            || self.writes.is_due(self.hard_state(), &self.log)
    }
}
