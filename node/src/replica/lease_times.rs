//! When leases end. The state knows which there are ([`crate::leases`]), the leader alone how long it is since each was heard of.
//!
//! A lease never ends early. The leader counts from the moment that it has applied the grant, or has found itself confirmed after a renewal has come;
//! both are later than what its client counts from, which is when it asked. A new leader knows nothing of renewals: from when it has applied all
//! that earlier leaders have committed it gives each lease its whole time again. Time is ticks, and a process that stands still counts none.
//! That a lease's time is over is proposed as a command that names the very grant, so it does nothing to a later one with the same ID. From
//! then on the lease cannot be renewed; whoever wants to is told once it is known whether it has ended.
//!
//! It ends soon after it may: leases wait in the order in which they end, by a time that is never too late; one that was renewed since, or was given
//! its time again, is put back when it comes to the front. So neither a renewal nor a new leader costs anything there.

use std::collections::{BTreeMap, BTreeSet};

use quorate_raft::Term;

use crate::leases::{Change, Grant};

/// So many are looked at in a tick.
const LOOKED_AT: usize = 1024;

/// The ends of so many are proposed and not applied yet: what hangs on a lease may be much.
const MOST_ENDING: usize = 256;

/// What is left of a lease, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TimeLeft {
    /// For how long it lives when nothing is heard. 0 if there is no such lease.
    pub ttl: i64,
    /// How much of that is left. 0 also while its end is proposed.
    pub left: i64,
}

/// What becomes of a renewal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Renewal {
    /// It lives on, for so many seconds; 0 if there is no such lease.
    Done(i64),
    /// Its end is proposed. That may still not come.
    Ending,
}

/// All leases, as far as their times are concerned.
#[derive(Debug)]
pub(super) struct LeaseTimes {
    ticks_per_second: u64,
    known: BTreeMap<i64, Known>,
    /// Those whose end is not proposed, each by a tick at or before which it ends.
    queue: BTreeSet<(u64, i64)>,
    /// Those whose end is proposed, in the term that this member leads.
    ending: BTreeSet<i64>,
    /// The term that it leads, and the tick at which it had applied all that came before: none ends before its whole time has passed from there.
    leads: Option<(Term, u64)>,
}

#[derive(Debug)]
struct Known {
    grant: Grant,
    /// The tick of its last renewal here, or of its grant.
    renewed: u64,
    /// Its place in the queue.
    queued: u64,
}

impl LeaseTimes {
    /// Of leases that there are when the process starts.
    pub(super) fn new(ticks_per_second: u64, leases: impl IntoIterator<Item = Grant>) -> Self {
        let mut times = Self {
            ticks_per_second,
            known: BTreeMap::new(),
            queue: BTreeSet::new(),
            ending: BTreeSet::new(),
            leads: None,
        };
        times.changed(leases.into_iter().map(Change::Granted), 0);
        times
    }

    /// What has become of leases in the state.
    pub(super) fn changed(&mut self, changes: impl IntoIterator<Item = Change>, now: u64) {
        for change in changes {
            match change {
                Change::Granted(grant) => {
                    self.forget(grant.id);
                    self.known.insert(grant.id, Known { grant, renewed: now, queued: 0 });
                    self.enqueue(grant.id, now.saturating_add(self.ticks(grant.ttl)));
                }
                Change::Ended(grant) => self.forget(grant.id),
                Change::Replaced => {
                    (self.known, self.queue, self.ending) = Default::default();
                }
            }
        }
    }

    /// This member leads in `term`, and has applied an entry of it; or it does not.
    pub(super) fn leads(&mut self, term: Option<Term>, now: u64) {
        if self.leads.map(|(term, _)| term) == term {
            return;
        }
        self.leads = term.map(|term| (term, now));
        // What was proposed in another term has either been applied by now, or never will be.
        for id in std::mem::take(&mut self.ending) {
            self.enqueue(id, now);
        }
    }

    /// Whether it is worth to look for leases whose time is over.
    pub(super) fn may_be_due(&self, now: u64) -> bool {
        self.leads.is_some() && self.queue.first().is_some_and(|(tick, _)| *tick <= now)
    }

    /// The leases whose time is over, but for those whose renewal `is_asked_for`: their ends are to be proposed. Some of them, if they are
    /// many. None unless this member leads.
    pub(super) fn take_due(&mut self, now: u64, is_asked_for: impl Fn(i64) -> bool) -> Vec<Grant> {
        let Some((_, since)) = self.leads else { return Vec::new() };
        let mut due = Vec::new();
        for _ in 0..LOOKED_AT {
            if self.ending.len() >= MOST_ENDING {
                break;
            }
            let Some((_, id)) = self.queue.pop_first_if_due(now) else { break };
            let Some(known) = self.known.get(&id) else { continue };
            let ends = known.renewed.max(since).saturating_add(self.ticks(known.grant.ttl));
            if ends > now {
                self.enqueue(id, ends);
            } else if is_asked_for(id) {
                // What is known of it is not the newest: its client is about to be answered.
                self.enqueue(id, now + 1);
            } else {
                due.push(known.grant);
                self.ending.insert(id);
            }
        }
        due
    }

    /// Whether this member leads, and the lease lives for certain, whatever is not applied yet: nobody has proposed its end but a client, maybe.
    pub(super) fn lives(&self, id: i64) -> bool {
        self.leads.is_some() && self.known.contains_key(&id) && !self.ending.contains(&id)
    }

    /// The ends of these could not be proposed.
    pub(super) fn put_back(&mut self, due: &[Grant], now: u64) {
        for grant in due {
            if self.ending.remove(&grant.id) {
                self.enqueue(grant.id, now + 1);
            }
        }
    }

    /// A client that was heard of it, of a leader that is confirmed since.
    pub(super) fn renew(&mut self, id: i64, now: u64) -> Renewal {
        if self.ending.contains(&id) {
            return Renewal::Ending;
        }
        Renewal::Done(self.known.get_mut(&id).map_or(0, |known| {
            known.renewed = now;
            known.grant.ttl
        }))
    }

    /// What is left of it.
    pub(super) fn left(&self, id: i64, now: u64) -> TimeLeft {
        let Some(known) = self.known.get(&id) else { return TimeLeft::default() };
        // It is there until that has come.
        if self.ending.contains(&id) {
            return TimeLeft { ttl: known.grant.ttl, left: 0 };
        }
        let since = self.leads.map_or(0, |(_, since)| since).max(known.renewed);
        let left = since.saturating_add(self.ticks(known.grant.ttl)).saturating_sub(now);
        let left = i64::try_from(left / self.ticks_per_second).unwrap_or(i64::MAX);
        TimeLeft { ttl: known.grant.ttl, left }
    }

    fn ticks(&self, seconds: i64) -> u64 {
        u64::try_from(seconds).unwrap_or(0).saturating_mul(self.ticks_per_second)
    }

    fn enqueue(&mut self, id: i64, tick: u64) {
        if let Some(known) = self.known.get_mut(&id) {
            known.queued = tick;
            self.queue.insert((tick, id));
        }
    }

    fn forget(&mut self, id: i64) {
        if let Some(known) = self.known.remove(&id) {
            self.queue.remove(&(known.queued, id));
            self.ending.remove(&id);
        }
    }
}

/// The front of a queue, if its time has come.
trait Due {
    fn pop_first_if_due(&mut self, now: u64) -> Option<(u64, i64)>;
}

impl Due for BTreeSet<(u64, i64)> {
    fn pop_first_if_due(&mut self, now: u64) -> Option<(u64, i64)> {
        self.first().filter(|(tick, _)| *tick <= now)?;
        self.pop_first()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn never(_: i64) -> bool {
        false
    }

    const FIRST: Grant = Grant { id: 1, ttl: 2, number: 1 };

    /// Leads since tick 0, with ten ticks a second.
    fn leading() -> LeaseTimes {
        let mut times = LeaseTimes::new(10, [FIRST]);
        times.leads(Some(5), 0);
        times
    }

    #[test]
    fn a_lease_ends_when_its_time_is_over_and_is_proposed_once() {
        let mut times = leading();
        assert_eq!(times.left(1, 5), TimeLeft { ttl: 2, left: 1 });
        assert_eq!(times.take_due(19, never), []);
        assert_eq!(times.take_due(20, never), [FIRST]);
        assert_eq!((times.take_due(21, never), times.left(1, 21)), (vec![], TimeLeft { ttl: 2, left: 0 }));
        assert_eq!(times.renew(1, 21), Renewal::Ending);
        times.changed([Change::Ended(FIRST)], 22);
        assert_eq!(times.renew(1, 22), Renewal::Done(0));
    }

    #[test]
    fn a_renewal_gives_it_its_whole_time_again() {
        let mut times = leading();
        assert_eq!(times.renew(1, 19), Renewal::Done(2));
        assert_eq!(times.take_due(38, never), []);
        assert_eq!(times.take_due(39, never), [FIRST]);
    }

    #[test]
    fn a_new_leader_gives_it_its_whole_time_again() {
        let mut times = LeaseTimes::new(10, [FIRST]);
        assert_eq!(times.take_due(100, never), [], "a follower ends none");
        times.leads(Some(5), 100);
        assert_eq!((times.left(1, 100), times.take_due(119, never)), (TimeLeft { ttl: 2, left: 2 }, vec![]));
        times.leads(Some(5), 119);
        assert_eq!(times.take_due(120, never), [FIRST]);
    }

    #[test]
    fn an_end_that_was_lost_with_its_term_comes_again_after_the_whole_time() {
        let mut times = leading();
        assert_eq!(times.take_due(20, never), [FIRST]);
        times.leads(None, 21);
        times.leads(Some(6), 30);
        assert_eq!(times.renew(1, 31), Renewal::Done(2));
        assert_eq!((times.take_due(50, never), times.take_due(51, never)), (vec![], vec![FIRST]));
    }

    #[test]
    fn another_grant_of_the_same_id_has_a_time_of_its_own() {
        let mut times = leading();
        assert_eq!(times.take_due(20, never), [FIRST]);
        let second = Grant { number: 2, ..FIRST };
        times.changed([Change::Ended(FIRST), Change::Granted(second)], 25);
        assert_eq!((times.take_due(44, never), times.take_due(45, never)), (vec![], vec![second]));
    }

    #[test]
    fn a_lease_whose_renewal_has_come_is_not_ended_before_that_is_answered() {
        let mut times = leading();
        assert_eq!(times.take_due(25, |id| id == 1), []);
        assert_eq!(times.renew(1, 26), Renewal::Done(2));
        assert_eq!((times.take_due(45, never), times.take_due(46, never)), (vec![], vec![FIRST]));
    }

    #[test]
    fn an_end_that_cannot_be_proposed_is_tried_again_and_gives_no_other_lease_more_time() {
        let second = Grant { id: 2, ttl: 3, number: 2 };
        let mut times = LeaseTimes::new(10, [FIRST, second]);
        times.leads(Some(5), 0);
        let due = times.take_due(20, never);
        times.put_back(&due, 20);
        assert!(times.lives(1) && !times.lives(9));
        assert_eq!((times.take_due(21, never), times.take_due(30, never)), (vec![FIRST], vec![second]));
    }

    #[test]
    fn many_that_end_at_once_do_so_a_few_at_a_time() {
        let many =
            (1..=3 * MOST_ENDING as u64).map(|number| Grant { id: number.cast_signed(), ttl: 2, number });
        let mut times = LeaseTimes::new(10, many);
        times.leads(Some(5), 0);
        let due = times.take_due(20, never);
        assert_eq!((due.len(), times.take_due(20, never).len()), (MOST_ENDING, 0));
        times.changed(due.into_iter().take(9).map(Change::Ended), 21);
        assert_eq!(times.take_due(21, never).len(), 9);
    }

    #[test]
    fn a_time_without_end_is_none() {
        let forever = Grant { ttl: i64::MAX, ..FIRST };
        let mut times = LeaseTimes::new(50, [forever]);
        times.leads(Some(5), u64::MAX / 2);
        assert_eq!(times.take_due(u64::MAX - 1, never), []);
        assert!(times.left(1, u64::MAX - 1).ttl > 0);
    }
}
