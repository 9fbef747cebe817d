//! What goes wrong with processes and machines.

use rand_chacha::ChaCha8Rng;

use super::Kind;
use crate::disk::Crash;
use crate::host::name;
use crate::schedule::logarithmic;
use crate::time::{MILLI, SECOND};
use crate::world::{Event, World};

impl World {
    pub(super) fn strike_process(&mut self, kind: Kind, random: &mut ChaCha8Rng) -> Option<String> {
        let id = self.victim(random)?;
        let down = logarithmic(random, 5 * MILLI, 10 * SECOND);
        let until = self.now() + down;
        match kind {
            Kind::KillWriting => {
                self.hosts.get_mut(&id)?.killed_when_it_writes = true;
                return Some(name(id));
            }
            Kind::Pause if self.is_up(id) => {
                let host = self.hosts.get_mut(&id)?;
                host.paused_until = host.paused_until.max(until);
            }
            Kind::Pause => return None,
            Kind::CutPower => {
                self.crash(id, Crash::PowerCut);
                self.agenda.at(until, Event::Start(id));
            }
            _ => {
                self.crash(id, Crash::Killed).then_some(())?;
                self.hosts.get_mut(&id)?.killed_when_it_starts = kind == Kind::KillStarting;
                self.agenda.at(until, Event::Start(id));
            }
        }
        Some(format!("{} for {} ms", name(id), down / MILLI))
    }

    /// Everybody goes down in one moment, and comes back one by one.
    pub(super) fn strike_all(&mut self, kind: Kind, random: &mut ChaCha8Rng) -> String {
        let crash = if kind == Kind::KillAll { Crash::Killed } else { Crash::PowerCut };
        let all: Vec<_> = self.hosts.keys().copied().collect();
        for id in all {
            self.crash(id, crash);
            let down = logarithmic(random, 5 * MILLI, 3 * SECOND);
            self.agenda.after(down, Event::Start(id));
        }
        "and come back one by one".into()
    }
}
