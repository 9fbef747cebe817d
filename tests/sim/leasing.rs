//! Clients that hold leases: they have them granted, keep them alive for a while, hang keys on them, and let them end, or end them.
//!
//! An ID is used again once its holder was told that the lease has ended: then what was proposed to end the one must do nothing to the other.

use quorate_api::etcdserverpb::{LeaseGrantRequest, LeaseRevokeRequest, PutRequest};
use quorate_api::log::command::Operation;
use quorate_node::kv::KvError;
use quorate_node::replica::{Client, Command, Outcome, Question};
use quorate_raft::MemberId;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use crate::schedule::{Plan, stream};
use crate::time::{SECOND, Time};
use crate::world::{Event, World};

/// How many there are, where there are some.
const HOLDERS: u64 = 3;

/// How long one waits for an answer.
const PATIENCE: Time = 2 * SECOND;

/// The longest that a lease lives when nothing is heard, in seconds.
const MOST_TTL: i64 = 4;

/// What the keys that hang on leases begin with.
const PREFIX: &str = "lease-";

/// In so many thousandths of its time a lease may end: a clock may be fast by that.
const FASTEST: u64 = 700;

/// What is asked of a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    Grant,
    Renew,
    /// How much is left.
    Look,
    Hang,
    Revoke,
}

/// A request of a holder.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LeaseAsked {
    holder: usize,
    token: u64,
    id: i64,
    ttl: i64,
    wish: Wish,
    /// The grant that is meant; none of one that is to be.
    grant: Option<u64>,
    asked: Time,
    /// The member is not the leader.
    by_other: bool,
}

/// What a holder is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LeaseReply {
    Done,
    /// There is no such lease.
    Ended,
    /// Nobody knows.
    Unknown,
}

#[derive(Debug)]
pub(crate) struct Holders {
    all: Vec<Holder>,
    ids: i64,
    stopped: bool,
}

#[derive(Debug)]
struct Holder {
    random: ChaCha8Rng,
    /// Counts what it does: what is about something earlier is late.
    token: u64,
    id: i64,
    ttl: i64,
    /// The grant that it holds, as far as it knows.
    grant: Option<u64>,
}

impl Holders {
    pub(crate) fn new(plan: &Plan) -> Self {
        let holder = |number| Holder {
            random: stream(plan.seed, "holder", number),
            token: 0,
            id: number.cast_signed() + 1,
            ttl: 1,
            grant: None,
        };
        let all = if plan.leasing { (0..HOLDERS).map(holder).collect() } else { Vec::new() };
        Self { all, ids: HOLDERS.cast_signed(), stopped: false }
    }

    pub(crate) fn count(&self) -> usize {
        self.all.len()
    }

    /// From now on they do nothing more.
    pub(crate) fn stop(&mut self) {
        self.stopped = true;
    }
}

impl Holder {
    fn wish(&mut self) -> Wish {
        if self.grant.is_none() {
            self.ttl = self.random.random_range(1..=MOST_TTL);
            return Wish::Grant;
        }
        match self.random.random_range(0..20) {
            0..12 => Wish::Renew,
            12..15 => Wish::Hang,
            15..18 => Wish::Look,
            _ => Wish::Revoke,
        }
    }

    /// How long it rests: mostly so short that its lease lives.
    fn rest(&mut self) -> Time {
        let time = self.ttl.unsigned_abs() * SECOND;
        let lets_it_end = self.random.random_range(0..8) == 0;
        if lets_it_end { time * 3 / 2 } else { self.random.random_range(0..time / 2) }
    }
}

impl World {
    /// A holder does what it does next; something under way has taken too long.
    pub(crate) fn on_holder(&mut self, holder: usize, token: u64) {
        if self.holders.all[holder].token != token || self.holders.stopped {
            return;
        }
        let members: Vec<MemberId> =
            self.members_hosts().filter(|host| !host.lost).map(|host| host.id).collect();
        let (leader, asked, latency) = (self.leader(), self.now(), self.plan.latency);
        let one = &mut self.holders.all[holder];
        one.token += 1;
        let wish = one.wish();
        let at = members[one.random.random_range(0..members.len())];
        let Holder { token, id, ttl, grant, .. } = *one;
        if wish == Wish::Revoke
            && let Some(grant) = grant
        {
            self.invariants.leases.revoked(grant);
        }
        let by_other = leader != Some(at);
        let asked = LeaseAsked { holder, token, id, ttl, wish, grant, asked, by_other };
        self.agenda.after(latency, Event::AskLease(asked, at));
        self.agenda.after(PATIENCE, Event::LeaseAnswer(asked, LeaseReply::Unknown));
    }

    pub(crate) fn on_lease_asked(&mut self, asked: LeaseAsked, at: MemberId) {
        let latency = self.plan.latency;
        let Some(process) = self.hosts.get_mut(&at).and_then(|host| host.process_mut()) else {
            return self.agenda.after(latency, Event::LeaseAnswer(asked, LeaseReply::Unknown));
        };
        let number = process.next_number;
        process.next_number += 1;
        let LeaseAsked { holder, id, ttl, wish, .. } = asked;
        let command = |operation| vec![Command::new(at.0, number, operation)];
        let client = Client::default();
        match wish {
            Wish::Grant => {
                process.replica.write(client, command(Operation::LeaseGrant(LeaseGrantRequest { ttl, id })));
            }
            Wish::Revoke => {
                process.replica.write(client, command(Operation::LeaseRevoke(LeaseRevokeRequest { id })));
            }
            Wish::Hang => {
                let key = format!("{PREFIX}{holder}-{}", number % 3).into();
                let put = PutRequest { key, value: "held".into(), lease: id, ..PutRequest::default() };
                process.replica.write(client, command(Operation::Put(put)));
            }
            Wish::Renew | Wish::Look => {
                let renews = wish == Wish::Renew;
                process.replica.ask(client, vec![Question { number, id, renews }]);
            }
        }
        process.leasing.insert(number, asked);
        self.wake(at);
    }

    /// A member answers.
    pub(crate) fn lease_answered(&mut self, asked: LeaseAsked, outcome: &Outcome) {
        let now = self.now();
        let reply = match outcome {
            Outcome::Applied(Ok(_)) => LeaseReply::Done,
            Outcome::Applied(Err(KvError::LeaseNotFound)) => LeaseReply::Ended,
            Outcome::Lease(Ok(time)) if time.ttl == 0 => LeaseReply::Ended,
            Outcome::Lease(Ok(time)) => {
                assert!(time.left <= time.ttl, "LEASES: {time:?} of the lease {}", asked.id);
                LeaseReply::Done
            }
            _ => LeaseReply::Unknown,
        };
        // Nobody else knows the ID: the newest grant of it is the holder's.
        let newest = self.invariants.leases.newest(asked.id);
        let grant = asked.grant.or(newest);
        // An answer that comes late may be about a later grant.
        if let Some(grant) = grant.filter(|grant| Some(*grant) == newest) {
            if reply == LeaseReply::Done && asked.wish != Wish::Revoke {
                self.invariants.leases.told_alive(grant, asked.asked);
            }
            let time = asked.ttl.unsigned_abs() * SECOND * FASTEST / 1000;
            match reply {
                LeaseReply::Done if matches!(asked.wish, Wish::Grant | Wish::Renew) => {
                    self.invariants.leases.acknowledged(grant, asked.asked, time);
                }
                LeaseReply::Ended => self.invariants.leases.told_ended(now, grant),
                LeaseReply::Done | LeaseReply::Unknown => {}
            }
        }
        self.count_lease(&asked, reply);
        let asked = LeaseAsked { grant, ..asked };
        self.agenda.after(self.plan.latency, Event::LeaseAnswer(asked, reply));
    }

    fn count_lease(&mut self, asked: &LeaseAsked, reply: LeaseReply) {
        self.coverage.count(match (asked.wish, reply) {
            (Wish::Grant, LeaseReply::Done) => "leases granted",
            (Wish::Renew, LeaseReply::Done) if asked.by_other => {
                "leases renewed through another than the leader"
            }
            (Wish::Renew, LeaseReply::Done) => "leases renewed",
            (Wish::Revoke, LeaseReply::Done) => "leases revoked",
            (Wish::Hang, LeaseReply::Done) => "keys hung on leases",
            (Wish::Hang, LeaseReply::Ended) => "keys not hung on a lease that has ended",
            (_, LeaseReply::Ended) => "leases that were told to have ended",
            (_, LeaseReply::Unknown) => "questions of leases given up",
            (Wish::Look, LeaseReply::Done) => return,
        });
    }

    pub(crate) fn on_lease_answer(&mut self, asked: &LeaseAsked, reply: LeaseReply) {
        let one = &mut self.holders.all[asked.holder];
        if one.token != asked.token {
            return;
        }
        one.token += 1;
        match (asked.wish, reply) {
            (Wish::Grant, LeaseReply::Done) => one.grant = asked.grant,
            (Wish::Revoke, LeaseReply::Done) | (_, LeaseReply::Ended) => one.grant = None,
            // It may be granted, or be gone: that ID is not used again.
            (Wish::Grant | Wish::Revoke, LeaseReply::Unknown) => {
                one.grant = None;
                self.holders.ids += 1;
                one.id = self.holders.ids;
            }
            (_, LeaseReply::Done | LeaseReply::Unknown) => {}
        }
        let (rest, token) = (one.rest(), one.token);
        self.agenda.after(rest, Event::Holder(asked.holder, token));
    }

    /// Every lease has ended, and what hung on it is gone.
    pub(crate) fn has_no_leases(&self) -> Result<(), String> {
        let members = self.members()?;
        for host in self.members_hosts() {
            let Some(process) = host.process() else { continue };
            let store = process.applier.store().read();
            let left: Vec<_> = store.leases().iter_from(i64::MIN).collect();
            if host.differs || !members.contains(&host.id) {
                continue;
            }
            if !left.is_empty() {
                return Err(format!("the leases {left:?} of {} have not ended", host.id));
            }
            let range = quorate_api::etcdserverpb::RangeRequest {
                key: PREFIX.into(),
                range_end: "lease.".into(),
                ..Default::default()
            };
            let kept = store.range(&range).map_or(0, |kept| kept.count);
            if kept > 0 {
                return Err(format!("{} has {kept} keys of leases that have ended", host.id));
            }
        }
        Ok(())
    }
}
