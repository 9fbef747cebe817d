//! How processes begin and end.

use quorate_node::snapshots::SnapshotError;
use quorate_node::storage::{OpenError, WalError};
use quorate_raft::MemberId;
use rand::RngExt;

use crate::disk::Crash;
use crate::host::{Process, Stage, StartError, name};
use crate::time::{MILLI, SECOND};
use crate::world::{Event, World};

impl World {
    /// A process is started, and reads its disk.
    pub(crate) fn start(&mut self, id: MemberId) {
        let (now, plan) = (self.now(), &self.plan);
        let host = self.hosts.get_mut(&id).expect("a member");
        if host.lost || !matches!(host.stage, Stage::Down) {
            return;
        }
        host.life += 1;
        host.paused_until = 0;
        host.disk.begin(now);
        let opened = host.open(plan);
        host.stage = Stage::Starting(Box::new(opened));
        let ends = host.disk.ends();
        self.agenda.at(ends, Event::DiskDone(id, host.life));
        if std::mem::take(&mut host.killed_when_it_starts) {
            let moment = host.random.random_range(now..=ends);
            let crash = if host.random.random() { Crash::Killed } else { Crash::PowerCut };
            self.agenda.at(moment, Event::Kill(id, host.life, crash));
        }
    }

    /// A process has read its disk.
    pub(crate) fn started(&mut self, id: MemberId) {
        let host = self.hosts.get_mut(&id).expect("a member");
        let Stage::Starting(opened) = std::mem::replace(&mut host.stage, Stage::Down) else {
            unreachable!("it was starting")
        };
        match *opened {
            Ok(opened) => {
                if opened.recovered.uncertain_tail {
                    self.coverage.count("torn tails cut");
                }
                if host.flipped {
                    self.coverage.count("starts on a flipped bit that did no harm");
                }
                let damaged = host.flipped;
                let (process, restored) = host.process_on(&self.plan, opened);
                let (life, tick) = (host.life, host.clock.tick(self.agenda.now()));
                let tick = host.random.random_range(0..tick);
                host.stage = Stage::Up(Box::new(process));
                host.ticked = self.agenda.now();
                self.agenda.after(tick, Event::Tick(id, life));
                self.agenda.after(5 * MILLI, Event::DiskIdle(id, life));
                self.invariants.started(id, &restored, damaged);
                if restored.lost.is_some() {
                    self.coverage.count("starts on a damaged log that others repair");
                }
                if restored.snapshot.is_some() {
                    self.coverage.count("processes started from a snapshot");
                }
                self.coverage.count("processes started");
                self.say(|| {
                    format!(
                        "{} starts with {} entries, {:?}",
                        name(id),
                        restored.entries.len(),
                        restored.hard_state
                    )
                });
                self.wake(id);
            }
            Err(error) => self.start_failed(id, &error),
        }
    }

    /// A process cannot use its disk: if that may pass, it is tried again.
    fn start_failed(&mut self, id: MemberId, error: &StartError) {
        self.say(|| format!("{} does not start: {error:?}", name(id)));
        let host = self.hosts.get_mut(&id).expect("a member");
        let error = match error {
            StartError::Log(error) => error,
            StartError::Snapshots(SnapshotError::Io { source, .. }) => {
                self.coverage.count(match source.kind() {
                    std::io::ErrorKind::StorageFull => "starts in vain: disk full",
                    _ => "starts in vain: device errors",
                });
                return self.start_later(id);
            }
            StartError::Snapshots(error) => panic!("{} has lost a snapshot: {error}", name(id)),
        };
        match error {
            OpenError::Damaged(_)
            | OpenError::OnlyVoter(_)
            | OpenError::Foreign { .. }
            | OpenError::NoSnapshot { .. } => {
                assert!(host.flipped, "{} refuses its disk, which nobody has damaged: {error}", name(id));
                self.coverage.count("starts refused: damage");
                return self.lose(id);
            }
            OpenError::Begin(WalError::NoSpace { .. }) => self.coverage.count("starts in vain: disk full"),
            OpenError::Io { source, .. } if source.kind() == std::io::ErrorKind::StorageFull => {
                self.coverage.count("starts in vain: disk full");
            }
            OpenError::Io { .. } | OpenError::Begin(_) => {
                self.coverage.count("starts in vain: device errors");
            }
            OpenError::Locked { .. } => panic!("nobody else is on the disk of {}", name(id)),
        }
        self.start_later(id);
    }

    /// Whoever looks after processes starts this one again.
    pub(crate) fn start_later(&mut self, id: MemberId) {
        let host = self.hosts.get_mut(&id).expect("a member");
        let delay = host.random.random_range(50 * MILLI..2 * SECOND);
        self.agenda.after(delay, Event::Start(id));
    }

    /// A process ends, however far it is. Whether there was one.
    pub(crate) fn crash(&mut self, id: MemberId, crash: Crash) -> bool {
        let now = self.now();
        let host = self.hosts.get_mut(&id).expect("a member");
        let writes = match std::mem::replace(&mut host.stage, Stage::Down) {
            Stage::Down if crash == Crash::Killed => return false,
            Stage::Down => false,
            Stage::Starting(_) => {
                self.coverage.count("processes killed while they started");
                true
            }
            Stage::Up(process) => {
                let Process { task, .. } = *process;
                task.is_some()
            }
        };
        host.life += 1;
        host.paused_until = 0;
        host.killed_when_it_writes = false;
        host.disk.crash(now, crash);
        self.coverage.count(match crash {
            Crash::Killed => "processes killed",
            Crash::PowerCut => "power cuts",
        });
        if writes {
            self.coverage.count("processes killed while they wrote");
        }
        self.say(|| format!("{} ends ({crash:?}{})", name(id), if writes { ", writing" } else { "" }));
        // The system closes the connections of a process that was killed; a machine without power says nothing.
        if crash == Crash::Killed {
            self.close_connections(id);
        }
        true
    }

    /// A process of this life ends.
    pub(crate) fn on_kill(&mut self, id: MemberId, life: u32, crash: Crash) {
        if self.hosts[&id].life == life {
            self.crash(id, crash);
            self.start_later(id);
        }
    }

    /// The others see that the connections of `id` are closed, unless the network is cut.
    pub(crate) fn close_connections(&mut self, id: MemberId) {
        let (now, latency) = (self.now(), self.plan.latency);
        let others: Vec<MemberId> = self.hosts.keys().copied().filter(|other| *other != id).collect();
        for other in others {
            if !self.network.is_cut(now, id, other) {
                self.agenda.after(latency, Event::Disconnected { at: other, peer: id });
            }
        }
    }

    /// A member never comes back.
    pub(crate) fn lose(&mut self, id: MemberId) {
        let host = self.hosts.get_mut(&id).expect("a member");
        if !host.lost {
            host.lost = true;
            self.coverage.count("members lost for good");
            self.say(|| format!("{} is lost for good", name(id)));
        }
    }
}
