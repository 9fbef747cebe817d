//! No lease ends before its time is over, counted from when its client asked for what was acknowledged last; none is said to have ended that has
//! not, and one that has ended is never heard of again.

use std::collections::{BTreeMap, BTreeSet};

use quorate_node::leases::{Change, Grant};

#[derive(Debug, Default)]
pub(crate) struct Leases {
    /// By the number of the grant.
    grants: BTreeMap<u64, Grant>,
    /// The newest grant of an ID.
    newest: BTreeMap<i64, u64>,
    /// Until when each has to live at least.
    lives: BTreeMap<u64, u64>,
    /// When each was seen to end first.
    ended: BTreeMap<u64, u64>,
    /// When a client was told first that it has ended.
    told: BTreeMap<u64, u64>,
    /// Those whose end a client has asked for.
    revoked: BTreeSet<u64>,
}

impl Leases {
    /// A member's state has changed so.
    pub(crate) fn changed(&mut self, now: u64, change: Change) {
        match change {
            Change::Granted(grant) => {
                let known = *self.grants.entry(grant.number).or_insert(grant);
                assert_eq!(known, grant, "LEASES: members hold different grants of the same number");
                self.newest
                    .entry(grant.id)
                    .and_modify(|newest| *newest = grant.number.max(*newest))
                    .or_insert(grant.number);
            }
            Change::Ended(grant) => {
                if let std::collections::btree_map::Entry::Vacant(entry) = self.ended.entry(grant.number) {
                    entry.insert(now);
                    self.may_have_ended(now, grant.number);
                }
            }
            Change::Replaced => {}
        }
    }

    /// The newest grant of an ID.
    pub(crate) fn newest(&self, id: i64) -> Option<u64> {
        self.newest.get(&id).copied()
    }

    /// What a client asked for at `asked` is acknowledged: it has its lease for `time` from then on.
    pub(crate) fn acknowledged(&mut self, number: u64, asked: u64, time: u64) {
        let until = asked + time;
        let lives = self.lives.entry(number).or_default();
        *lives = until.max(*lives);
        if let Some(ended) = self.ended.get(&number) {
            self.may_have_ended(*ended, number);
        }
    }

    /// A client is told at `now` that it has ended.
    pub(crate) fn told_ended(&mut self, now: u64, number: u64) {
        self.may_have_ended(now, number);
        self.told.entry(number).or_insert(now);
    }

    /// A client is told that it lives, which has asked at `asked`.
    pub(crate) fn told_alive(&self, number: u64, asked: u64) {
        assert!(
            self.told.get(&number).is_none_or(|told| asked <= *told) || self.revoked.contains(&number),
            "LEASES: the grant {:?} lives, and was said to have ended before that was asked",
            self.grants.get(&number)
        );
    }

    /// A client asks that it ends.
    pub(crate) fn revoked(&mut self, number: u64) {
        self.revoked.insert(number);
    }

    /// A client is told that it has ended, or it has.
    pub(crate) fn may_have_ended(&self, now: u64, number: u64) {
        let until = self.lives.get(&number).copied().unwrap_or(0);
        assert!(
            now >= until || self.revoked.contains(&number),
            "LEASES: the grant {:?} ended at {now}, and was to live until {until}",
            self.grants.get(&number)
        );
    }
}
