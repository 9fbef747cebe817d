//! What goes wrong with clocks. Without leases nothing relies on them for safety: any drift and any jump is legal. With leases they
//! keep what [`quorate_raft::Lease`] asks.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::Kind;
use crate::host::name;
use crate::schedule::logarithmic;
use crate::time::{MILLI, SECOND};
use crate::world::World;

impl World {
    pub(super) fn disturb_clock(&mut self, kind: Kind, random: &mut ChaCha8Rng) -> Option<String> {
        let id = self.victim(random)?;
        if kind == Kind::Jump && self.plan.leases {
            return None;
        }
        if kind == Kind::Jump {
            let ticks = logarithmic(random, 1, 60);
            let process = self.hosts.get_mut(&id)?.process_mut()?;
            for _ in 0..ticks {
                process.replica.tick();
            }
            self.wake(id);
            return Some(format!("{} by {ticks} ticks", name(id)));
        }
        let drifts = if self.plan.leases { -280..280 } else { -800..3000 };
        let (drift, lasts) = (random.random_range(drifts), logarithmic(random, 100 * MILLI, 20 * SECOND));
        let until = self.now() + lasts;
        self.hosts.get_mut(&id)?.clock.drift(drift, until);
        Some(format!("{}: a tick takes {} % for {} ms", name(id), 100 + drift / 10, lasts / MILLI))
    }
}
