//! Linearizable reads without a log entry: ReadIndex (dissertation, 6.4).
//!
//! A leader notes its commit index, finds out by a round of heartbeats that it still leads, and then the read may be served by
//! whoever has applied that index. Two traps (failures 26 to 28): a leader's commit index may be behind until it has
//! committed an entry of its own term, so reads are held until then; and an answer may only count for reads that arrived
//! before its question left, so rounds and numbers are never used twice.

use std::collections::VecDeque;

use crate::{Index, MemberId, ReadDone, Term};

/// Who waits for a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Reader {
    /// The leader's own caller, by its number.
    Local(u64),
    /// A follower, by its number.
    Remote(MemberId, u64),
}

/// The reads that a leader has in hand.
///
/// Invariants: rounds count up within the leader's term, and a heartbeat of a round leaves after all reads of that round
/// have arrived.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(crate) struct LeaderReads {
    /// Arrived since the newest round began.
    arrived: Vec<Reader>,
    /// Rounds that a quorum has not confirmed yet, oldest first.
    rounds: VecDeque<Round>,
    newest: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Round {
    number: u64,
    index: Index,
    readers: Vec<Reader>,
}

impl LeaderReads {
    pub(crate) fn arrive(&mut self, reader: Reader) {
        self.arrived.push(reader);
    }

    /// Whether a round can begin. One at a time: reads that arrive meanwhile share the next.
    pub(crate) fn is_due(&self) -> bool {
        self.rounds.is_empty() && self.is_waiting()
    }

    /// Whether reads wait for a round to begin.
    pub(crate) fn is_waiting(&self) -> bool {
        !self.arrived.is_empty()
    }

    /// Begins a round: all that has arrived may be served at `commit` if this member leads now.
    pub(crate) fn begin(&mut self, commit: Index) {
        self.newest += 1;
        let readers = std::mem::take(&mut self.arrived);
        self.rounds.push_back(Round { number: self.newest, index: commit, readers });
    }

    /// The next heartbeat's answers are told from those of earlier ones, though no read waits for them.
    pub(crate) fn number_anew(&mut self) {
        self.newest += 1;
    }

    /// The newest round.
    pub(crate) fn newest(&self) -> u64 {
        self.newest
    }

    /// A quorum has confirmed `round`, and with it all before. Returns who may read, and from which index on.
    pub(crate) fn confirmed(&mut self, round: u64) -> Vec<(Reader, Index)> {
        let mut done = Vec::new();
        while let Some(round) = self.rounds.pop_front_if(|waiting| waiting.number <= round) {
            done.extend(round.readers.into_iter().map(|reader| (reader, round.index)));
        }
        done
    }

    /// Leadership is lost: all that wait.
    pub(crate) fn give_up(self) -> impl Iterator<Item = Reader> {
        self.rounds.into_iter().flat_map(|round| round.readers).chain(self.arrived)
    }
}

/// The reads of a member's callers while it does not lead: it asks the leader.
///
/// A question carries the newest number that it is for, and its answer settles that and all older ones: they had arrived
/// when the question left. Every number is settled once: by an answer, or with none when the leader that was asked is no
/// longer the leader, or nobody answers within an election timeout.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct ForwardedReads {
    /// What is added to a number on the wire. Drawn at random: an answer to a process that is gone does not count for this one.
    base: u64,
    /// Not asked yet: no leader is known.
    unsent: VecDeque<Waiting>,
    /// Asked.
    sent: VecDeque<Waiting>,
    /// Who was asked, in which term.
    asked: Option<(Term, MemberId)>,
    now: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Waiting {
    number: u64,
    deadline: u64,
}

impl ForwardedReads {
    pub(crate) fn new(base: u64) -> Self {
        Self { base, unsent: VecDeque::new(), sent: VecDeque::new(), asked: None, now: 0 }
    }

    pub(crate) fn arrive(&mut self, number: u64, patience: u32) {
        self.unsent.push_back(Waiting { number, deadline: self.now + u64::from(patience) });
    }

    /// Whether [`Self::question`] has one.
    pub(crate) fn is_waiting(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// What to ask of the `leader` of `term`: the number on the wire.
    pub(crate) fn question(&mut self, term: Term, leader: MemberId) -> Option<u64> {
        let newest = self.unsent.back()?.number;
        self.sent.append(&mut self.unsent);
        self.asked = Some((term, leader));
        Some(self.base.wrapping_add(newest))
    }

    /// An answer. Returns what it settles.
    pub(crate) fn answered(&mut self, wire: u64, index: Option<Index>) -> Vec<ReadDone> {
        let number = wire.wrapping_sub(self.base);
        if self.sent.back().is_none_or(|newest| number > newest.number) {
            // Settled long ago, or asked by a process that is gone.
            return Vec::new();
        }
        let settled = self.sent.partition_point(|waiting| waiting.number <= number);
        self.sent.drain(..settled).map(|waiting| ReadDone { id: waiting.number, index }).collect()
    }

    /// Settles with none what was asked of another than this leader: it may have been lost with it.
    pub(crate) fn follow(&mut self, leader: Option<(Term, MemberId)>) -> Vec<ReadDone> {
        if self.asked == leader {
            return Vec::new();
        }
        self.asked = None;
        self.sent.drain(..).map(Waiting::in_vain).collect()
    }

    /// A tick has passed. Returns what nobody has answered in time.
    pub(crate) fn tick(&mut self) -> Vec<ReadDone> {
        self.now += 1;
        let mut late = Vec::new();
        for queue in [&mut self.sent, &mut self.unsent] {
            while let Some(waiting) = queue.pop_front_if(|waiting| waiting.deadline <= self.now) {
                late.push(waiting.in_vain());
            }
        }
        late
    }

    /// Counts time from now.
    pub(crate) fn begin_time(&mut self) {
        let now = std::mem::take(&mut self.now);
        for waiting in self.unsent.iter_mut().chain(&mut self.sent) {
            waiting.deadline -= now;
        }
    }

    /// This member leads now: what was not asked yet it answers itself.
    pub(crate) fn take_unsent(&mut self) -> impl Iterator<Item = u64> {
        self.unsent.drain(..).map(|waiting| waiting.number)
    }
}

impl Waiting {
    fn in_vain(self) -> ReadDone {
        ReadDone { id: self.number, index: None }
    }
}
