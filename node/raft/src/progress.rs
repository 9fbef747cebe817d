//! How far one follower is, and what it is sent next.

use std::collections::VecDeque;

use crate::common::Common;
use crate::{Body, Config, Entry, Index, LogId};

/// A leader's view of one follower.
///
/// Invariants: `matched < next`; only a verified acceptance raises `matched`, never a heartbeat (failure 11); it never passes
/// the end of the leader's log, and never falls, except where the follower says that damage took away what it acknowledged
/// ([`Follower::lost`]).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Follower {
    /// Verified to agree with the leader's log, and durable there.
    pub(crate) matched: Index,
    /// The first entry of the next message.
    next: Index,
    flow: Flow,
    /// The greatest commit index that it was told, or that it could take over from what it was told.
    told: Index,
    /// Ticks since it was heard.
    silent: u32,
    /// Ticks since what is on its way moved on: was acknowledged, or began.
    waited: u32,
    /// The newest round of reads that it confirmed.
    pub(crate) round: u64,
    /// When the newest heartbeat was sent that it answered with a promise; 0 for none. See [`crate::lease`].
    pub(crate) renewed: u64,
    /// How much it is to lead, as it said last.
    pub(crate) priority: u32,
    /// It says that it lacks what it acknowledged, and has acknowledged nothing since.
    pub(crate) lost: bool,
    /// Set when it is no member any more: the configuration without it, which it is still told of.
    pub(crate) leaving: Option<Index>,
}

/// How entries flow.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Flow {
    /// It is not known where the logs agree: one message at a time, until one is accepted.
    Probe {
        /// The message is on its way.
        asked: bool,
    },
    /// It is: messages follow one another without waiting for answers.
    Replicate(Inflight),
    /// Its next entry is not held any more: it is offered a snapshot, and entries wait until that is installed.
    Snapshot {
        /// The oldest that it was offered and is of use still: what it has begun to fetch it goes on with, whatever else is offered.
        offered: LogId,
        /// The offer is on its way, or is being followed: it is repeated when a heartbeat is answered.
        asked: bool,
    },
}

/// Messages on their way, by the last entry and the bytes of each.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
struct Inflight {
    messages: VecDeque<(Index, usize)>,
    bytes: usize,
}

impl Inflight {
    fn sent(&mut self, last: Index, bytes: usize) {
        self.messages.push_back((last, bytes));
        self.bytes += bytes;
    }

    fn arrived(&mut self, matched: Index) {
        while let Some((_, bytes)) = self.messages.pop_front_if(|(last, _)| *last <= matched) {
            self.bytes -= bytes;
        }
    }
}

impl Follower {
    /// A follower of which nothing is known but that the leader's log ended before `next` when it began.
    pub(crate) fn new(next: Index) -> Self {
        Self {
            matched: 0,
            next,
            flow: Flow::Probe { asked: false },
            told: 0,
            silent: 0,
            waited: 0,
            round: 0,
            renewed: 0,
            priority: 0,
            lost: false,
            leaving: None,
        }
    }

    /// A tick has passed.
    pub(crate) fn tick(&mut self) {
        self.silent = self.silent.saturating_add(1);
        self.waited = self.waited.saturating_add(1);
    }

    /// Counts no further than it makes a difference.
    pub(crate) fn saturate(&mut self, config: &Config) {
        self.silent = self.silent.min(config.election_ticks);
        self.waited = self.waited.min(2 * config.heartbeat_ticks);
    }

    /// A message of this term has come from it.
    pub(crate) fn heard(&mut self) {
        self.silent = 0;
    }

    /// Whether it was heard within `ticks`.
    pub(crate) fn is_active(&self, ticks: u32) -> bool {
        self.silent < ticks
    }

    /// Whether it has been told that everything up to `index` is committed.
    pub(crate) fn knows_committed(&self, index: Index) -> bool {
        self.told >= index
    }

    /// The snapshot that it was offered and has not installed yet.
    pub(crate) fn offered(&self) -> Option<LogId> {
        match self.flow {
            Flow::Snapshot { offered, .. } => Some(offered),
            Flow::Probe { .. } | Flow::Replicate(_) => None,
        }
    }

    /// Whether [`Self::next_message`] has something.
    pub(crate) fn wants_message(&self, common: &Common) -> bool {
        match &self.flow {
            Flow::Probe { asked } | Flow::Snapshot { asked, .. } => !asked,
            Flow::Replicate(inflight) if self.next <= common.log.last().index => {
                inflight.bytes < common.config.max_inflight_bytes
            }
            // It has all. When nothing more is on its way to bring the news, it is told what is committed by itself.
            Flow::Replicate(inflight) => {
                inflight.messages.is_empty() && self.told < common.commit().min(self.matched)
            }
        }
    }

    /// The next message with entries, with news of the commit index, or with the offer of a snapshot; none when it has all,
    /// or enough is on its way.
    pub(crate) fn next_message(&mut self, common: &Common) -> Option<Body> {
        if !self.wants_message(common) {
            return None;
        }
        let previous = self.next - 1;
        let is_offered = matches!(self.flow, Flow::Snapshot { .. });
        match common.log.term_at(previous) {
            Some(term) if !is_offered => Some(self.append(common, LogId { term, index: previous })),
            _ => Some(self.offer(common)),
        }
    }

    /// Entries after `previous`, or none when it has all.
    fn append(&mut self, common: &Common, previous: LogId) -> Body {
        let commit = common.commit();
        let entries = common.log.slice(self.next, common.log.last().index, common.config.max_append_bytes);
        let end = previous.index + entries.len() as u64;
        self.told = self.told.max(commit.min(end));
        match &mut self.flow {
            Flow::Replicate(inflight) if !entries.is_empty() => {
                if inflight.messages.is_empty() {
                    self.waited = 0;
                }
                inflight.sent(end, entries.iter().map(Entry::weight).sum());
                self.next = end + 1;
            }
            Flow::Probe { asked } => {
                *asked = true;
                self.waited = 0;
            }
            Flow::Replicate(_) | Flow::Snapshot { .. } => {}
        }
        Body::AppendEntries { previous, entries, commit }
    }

    /// The newest snapshot: what it needs next is compacted. However far back it is, it is never given up (failure 31).
    fn offer(&mut self, common: &Common) -> Body {
        let snapshot = common.snapshot.clone().expect("only what is in a snapshot is compacted");
        let followed = self.offered().filter(|offered| offered.index >= common.log.base().index);
        self.flow = Flow::Snapshot { offered: followed.unwrap_or(snapshot.id), asked: true };
        self.waited = 0;
        Body::InstallSnapshot { snapshot: Box::new(snapshot), base: common.log.base() }
    }

    /// What a heartbeat may let it commit: never beyond what is verified there (failure 11).
    pub(crate) fn heartbeat_commit(&mut self, commit: Index) -> Index {
        let verified = commit.min(self.matched);
        self.told = self.told.max(verified);
        verified
    }

    /// Its log agrees up to `matched`, durably. From now on entries flow without waiting, unless they lie before `base`.
    pub(crate) fn accepted(&mut self, matched: Index, base: Index) {
        if matched < self.matched {
            return;
        }
        if matched > self.matched {
            self.waited = 0;
        }
        self.matched = matched;
        self.lost = false;
        match &mut self.flow {
            Flow::Replicate(inflight) => {
                inflight.arrived(matched);
                self.next = self.next.max(matched + 1);
            }
            // What it has installed is compacted here by now: that of a leader that went on.
            Flow::Snapshot { .. } if matched < base => self.next = matched + 1,
            Flow::Probe { .. } | Flow::Snapshot { .. } => {
                self.flow = Flow::Replicate(Inflight::default());
                self.next = matched + 1;
            }
        }
    }

    /// It does not hold the entry before the message's first; our log may agree with its up to `agreed`. Answers to
    /// messages that are no longer the newest question are left aside.
    pub(crate) fn rejected(&mut self, rejected: Index, agreed: Index) {
        let stale = match self.flow {
            Flow::Replicate(_) => rejected <= self.matched || rejected >= self.next,
            Flow::Probe { .. } => rejected + 1 != self.next,
            Flow::Snapshot { .. } => true,
        };
        if stale {
            return;
        }
        // It does not hold the entry that it acknowledged, or this answer is late. The same question again would bring the same answer, as
        // fast as the network is: so it waits for the answer to a heartbeat. If the member has forgotten, that heartbeat tells it.
        let forgets = matches!(self.flow, Flow::Probe { .. }) && rejected == self.matched;
        self.probe();
        self.next = rejected.min(agreed + 1).max(self.matched + 1);
        if forgets && self.matched > 0 {
            self.lost = true;
            self.flow = Flow::Probe { asked: true };
        }
    }

    /// Damage took away what it holds after `agreed`, or it went back in time, though it may have acknowledged that. It is sent again.
    ///
    /// `matched` falls, and nothing else: what was committed by its help stays so, as it helps to elect nobody until it has that
    /// again. The message may be older than acceptances that have come meanwhile; and such an acceptance may be older than the
    /// damage. Neither does harm. With `matched` too low, entries are sent again, a transfer to it waits a little longer, and a
    /// learner does not count as caught up until it has accepted once more. With `matched` too high, as before this message,
    /// it still repairs and ignores that leadership is handed to it; it rejects what is sent, and says so again.
    pub(crate) fn lost(&mut self, agreed: Index) {
        if agreed < self.matched {
            self.matched = agreed;
            self.lost = true;
            self.probe();
        }
    }

    /// A heartbeat was answered, so it is there; what was sent and has brought nothing since may be lost. Then entries
    /// begin anew from what is verified (failure 42).
    pub(crate) fn recover(&mut self, heartbeat_ticks: u32) {
        match &mut self.flow {
            Flow::Probe { asked } | Flow::Snapshot { asked, .. } => *asked &= self.waited < heartbeat_ticks,
            Flow::Replicate(inflight) => {
                if !inflight.messages.is_empty() && self.waited >= 2 * heartbeat_ticks {
                    self.probe();
                }
            }
        }
    }

    /// What is on its way may be lost: begins anew from what is verified.
    pub(crate) fn probe(&mut self) {
        self.next = self.matched + 1;
        self.told = 0;
        self.flow = Flow::Probe { asked: false };
    }
}
