//! How processes begin and end.

use quorate_node::server::start::StartError;
use quorate_node::snapshots::SnapshotError;
use quorate_node::storage::disk::lacks_descriptors;
use quorate_node::storage::{OpenError, WalError};
use quorate_raft::MemberId;
use rand::RngExt;

use crate::disk::Crash;
use crate::host::{Opened, Process, Stage, Task, name};
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
        let spoilt = host.engine.as_ref().and_then(|engine| engine.opens(now));
        let mut opened = host.open(plan);
        if let Ok(opened) = &mut opened {
            opened.copy.spoilt = spoilt;
        }
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
            Ok(opened) => self.begin(id, opened),
            Err(error) => self.start_failed(id, &error),
        }
    }

    /// A process begins with what it has found on its disk.
    fn begin(&mut self, id: MemberId, opened: Opened) {
        let mark = opened.identity.removed;
        self.note_copy(id, opened.copy, &opened.found);
        self.note_found(&opened);
        let host = self.hosts.get_mut(&id).expect("a member");
        if host.flipped {
            self.coverage.count("starts on a flipped bit that did no harm");
        }
        let damaged = host.flipped || host.went_back;
        let (process, restored) = match host.process_on(&self.plan, opened) {
            Ok(begun) => begun,
            Err(unsupported) => {
                self.coverage.count("starts refused: level");
                return self.lacks_level(id, &unsupported.to_string());
            }
        };
        let (life, tick) = (host.life, host.clock.tick(self.agenda.now()));
        let tick = host.random.random_range(0..tick);
        host.stage = Stage::Up(Box::new(process));
        host.ticked = self.agenda.now();
        self.agenda.after(tick, Event::Tick(id, life));
        self.agenda.after(5 * MILLI, Event::DiskIdle(id, life));
        if host.engine.is_some() {
            self.agenda.after(0, Event::Keep(id, life));
        }
        if host.process().is_some_and(|process| process.peers.is_some()) {
            self.agenda.after(0, Event::Alive(id, life));
        }
        self.invariants.started(id, &restored, damaged, mark);
        self.say(|| {
            format!("{} starts with {} entries, {:?}", name(id), restored.entries.len(), restored.hard_state)
        });
        self.shows_itself(id);
        self.wake(id);
    }

    /// What a process is after it has applied what was committed, before anybody has asked it for anything.
    fn shows_itself(&mut self, id: MemberId) {
        let process = self.hosts[&id].process().expect("it has begun");
        let status = process.replica.status();
        self.showed(id, status);
        self.stands(id);
        self.compare_state(id);
    }

    /// What a process has found.
    fn note_found(&mut self, Opened { identity, found, .. }: &Opened) {
        let covered = found.restored.snapshot.as_ref().map_or(0, |snapshot| snapshot.id.index);
        self.note_mark(identity.removed, covered);
        let reached = [
            (true, "processes started"),
            (found.uncertain_tail, "torn tails cut"),
            (found.restored.lost.is_some(), "starts on a damaged log that others repair"),
            (found.restored.snapshot.is_some(), "processes started from a snapshot"),
            (
                found.restored.hard_state.commit > found.state.applied().index && identity.cluster != 0,
                "processes that applied what was committed before they served",
            ),
        ];
        reached.iter().filter(|(is_so, _)| *is_so).for_each(|(_, name)| self.coverage.count(name));
    }

    /// A process cannot use its disk: if that may pass, it is tried again.
    fn start_failed(&mut self, id: MemberId, error: &StartError) {
        self.say(|| format!("{} does not start: {error:?}", name(id)));
        let host = self.hosts.get_mut(&id).expect("a member");
        let error = match error {
            StartError::Log(error) => error,
            StartError::Snapshots(SnapshotError::Io { source, .. }) => {
                self.coverage.count(match source.kind() {
                    _ if lacks_descriptors(source) => "starts in vain: no descriptors",
                    std::io::ErrorKind::StorageFull => "starts in vain: disk full",
                    _ => "starts in vain: device errors",
                });
                return self.start_later(id);
            }
            StartError::Unsupported(error) => {
                panic!("what is read is of a level that the build supports: {error}")
            }
            StartError::Snapshots(error) => panic!("{} has lost a snapshot: {error}", name(id)),
        };
        match error {
            error if error.lacks_descriptors() => self.coverage.count("starts in vain: no descriptors"),
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
            OpenError::Unsupported(error) => {
                panic!("what is read is of a level that the build supports: {error}")
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
                if matches!(task, Some(Task::Mark(_))) {
                    self.coverage.count("processes killed while they stored a removal");
                }
                task.is_some()
            }
        };
        host.life += 1;
        host.paused_until = 0;
        host.killed_when_it_writes = false;
        host.disk.crash(now, crash);
        host.engine.iter().for_each(|engine| engine.crash(now));
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
        let (now, latency, life) = (self.now(), self.plan.latency, self.hosts[&id].life - 1);
        let others: Vec<MemberId> = self.hosts.keys().copied().filter(|other| *other != id).collect();
        for other in others {
            if !self.network.is_cut(now, id, other) {
                self.agenda.after(latency, Event::Disconnected { at: other, peer: id, life });
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
