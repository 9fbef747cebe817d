//! What goes wrong with applying: anything that takes time is legal at any time, and no election may come of it but
//! that of the one to whom a leader whose applier stands still has handed over.

use rand_chacha::ChaCha8Rng;

use super::Kind;
use crate::host::name;
use crate::schedule::logarithmic;
use crate::time::{MILLI, SECOND};
use crate::world::World;

impl World {
    pub(super) fn disturb_applying(&mut self, kind: Kind, random: &mut ChaCha8Rng) -> Option<String> {
        let id = self.victim(random)?;
        let (now, lasts) = (self.now(), logarithmic(random, 50 * MILLI, 12 * SECOND));
        let host = self.hosts.get_mut(&id)?;
        if kind == Kind::StallApplying {
            host.stall_applying(now, now + lasts);
            return Some(format!("{} for {} ms", name(id), lasts / MILLI));
        }
        let times = logarithmic(random, 2, 1000);
        host.pace.slower = (times, now + lasts);
        Some(format!("{} {times} times slower, for {} ms", name(id), lasts / MILLI))
    }
}
