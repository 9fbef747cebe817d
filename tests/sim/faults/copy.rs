//! What goes wrong with copies of the state: anything, at any time. They are disposable.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::Kind;
use crate::disk::{Crash, Spoilt};
use crate::host::name;
use crate::schedule::logarithmic;
use crate::time::{MILLI, SECOND};
use crate::world::{Event, World};

impl World {
    pub(super) fn disturb_copy(&mut self, kind: Kind, random: &mut ChaCha8Rng) -> Option<String> {
        let id = self.victim(random)?;
        let engine = self.hosts.get(&id)?.engine.clone()?;
        let lasts = logarithmic(random, 20 * MILLI, 10 * SECOND);
        match kind {
            Kind::LoseCopy => engine.spoil(Spoilt::Gone),
            Kind::AgeCopy => engine.spoil(Spoilt::Older),
            Kind::FlipCopy => engine.spoil(Spoilt::Flipped),
            _ => {
                engine.fail(self.now() + lasts);
                return Some(format!("{} for {} ms", name(id), lasts / MILLI));
            }
        }
        // The next process sees it: mostly soon.
        if random.random_bool(0.8) {
            self.crash(id, if random.random() { Crash::Killed } else { Crash::PowerCut });
            self.agenda.after(logarithmic(random, 5 * MILLI, 3 * SECOND), Event::Start(id));
        }
        Some(name(id))
    }
}
