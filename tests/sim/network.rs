//! The network between members: how long a message takes, and what may happen to it.
//!
//! The transport promises that nothing is delivered twice ([`quorate_node::replica::Effects`]). The protocol's own messages stand
//! more, and are doubled here; commands on their way to a leader are not.

use std::collections::BTreeMap;

use quorate_node::replica::Message;
use quorate_raft::MemberId;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use crate::schedule::{Plan, stream};
use crate::time::Time;

/// What is wrong with some links for a while.
#[derive(Debug, Clone)]
pub(crate) struct Condition {
    pub(crate) since: Time,
    pub(crate) until: Time,
    /// Messages that cross the border of this group are affected.
    pub(crate) group: Vec<MemberId>,
    pub(crate) direction: Direction,
    pub(crate) effect: Effect,
}

/// Which way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    Out,
    In,
    Both,
}

/// What happens to a message.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Effect {
    /// Nothing goes through.
    Cut,
    /// It is lost with this probability.
    Lose(f64),
    /// It comes twice with this probability, if the protocol allows it.
    Double(f64),
    /// It takes up to this much longer, and others overtake it.
    Scramble(Time),
    /// It takes this much longer.
    Delay(Time),
}

#[derive(Debug)]
pub(crate) struct Network {
    seed: u64,
    latency: Time,
    jitter: Time,
    links: BTreeMap<(MemberId, MemberId), Link>,
    conditions: Vec<Condition>,
}

#[derive(Debug)]
struct Link {
    random: ChaCha8Rng,
    /// When the newest message arrives: the next one does not overtake it.
    last: Time,
}

impl Network {
    pub(crate) fn new(plan: &Plan) -> Self {
        let (latency, jitter) = (plan.latency, plan.jitter);
        Self { seed: plan.seed, latency, jitter, links: BTreeMap::new(), conditions: Vec::new() }
    }

    pub(crate) fn set(&mut self, condition: Condition) {
        self.conditions.push(condition);
    }

    pub(crate) fn heal(&mut self) {
        self.conditions.clear();
    }

    /// Whether nothing goes from one to the other.
    pub(crate) fn is_cut(&self, now: Time, from: MemberId, to: MemberId) -> bool {
        self.conditions.iter().any(|c| c.effect == Effect::Cut && c.holds(now) && c.affects(from, to))
    }

    /// When a message that is sent now arrives: never, once or twice.
    pub(crate) fn send(&mut self, now: Time, from: MemberId, message: &Message) -> Vec<Time> {
        let to = message.to();
        let number = from.0 << 32 | to.0;
        let link = self
            .links
            .entry((from, to))
            .or_insert_with(|| Link { random: stream(self.seed, "link", number), last: 0 });
        let mut arrives = now + self.latency + link.random.random_range(0..=self.jitter);
        let (mut copies, mut in_order) = (1, true);
        self.conditions.retain(|condition| condition.until > now);
        for condition in self.conditions.iter().filter(|c| c.holds(now) && c.affects(from, to)) {
            match condition.effect {
                Effect::Cut => copies = 0,
                Effect::Lose(probability) if link.random.random_bool(probability) => copies = 0,
                Effect::Double(probability) if link.random.random_bool(probability) => {
                    copies *= if matches!(message, Message::Raft(_)) { 2 } else { 1 };
                }
                Effect::Scramble(most) => {
                    arrives += link.random.random_range(0..=most);
                    in_order = false;
                }
                Effect::Delay(more) => arrives += more,
                Effect::Lose(_) | Effect::Double(_) => {}
            }
        }
        if copies == 0 {
            return Vec::new();
        }
        if in_order {
            arrives = arrives.max(link.last);
            link.last = arrives;
        }
        let mut times = vec![arrives];
        for _ in 1..copies {
            times.push(arrives + link.random.random_range(0..=4 * (self.latency + self.jitter)));
        }
        times
    }
}

impl Condition {
    fn holds(&self, now: Time) -> bool {
        (self.since..self.until).contains(&now)
    }

    fn affects(&self, from: MemberId, to: MemberId) -> bool {
        let (out, inward) = (self.group.contains(&from), self.group.contains(&to));
        match self.direction {
            Direction::Out => out && !inward,
            Direction::In => inward && !out,
            Direction::Both => out != inward,
        }
    }
}
