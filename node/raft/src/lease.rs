//! Reads by lease: a leader that a quorum has promised not to depose answers reads at once (dissertation, 6.4.1).
//!
//! Each heartbeat has a number, and the leader knows when, by its own ticks, it was sent. Who answers it promises to vote for
//! nobody for an election timeout, which begins after the heartbeat was sent. So until a lease that is shorter than that, and
//! began when the heartbeat was sent, is over, nobody else can have been elected and have committed anything.
//!
//! A promise outlives what makes an ordinary follower forget its leader: a message of a later term, the closing of the leader's
//! connection, and, as a member that has just come up cannot know what it promised, a restart. What ends it is the leader's own
//! wish: a member that is told to campaign is not held up. Such a message can be late without bound, so a leader that has sent
//! one has no lease any more as long as it leads (failure 29).

use std::collections::VecDeque;

use crate::MemberId;
use crate::common::Common;
use crate::leader::Leader;

/// Reads by lease. All times are counted in ticks, by each member for itself, so they are as good as the callers' clocks:
///
/// - In the time in which one member counts [`crate::Config::election_ticks`] less one, no other counts fewer than `ticks`. With 10 and 7
///   that allows one clock to be faster by a quarter than another.
/// - Ticks come from a clock that neither stops nor jumps, and all that are due are given to [`crate::Raft::tick`], or at least to
///   [`crate::Raft::overslept`], before [`crate::Raft::read_index`] and before messages: after a pause of the process above all.
/// - A member that may have made promises before it ended comes back with leases, or with [`crate::Config::promised`].
///
/// Switching it on needs no order: a leader counts only the promises that it was given. A cluster of one waits an election
/// timeout after each start, like everybody who may be bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Lease {
    /// How long a lease is, from when the heartbeat was sent. Less than `election_ticks`, by what clocks may differ; more than
    /// `heartbeat_ticks`, or leases end before they are renewed.
    pub ticks: u32,
}

/// A leader's heartbeats, and whether it may have a lease.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(crate) struct Renewals {
    /// Ticks of this leadership, counted from 1.
    now: u64,
    /// Of late heartbeats the number and when they were sent, oldest first.
    sent: VecDeque<(u64, u64)>,
    /// Somebody was told to campaign.
    pub(crate) void: bool,
}

impl Renewals {
    /// So many ticks have passed.
    pub(crate) fn pass(&mut self, passed: u64, lease: Option<Lease>) {
        let Some(Lease { ticks }) = lease else { return };
        let ticks = u64::from(ticks);
        self.now = self.now.saturating_add(passed);
        while self.sent.pop_front_if(|(_, sent)| *sent + ticks <= self.now).is_some() {}
    }

    /// Heartbeat `round` is sent.
    pub(crate) fn sent(&mut self, round: u64) {
        self.sent.push_back((round, self.now));
    }

    /// When heartbeat `round` was sent; 0 if that is too long ago.
    pub(crate) fn sent_at(&self, round: u64) -> u64 {
        self.sent.iter().find(|(number, _)| *number == round).map_or(0, |(_, sent)| *sent)
    }
}

impl Leader {
    /// Whether nobody else can have been elected yet. A leader that hands over has no lease: its target need not wait.
    pub(crate) fn has_lease(&self, common: &Common) -> bool {
        let Some(Lease { ticks }) = common.config.lease else { return false };
        let own = |id: MemberId| id == common.id();
        let renewed = |id| self.followers.get(&id).map_or(0, |follower| follower.renewed);
        let now = self.renewals.now;
        let since = common.membership.current().reached(|id| if own(id) { now } else { renewed(id) });
        since > 0 && now - since < u64::from(ticks) && self.transfer.is_none() && !self.renewals.void
    }
}

impl Common {
    /// For how many ticks this member votes for nobody once it has heard a leader: 0 when leases are off.
    pub(crate) fn promise(&self) -> u32 {
        self.config.lease.map_or(0, |_| self.config.election_ticks)
    }

    /// Whether a promise may hold: one that was given, or that an earlier process of this member gave.
    pub(crate) fn is_bound(&self) -> bool {
        self.timer.is_young() || self.timer.unheard() < self.promise()
    }
}
