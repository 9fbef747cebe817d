//! How far one follower is, and what it is sent next.

use std::collections::VecDeque;

use crate::log::Log;
use crate::{Body, Config, Index, LogId};

/// A leader's view of one follower.
///
/// Invariants: `matched < next`; `matched` never falls, and only a verified acceptance moves it, never a heartbeat
/// (failure 11); it never passes the end of the leader's log.
#[derive(Debug)]
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
    /// Set when it is no member any more: the configuration without it, which it is still told of.
    pub(crate) leaving: Option<Index>,
}

/// How entries flow. (A third way comes with snapshots: entries wait while one is installed.)
#[derive(Debug)]
enum Flow {
    /// It is not known where the logs agree: one message at a time, until one is accepted.
    Probe {
        /// The message is on its way.
        asked: bool,
    },
    /// It is: messages follow one another without waiting for answers.
    Replicate(Inflight),
}

/// Messages on their way, by the last entry and the bytes of each.
#[derive(Debug, Default)]
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
            leaving: None,
        }
    }

    /// A tick has passed.
    pub(crate) fn tick(&mut self) {
        self.silent = self.silent.saturating_add(1);
        self.waited = self.waited.saturating_add(1);
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

    /// The next message with entries, or with news of the commit index; none when it has all, or enough is on its way.
    pub(crate) fn next_append(&mut self, log: &Log, commit: Index, config: &Config) -> Option<Body> {
        let last = log.last().index;
        match &self.flow {
            Flow::Probe { asked: true } => return None,
            Flow::Probe { asked: false } => {}
            Flow::Replicate(inflight) if self.next <= last => {
                if inflight.bytes >= config.max_inflight_bytes {
                    return None;
                }
            }
            // It has all. When nothing more is on its way to bring the news, it is told what is committed by itself.
            Flow::Replicate(inflight) => {
                if !inflight.messages.is_empty() || self.told >= commit.min(self.matched) {
                    return None;
                }
            }
        }
        let previous = self.next - 1;
        let term = log
            .term_at(previous)
            .expect("the leader holds its whole log, and `next` is at most one past its end");
        let entries = log.slice(self.next, last, config.max_append_bytes);
        let end = previous + entries.len() as u64;
        self.told = self.told.max(commit.min(end));
        match &mut self.flow {
            Flow::Probe { asked } => {
                *asked = true;
                self.waited = 0;
            }
            Flow::Replicate(inflight) if !entries.is_empty() => {
                if inflight.messages.is_empty() {
                    self.waited = 0;
                }
                inflight.sent(end, entries.iter().map(crate::Entry::weight).sum());
                self.next = end + 1;
            }
            Flow::Replicate(_) => {}
        }
        Some(Body::AppendEntries { previous: LogId { term, index: previous }, entries, commit })
    }

    /// Whether [`Self::next_append`] has something.
    pub(crate) fn wants_append(&self, log: &Log, commit: Index, config: &Config) -> bool {
        match &self.flow {
            Flow::Probe { asked } => !asked,
            Flow::Replicate(inflight) if self.next <= log.last().index => {
                inflight.bytes < config.max_inflight_bytes
            }
            Flow::Replicate(inflight) => inflight.messages.is_empty() && self.told < commit.min(self.matched),
        }
    }

    /// What a heartbeat may let it commit: never beyond what is verified there (failure 11).
    pub(crate) fn heartbeat_commit(&mut self, commit: Index) -> Index {
        let verified = commit.min(self.matched);
        self.told = self.told.max(verified);
        verified
    }

    /// Its log agrees up to `matched`, durably. From now on entries flow without waiting.
    pub(crate) fn accepted(&mut self, matched: Index) {
        if matched < self.matched {
            return;
        }
        if matched > self.matched {
            self.waited = 0;
        }
        self.matched = matched;
        match &mut self.flow {
            Flow::Replicate(inflight) => {
                inflight.arrived(matched);
                self.next = self.next.max(matched + 1);
            }
            Flow::Probe { .. } => {
                self.flow = Flow::Replicate(Inflight::default());
                self.next = matched + 1;
            }
        }
    }

    /// It does not hold the entry before the message's first; `hint` is where our log may agree with its. Answers to
    /// messages that are no longer the newest question are left aside.
    pub(crate) fn rejected(&mut self, rejected: Index, hint: LogId) {
        let stale = match self.flow {
            Flow::Replicate(_) => rejected <= self.matched || rejected >= self.next,
            Flow::Probe { .. } => rejected + 1 != self.next,
        };
        if !stale {
            self.probe();
            self.next = rejected.min(hint.index + 1).max(self.matched + 1);
        }
    }

    /// A heartbeat was answered, so it is there; what was sent and has brought nothing since may be lost. Then entries
    /// begin anew from what is verified (failure 42).
    pub(crate) fn recover(&mut self, heartbeat_ticks: u32) {
        match &mut self.flow {
            Flow::Probe { asked } => *asked &= self.waited < heartbeat_ticks,
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
