//! The quota: how large the state may become, so that all members can hold it in memory.
//!
//! Each member has a quota of its own, and says so to its leader, which counts the smallest of those of the configuration, learners
//! included. Size and growth are accounted (`kv/sizes.rs`), and are the same on all members.
//!
//! From level 2 on the log itself decides. When a command may bring the state to the quota the leader puts a check before it: that
//! raises NOSPACE by the size at its place, and what would be put behind it is refused there, alike on every member, until the alarm is
//! disarmed. Whoever is refused finds the alarm. When the leader knows that its state is the newest it refuses at admission, so that the log does not fill
//! with what is refused. Below level 2 the leader refuses at admission alone, by what it has applied and what is under way.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use quorate_api::log::CheckQuota;
use quorate_api::log::command::Operation;
use quorate_raft::{Index, MemberId, Term};

use super::Replica;
use super::builds::NO_ORIGIN;
use crate::command;
use crate::kv::Store;
use crate::level::ALARMS;

/// What the state takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// In bytes, as they are accounted: of what the last compaction leaves.
    pub bytes: u64,
    /// Whether NOSPACE is raised.
    pub is_full: bool,
}

impl Usage {
    /// Of `store`.
    pub fn of(store: &Store) -> Self {
        Usage { bytes: store.size_in_use(), is_full: store.is_full() }
    }
}

/// What is known of the members' quotas, and of what the state takes.
#[derive(Debug)]
pub(super) struct Quota {
    me: MemberId,
    /// This member's; none for no limit.
    own: Option<u64>,
    /// The others', as they said last, also if they are away: they are to come back.
    told: BTreeMap<MemberId, u64>,
    /// The smallest of the configuration's members, and whose it is.
    smallest: Option<(u64, MemberId)>,
    usage: Usage,
    /// What this member has appended as the leader and not applied yet: up to which entry, and by how much it may grow.
    appended: VecDeque<(Index, u64)>,
    /// The sum of those.
    under_way: u64,
    /// What was admitted and not appended yet, below the level at which the log decides.
    admitted: u64,
    /// Something was refused at admission for its size, and the state has not become much smaller since.
    turned_away: bool,
}

impl Quota {
    pub(super) fn new(me: MemberId, own: Option<u64>, usage: Usage) -> Self {
        let smallest = own.map(|quota| (quota, me));
        Quota {
            me,
            own,
            told: BTreeMap::new(),
            smallest,
            usage,
            appended: VecDeque::new(),
            under_way: 0,
            admitted: 0,
            turned_away: false,
        }
    }

    /// This member's; none for no limit.
    pub(super) fn own(&self) -> Option<u64> {
        self.own
    }

    pub(super) fn usage(&self) -> Usage {
        self.usage
    }

    /// A member of the configuration says what its quota is.
    pub(super) fn told(&mut self, from: MemberId, quota: Option<u64>) {
        match quota {
            Some(quota) => _ = self.told.insert(from, quota),
            None => _ = self.told.remove(&from),
        }
    }

    /// These are the members: the quotas of others do not count.
    pub(super) fn configure(&mut self, members: &BTreeSet<MemberId>) {
        self.told.retain(|id, _| members.contains(id));
        let others = self.told.iter().map(|(id, quota)| (*quota, *id));
        self.smallest = others.chain(self.own.map(|quota| (quota, self.me))).min();
    }

    /// The smallest quota, and whose it is. None if no member has one.
    pub(super) fn smallest(&self) -> Option<(u64, MemberId)> {
        self.smallest
    }

    /// Whether the state stays below the quota, with what is under way and `growth` more.
    pub(super) fn fits(&self, growth: u64) -> bool {
        let all = [self.usage.bytes, self.under_way, self.admitted, growth];
        let all = all.into_iter().fold(0, u64::saturating_add);
        self.smallest.is_none_or(|(quota, _)| all < quota)
    }

    /// The same, and if so counts it until it is appended.
    pub(super) fn admit(&mut self, growth: u64) -> bool {
        let fits = self.fits(growth);
        self.admitted += if fits { growth } else { 0 };
        self.turned_away |= !fits;
        fits
    }

    /// What was admitted is being appended, or waits for another leader.
    pub(super) fn hand_over(&mut self) {
        self.admitted = 0;
    }

    /// The check to put before a command that may make the state larger by `growth`, behind others that may by `before`. None if it fits
    /// for certain, or is refused anyway.
    fn check(&self, before: u64, growth: u64) -> Option<CheckQuota> {
        let (quota, member) = self.smallest?;
        let needed = growth > 0 && !self.usage.is_full && !self.fits(before.saturating_add(growth));
        needed.then_some(CheckQuota { member: member.0, quota, growth })
    }

    /// Commands that may grow by so much were appended, up to entry `last`.
    pub(super) fn appended(&mut self, last: Index, growth: u64) {
        if growth > 0 {
            self.appended.push_back((last, growth));
            self.under_way += growth;
        }
    }

    /// The state holds everything up to entry `applied`, and takes so much. Returns whether NOSPACE has come or gone.
    pub(super) fn applied(&mut self, applied: Index, usage: Usage) -> bool {
        while let Some((_, growth)) = self.appended.pop_front_if(|(last, _)| *last <= applied) {
            self.under_way -= growth;
        }
        // Much smaller: so that it does not change with every request that is small enough.
        self.turned_away &= self.smallest.is_some_and(|(quota, _)| usage.bytes >= quota / 4 * 3);
        std::mem::replace(&mut self.usage, usage).is_full != usage.is_full
    }
}

impl Replica {
    /// Appends what waits for it as the leader of `term`. Behind what fits for certain each command has a check before it.
    pub(super) fn append(&mut self, term: Term) {
        let Self { writes, raft, quota, level, .. } = self;
        let appended = writes.append(term, raft, |place, before, growth| {
            let check = quota.check(before, growth).filter(|_| *level >= ALARMS)?;
            // No other is committed at this place: as a number it is unique.
            Some(command::encode(NO_ORIGIN, place, Operation::CheckQuota(check)))
        });
        if let Some((last, growth)) = appended {
            quota.appended(last, growth);
        }
    }

    /// What the state takes, and whether NOSPACE is raised. At a level at which that cannot be, whether puts are refused by the quota.
    pub fn usage(&self) -> Usage {
        let Usage { bytes, is_full } = self.quota.usage();
        let leads = self.raft.leadership().1 == Some(self.id);
        Usage { bytes, is_full: is_full || (self.level < ALARMS && leads && self.quota.turned_away) }
    }

    /// The smallest quota of the members, and whose it is, as far as this one knows: a leader has heard of all. None for no limit.
    pub fn smallest_quota(&self) -> Option<(u64, MemberId)> {
        self.quota.smallest()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: MemberId = MemberId(1);
    const OTHER: MemberId = MemberId(2);

    fn quota(own: Option<u64>, bytes: u64) -> Quota {
        Quota::new(ME, own, Usage { bytes, is_full: false })
    }

    #[test]
    fn the_smallest_quota_of_the_configuration_counts() {
        let members = |ids: &[MemberId]| ids.iter().copied().collect::<BTreeSet<_>>();
        let mut quota = quota(Some(100), 0);
        quota.told(OTHER, Some(50));
        quota.told(MemberId(9), Some(10));
        quota.configure(&members(&[ME, OTHER]));
        assert_eq!(quota.smallest(), Some((50, OTHER)));
        quota.told(OTHER, None);
        quota.configure(&members(&[ME, OTHER]));
        assert_eq!(quota.smallest(), Some((100, ME)));
        let mut unlimited = Quota::new(ME, None, Usage::default());
        unlimited.configure(&members(&[ME]));
        assert!(unlimited.smallest().is_none() && unlimited.fits(u64::MAX));
        unlimited.told(OTHER, Some(7));
        unlimited.configure(&members(&[ME, OTHER]));
        assert_eq!(unlimited.smallest(), Some((7, OTHER)));
    }

    #[test]
    fn what_is_under_way_counts_until_it_is_applied() {
        let mut quota = quota(Some(100), 50);
        assert!(quota.fits(49) && !quota.fits(50));
        quota.appended(5, 30);
        assert_eq!((quota.check(0, 19), quota.check(9, 10)), (None, None));
        assert_eq!(quota.check(9, 11), Some(CheckQuota { member: 1, quota: 100, growth: 11 }));
        assert_eq!(quota.check(99, 0), None, "it does not grow");
        quota.applied(4, Usage { bytes: 50, is_full: false });
        assert!(!quota.fits(20));
        quota.applied(5, Usage { bytes: 60, is_full: false });
        assert!(quota.fits(20));
        assert!(quota.applied(6, Usage { bytes: 60, is_full: true }), "the alarm is news");
        assert_eq!(quota.check(0, 90), None, "it is raised already");
    }

    #[test]
    fn what_is_admitted_counts_until_it_is_appended() {
        let mut quota = quota(Some(100), 50);
        assert!(quota.admit(40) && !quota.admit(40) && quota.admit(9));
        quota.hand_over();
        quota.appended(1, 49);
        assert!(!quota.admit(1));
    }
}
