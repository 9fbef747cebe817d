//! Upgrades, and the way back: members that support the first level only, and the raise of the cluster's level.
//!
//! All of it is legal at any time. A member that was put back to the older version when the cluster has left that behind does not start, or
//! ends; whoever has done that upgrades it again.

use quorate_api::etcdserverpb::AlarmType;
use quorate_node::level::{ALARMS, FIRST, Levels};
use quorate_node::replica::RaiseError;
use quorate_raft::MemberId;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::Kind;
use crate::clients;
use crate::disk::Crash;
use crate::host::name;
use crate::schedule::logarithmic;
use crate::time::{MILLI, SECOND};
use crate::world::{Event, World};

/// What a build of the first level supports.
pub(crate) const OLD: Levels = Levels { oldest: FIRST, newest: FIRST };

impl World {
    pub(super) fn change_level(&mut self, kind: Kind, random: &mut ChaCha8Rng) -> Option<String> {
        match kind {
            Kind::Upgrade => self.restart_as(Levels::ALL, random),
            Kind::Downgrade => self.restart_as(OLD, random),
            Kind::RaiseLevel => self.raise_level(random),
            _ => self.alarm(random),
        }
    }

    /// A member goes down, and comes back as another version.
    fn restart_as(&mut self, levels: Levels, random: &mut ChaCha8Rng) -> Option<String> {
        let others: Vec<MemberId> =
            self.members_hosts().filter(|host| host.levels != levels).map(|host| host.id).collect();
        let id = *others.get(random.random_range(0..others.len().max(1)))?;
        let host = self.hosts.get_mut(&id)?;
        host.levels = levels;
        self.coverage.count(if levels == OLD {
            "members put back to the older version"
        } else {
            "members upgraded"
        });
        self.crash(id, if random.random() { Crash::Killed } else { Crash::PowerCut });
        self.agenda.after(logarithmic(random, 5 * MILLI, 3 * SECOND), Event::Start(id));
        Some(format!("{} supports {levels}", name(id)))
    }

    fn raise_level(&mut self, random: &mut ChaCha8Rng) -> Option<String> {
        let id = self.would_be_leader(random)?;
        let process = self.hosts.get_mut(&id)?.process_mut()?;
        let before = process.replica.level();
        let raised = process.replica.raise_level(None);
        let words = format!("{}: {raised:?}", name(id));
        self.coverage.count(match raised {
            Ok(level) if level > before => "raises of the level proposed",
            Ok(_) => return None,
            Err(RaiseError::NotNow(_)) => "raises of the level refused: does not lead",
            Err(RaiseError::Unsupported { .. }) => {
                "raises of the level refused: not every member supports it"
            }
        });
        self.wake(id);
        Some(words)
    }

    /// An alarm is raised or disarmed: what only the newer level knows.
    fn alarm(&mut self, random: &mut ChaCha8Rng) -> Option<String> {
        let id = self.victim(random)?;
        let (member, raises) = (random.random_range(1..4), random.random_bool(0.7));
        // Mostly one that stops nothing.
        let alarm = if random.random_bool(0.9) { AlarmType::Corrupt } else { AlarmType::Nospace };
        let process = self.hosts.get_mut(&id)?.process_mut()?;
        let number = process.next_number;
        process.next_number += 1;
        process.alarms.insert(number);
        clients::alarm(&mut process.replica, id, number, (member, alarm, raises));
        self.wake(id);
        Some(format!("at {}", name(id)))
    }

    /// A process must not go on: what comes next is of a level that it does not support. It is started again as the newer version.
    pub(crate) fn lacks_level(&mut self, id: MemberId, what: &str) {
        self.say(|| format!("{} is too old: {what}", name(id)));
        let host = self.hosts.get_mut(&id).expect("a member");
        assert_eq!(host.levels, OLD, "{} is of the newest version: {what}", name(id));
        host.levels = Levels::ALL;
        self.crash(id, Crash::Killed);
        self.start_later(id);
    }

    /// What a member has applied is of a level that it supports.
    pub(crate) fn check_level(&self, id: MemberId) {
        let host = &self.hosts[&id];
        let Some(process) = host.process() else { return };
        let (level, alarms) = {
            let state = process.applier.store().read();
            (state.level(), state.alarms())
        };
        let supported = host.levels;
        assert!(
            supported.contains(level),
            "LEVELS: {} supports {supported}, and its state has level {level}",
            name(id)
        );
        assert!(level >= ALARMS || alarms.is_empty(), "LEVELS: {} has alarms at level {level}", name(id));
    }
}
