//! Damage, and going back in time: a member whose log on disk has lost entries that it held durably, and what it owes until it has them
//! again.
//!
//! What is damaged may have been acknowledged, and so be committed by this member's help. Cut away and forgotten, it would be
//! missing in the very quorum that committed it (failure 9 in small): the member would elect somebody who lacks it. So the
//! caller tells what was lost ([`crate::Restored::lost`]), and while that is not made good the member is no voter but in
//! name: it grants no vote and no pre-vote, and neither campaigns nor takes leadership over. It follows, takes entries over,
//! and acknowledges what is durable again, which counts like anybody's. (Alagappan et al., *Protocol-Aware Recovery for
//! Consensus-Based Storage*, FAST 2018, has the idea: damage is repaired from the others, and nothing in doubt is cut off
//! and voted upon.)
//!
//! # When it is repaired
//!
//! As soon as its newest entry that is committed, and durable here, is at least `lost`, in the order by which votes compare
//! logs. Then it holds everything that it ever acknowledged and that is committed, or can still become so:
//!
//! Let C be that committed entry, and e one that this member acknowledged before the damage. If it has followed a leader
//! whose log had another in the place of e, then e never was committed and never will be, as for any member. Otherwise e was
//! in the log that was damaged, whose newest entry is at most `lost`, so `e <= lost <= C` in term and index. If e is
//! committed, some leader's log has both it and C (Leader Completeness; 5.4.3). Along a log neither terms nor indices fall: e
//! stands there at C or before it. And so it does here, because the logs with C in them agree up to it (Log Matching).
//!
//! Leader Completeness itself does not suffer, whoever is damaged. Its proof takes the first leader that lacks what was
//! committed in a term before, and a voter that acknowledged that and voted for this leader. If it was this member, it was
//! whole when it voted: it held a C of at least the term of what was committed, and of less than this leader's. C's leader had
//! what was committed, being the same leader or one between the two; so this member had it again, and did not vote for
//! somebody who lacked it.
//!
//! Therefore acknowledgements from before the damage may go on counting, however late they come, and any number of members
//! may be damaged at the same time: what was committed stays so. Only for an election a quorum must be whole.
//!
//! An installed snapshot is a committed entry as well. In a cluster where nothing is proposed it ends too: under a leader
//! of a later term than that of `lost` with its no-op, and under the same one when its log is there again and the commit
//! index has come. (A leader of an earlier term steps down, when it hears of this member's.)
//!
//! # How the leader finds out
//!
//! A leader that has led all the while knows entries to be durable on this member that are not any more. It would never send
//! them, and take the rejection of what follows for a late one. So a repairing member marks its rejections, and sends one
//! too when a heartbeat speaks of more as committed here than there is. At a marked one the leader goes back to where the logs
//! may agree. If it is late or doubled that costs a probe and entries that are sent twice; see `Follower::lost`.

//!
//! # Going back in time
//!
//! A disk may also come back whole and older: a volume restored from a snapshot, a disk that lied about a flush, a copy of the data
//! directory. Nothing on it says so. Two things do:
//!
//! - A heartbeat of this term whose commit index is beyond the end of the log, or where another entry stands than the leader has there: what was
//!   cut off for the leader's is back. A leader puts into it no more than what it has verified,
//!   in its term, to be durable here ([`crate::progress::Follower::heartbeat_commit`]). What matches a leader's log is not cut off in its term,
//!   and what was cut off in an earlier one was never verified in this one. So it was here, and is not: unless damage took it, which
//!   this member knows, and which [`Restored::lost`] covers.
//! - What another member remembers of it, and its caller hears of ([`crate::Raft::went_back`]).
//!
//! Such a member does not know what it has lost. It has forgotten acknowledgements, of entries of its leader's term and of earlier ones;
//! and votes, up to the term that it is known to have been in. `(T, MAX)` is an upper bound of all that it acknowledged, where T is that term or the
//! one in which it hears the leader, whichever is later: entries are of no later term than those who acknowledge them. So it
//! owes that, is repaired as above by any committed entry of a later term, and votes in no earlier term than that entry's. What it has voted
//! up to T is not needed any more.
//!
//! Under the leader of T itself it would owe that for as long as T lasts. So it asks where that leader's log ends ([`Body::AskEnd`]), and
//! owes no more than `(T, end)` from then on. Leader T only appends to its log, and answers after the question, which the
//! forgetful process asks after its forerunner has ended (the number in it tells the answer from one to somebody else): so whatever the forerunner acknowledged in
//! T stands at `end` or before it, and what it acknowledged in earlier terms is less than `(T, end)`. Its vote in T is spent on the leader
//! then: a candidate of T that was refused once must not be elected by it later.
//!
//! This holds if T is no earlier than the last term in which it promised anything. If it is earlier, the only members that know of the
//! later term are not heard, or have forgotten it as well; and then nobody who is heard can tell. (N members that acknowledge, all but one of
//! which are off, and that one put back: with a member that lacks the entries it elects a leader that lacks them. No protocol with so few
//! copies can notice. The one that has them notices when it comes back: [`crate::Contradiction`].)

use crate::common::Common;
use crate::{Body, Configuration, Index, LogId, MemberId, Payload, Restored, Term};

impl Restored {
    /// Whether nobody can repair what member `id` has lost: by what is left of its log it is the only voter, and so nobody
    /// else can lead. If an entry that was lost added others, they may still come; but nothing here tells.
    ///
    /// A caller should refuse to start such a member rather than let it wait for ever. (Starting it does no harm.)
    pub fn is_beyond_repair(&self, id: MemberId) -> bool {
        self.lost.is_some() && self.newest_configuration().is_some_and(|newest| newest.is_alone(id))
    }

    fn newest_configuration(&self) -> Option<&Configuration> {
        let of_snapshot = self.snapshot.iter().map(|s| (s.configuration_id.index, &s.configuration));
        let of_log = self.entries.iter().filter_map(|entry| match &entry.payload {
            Payload::Configuration(configuration) => Some((entry.index, &**configuration)),
            Payload::Noop | Payload::Command(_) => None,
        });
        of_snapshot.chain(of_log).max_by_key(|(index, _)| *index).map(|(_, newest)| newest)
    }
}

impl Common {
    /// Whether this member lacks what it has acknowledged.
    pub(crate) fn is_repairing(&self) -> bool {
        self.lost.is_some()
    }

    /// Something was committed here, or became durable: perhaps what was lost is made good.
    pub(crate) fn mend(&mut self) {
        let index = self.applicable();
        let newest = self.log.term_at(index).map(|term| LogId { term, index });
        self.lost.take_if(|lost| newest >= Some(*lost));
    }

    /// Tells the leader that the entry at `rejected` does not match, and where the logs may agree.
    pub(crate) fn reject(&mut self, leader: MemberId, rejected: Index, hint: LogId) {
        let lost = self.is_repairing();
        self.send(leader, Body::AppendRejected { rejected, hint, lost });
    }

    /// This member has forgotten what it acknowledged, up to `term`, and does not know how much.
    pub(crate) fn owe_all_of(&mut self, term: Term) {
        let all = LogId { term, index: Index::MAX };
        self.owe(self.lost.map_or(all, |lost| lost.max(all)));
    }

    /// While it does not know how much it has forgotten, it asks the leader of that term. Repeated with each heartbeat.
    pub(crate) fn ask_for_bound(&mut self, leader: MemberId) {
        if self.lost == Some(LogId { term: self.term, index: Index::MAX }) {
            let timer = &mut self.timer;
            let id = *self.asks.get_or_insert_with(|| timer.draw());
            self.send(leader, Body::AskEnd { id });
        }
    }

    /// The log of `leader` ended at `last` when it was asked: nothing that was forgotten is behind that.
    pub(crate) fn bounded(&mut self, leader: MemberId, id: u64, last: Index) {
        let unbounded = LogId { term: self.term, index: Index::MAX };
        if self.lost != Some(unbounded) || self.asks != Some(id) || self.leader != Some(leader) {
            return;
        }
        self.vote.get_or_insert(leader);
        self.owe(LogId { index: last, ..unbounded });
        self.mend();
    }

    fn owe(&mut self, lost: LogId) {
        self.lost = Some(lost);
        self.writes.owes(lost);
    }
}
