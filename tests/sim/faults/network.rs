//! What goes wrong between members.

use quorate_raft::MemberId;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::Kind;
use crate::host::{name, names};
use crate::network::{Condition, Direction, Effect};
use crate::schedule::logarithmic;
use crate::time::{MILLI, SECOND};
use crate::world::{Event, World};

impl World {
    pub(super) fn disturb_network(&mut self, kind: Kind, random: &mut ChaCha8Rng) -> Option<String> {
        let lasts = logarithmic(random, 50 * MILLI, 15 * SECOND);
        let effect = match kind {
            Kind::LoseMessages => Effect::Lose(random.random_range(0.02..0.6)),
            Kind::DoubleMessages => Effect::Double(random.random_range(0.05..0.9)),
            Kind::ReorderMessages => Effect::Scramble(logarithmic(random, MILLI, 2 * SECOND)),
            Kind::DelayMessages => Effect::Delay(logarithmic(random, MILLI, SECOND)),
            _ => Effect::Cut,
        };
        let direction = match kind {
            Kind::CutOneWay if random.random() => Direction::In,
            Kind::CutOneWay => Direction::Out,
            _ => Direction::Both,
        };
        let group = self.group(kind, random)?;
        let words = format!("{} for {} ms, {direction:?}, {effect:?}", names(&group), lasts / MILLI);
        let now = self.now();
        self.network.set(Condition { since: now, until: now + lasts, group, direction, effect });
        Some(words)
    }

    /// What others answer to a leader is later and later, but never so much at once that it takes them for gone. Then nobody hears it any
    /// more: another is elected while the answers to what it said last come in. A lease that counted from those would still hold.
    pub(super) fn delay_answers(&mut self, random: &mut ChaCha8Rng) -> Option<String> {
        let id = self.leader()?;
        let (now, step, steps) =
            (self.now(), random.random_range(200..380) * MILLI, random.random_range(1..=3));
        let late = steps * step;
        let (cut, lasts) = (now + steps * SECOND + late, random.random_range(SECOND..3 * SECOND));
        let group = vec![id];
        for since in (0..steps).map(|number| now + number * SECOND) {
            let (until, group) = (cut + late, group.clone());
            let effect = Effect::Delay(step);
            self.network.set(Condition { since, until, group, direction: Direction::In, effect });
        }
        let (until, effect) = (cut + lasts, Effect::Cut);
        self.network.set(Condition { since: cut, until, group, direction: Direction::Out, effect });
        Some(format!("{}: by {} ms; its words for {} ms", name(id), late / MILLI, lasts / MILLI))
    }

    /// Those on one side.
    fn group(&self, kind: Kind, random: &mut ChaCha8Rng) -> Option<Vec<MemberId>> {
        let one = self.victim(random)?;
        if kind == Kind::Isolate || (kind == Kind::CutOneWay && random.random()) {
            return Some(vec![one]);
        }
        let others = self.hosts.keys().copied().filter(|id| *id != one);
        Some(others.filter(|_| random.random()).chain([one]).collect())
    }

    /// The connections of a member are reset: some of what it sends just now gets lost, and others see it.
    pub(super) fn break_connections(&mut self, random: &mut ChaCha8Rng) -> Option<String> {
        let one = self.victim(random)?;
        let others: Vec<MemberId> =
            self.hosts.keys().copied().filter(|id| *id != one && random.random()).collect();
        let until = self.now() + 2 * (self.plan.latency + self.plan.jitter);
        let effect = Effect::Lose(0.7);
        let since = self.now();
        self.network.set(Condition { since, until, group: vec![one], direction: Direction::Out, effect });
        let life = self.hosts[&one].life;
        for at in &others {
            self.agenda.after(self.plan.latency, Event::Disconnected { at: *at, peer: one, life });
        }
        Some(format!("{} to {}", name(one), names(&others)))
    }
}
