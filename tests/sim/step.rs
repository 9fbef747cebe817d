//! What a process does, as the server's loop and its disk's thread do it: it takes what has come, acts upon it, and writes in groups.

use quorate_node::kv::KvError;
use quorate_node::replica::{Agreement, Answer, Effects, Failure, Message, Outcome, Room, Standing};
use quorate_node::server::write_queue::Durable;
use quorate_node::snapshots::Report;
use quorate_node::storage::{Lack, WalError};
use quorate_raft::{MemberId, Role, Status, Write};
use rand::RngExt;

use crate::clients::{self, Asked, Reply};
use crate::disk::{Crash, SimDisk};
use crate::forms::{self, Form};
use crate::host::{CLUSTER, Pending, Process, Stage, Task, dir, name};
use crate::time::{MICRO, MILLI, SECOND};
use crate::world::{Event, World};

/// For how long the disk must have had nothing to do before a piece of background work is begun.
const IDLE: u64 = 5 * MILLI;

/// Spreads the numbers of reads over revisions.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

/// Every so many steps everything that a member shows is looked at, even if it says that nothing has changed.
const FULL_LOOK: u64 = 32;

impl Process {
    /// Whether something is to be written to the log.
    pub(crate) fn writes_wait(&self) -> bool {
        self.unwritten.is_some() || !self.queue.is_empty()
    }

    /// What the disk is to do when there is nothing to be written to the log.
    fn other_work(&mut self, disk: &SimDisk) -> Option<Task> {
        if self.adopts && self.identity.cluster == 0 {
            return Some(Task::Adopt(self.identity.join(disk, &dir(), CLUSTER)));
        }
        if let Some(index) = self.release.take() {
            return Some(Task::Release(index, self.wal.release_before(index)));
        }
        self.worker.is_busy().then(|| Task::Snapshot(self.worker.step()))
    }
}

impl World {
    /// The process of this life, if it is still up.
    fn process(&mut self, id: MemberId, life: u32) -> Option<&mut Process> {
        self.hosts.get_mut(&id).filter(|host| host.life == life)?.process_mut()
    }

    pub(crate) fn on_tick(&mut self, id: MemberId, life: u32) {
        let now = self.now();
        let leases = self.plan.leases;
        if leases {
            self.catch_up(id);
        } else if let Some(process) = self.process(id, life).filter(|process| process.identity.cluster != 0)
            && process.unstored.is_none()
        {
            process.replica.tick();
        }
        let Some(host) = self.hosts.get_mut(&id).filter(|host| host.life == life) else { return };
        let tick = host.clock.tick(now);
        let next = if leases { (host.ticked + tick).saturating_sub(now).max(1) } else { tick };
        self.agenda.after(next, Event::Tick(id, life));
        self.wake(id);
    }

    /// With leases, it is seen before anything else how many ticks are due: a process may have been paused.
    pub(crate) fn catch_up(&mut self, id: MemberId) {
        let now = self.now();
        let Some(host) = self.hosts.get_mut(&id).filter(|_| self.plan.leases) else { return };
        let tick = host.clock.tick(host.ticked);
        let due = (now - host.ticked) / tick;
        host.ticked += due * tick;
        if let Some(process) = host.process_mut().filter(|process| process.identity.cluster != 0) {
            let overslept = due.saturating_sub(1);
            process.replica.overslept(overslept);
            if due > 0 {
                process.replica.tick();
            }
            self.coverage.add("ticks overslept, with leases", overslept);
        }
    }

    pub(crate) fn on_message(&mut self, from: MemberId, message: Message) {
        let (now, id) = (self.now(), message.to());
        if self.network.is_cut(now, from, id) {
            return;
        }
        let Some(process) = self.hosts.get_mut(&id).and_then(|host| host.process_mut()) else { return };
        if process.identity.cluster == 0 {
            process.adopts = true;
            return self.use_disk(id);
        }
        process.replica.receive(message);
        self.wake(id);
    }

    pub(crate) fn on_disconnected(&mut self, id: MemberId, (peer, life): (MemberId, u32)) {
        let host = &self.hosts[&peer];
        let (member, ended) = (host.copy_of.unwrap_or(peer), host.life > life);
        if let Some(process) = self.hosts.get_mut(&id).and_then(|host| host.process_mut()) {
            let peers = process.peers.as_mut();
            if peers.is_some_and(|peers| !peers.disconnected((peer, life), ended, member)) {
                return;
            }
            process.replica.disconnected(member);
            self.wake(id);
        }
    }

    /// Something has come: the process will act, after what comes in the same moment.
    pub(crate) fn wake(&mut self, id: MemberId) {
        let host = self.hosts.get_mut(&id).expect("a member");
        let life = host.life;
        let delay = host.random.random_range(0..100 * MICRO);
        let Some(process) = host.process_mut() else { return };
        if !process.acts {
            process.acts = true;
            self.agenda.after(delay, Event::Act(id, life));
        }
    }

    pub(crate) fn on_act(&mut self, id: MemberId, life: u32) {
        let Some(process) = self.process(id, life) else { return };
        process.acts = false;
        if process.unstored.is_some() {
            return self.use_disk(id);
        }
        process.steps += 1;
        let looks = process.steps.is_multiple_of(FULL_LOOK);
        let Effects { write, messages, apply, answers, jobs, release, status_changed, end } =
            process.replica.output();
        if let Some(unsupported) = end {
            self.coverage.count("processes ended: level");
            return self.lacks_level(id, &unsupported.to_string());
        }
        for job in jobs {
            process.worker.push(job);
        }
        process.release = process.release.max(release);
        let status = (status_changed || looks).then(|| process.replica.status());
        if status_changed {
            process.note_removal();
        }
        if let Some(write) = write {
            self.written(id, write);
        }
        if let Some(status) = status {
            self.showed(id, status);
            self.stands(id);
            self.agrees(id);
        }
        for message in messages {
            self.send(id, message);
        }
        self.use_applier(id, apply);
        for answer in answers {
            self.answered(id, answer);
        }
        self.use_disk(id);
        if self.process(id, life).is_some_and(|process| process.replica.has_output()) {
            self.wake(id);
        }
    }

    fn written(&mut self, id: MemberId, write: Write) {
        self.note_write(id, &write);
        self.invariants.wrote(id, &write);
        let process = self.hosts.get_mut(&id).and_then(|host| host.process_mut()).expect("it wrote");
        if let Some(peers) = &mut process.peers {
            peers.wrote(&write);
        }
        process.queue.push(write);
    }

    /// What the process on host `id` shows of itself.
    pub(crate) fn showed(&mut self, id: MemberId, status: Status) {
        let status = &Status { id, ..status };
        if let Some(process) = self.hosts.get_mut(&status.id).and_then(|host| host.process_mut())
            && std::mem::replace(&mut process.repairing, status.repairing) != status.repairing
        {
            self.coverage.count(if status.repairing {
                "members that found out that their disk went back in time"
            } else {
                "damaged logs repaired"
            });
        }
        if let Some(host) = self.hosts.get_mut(&status.id).filter(|_| !status.repairing) {
            host.debt.take_if(|end| *end <= status.last.index);
        }
        self.invariants.showed(status);
        self.note_status(status);
    }

    fn send(&mut self, id: MemberId, message: Message) {
        self.invariants.sent(id, &message);
        self.note_message(id, &message);
        let to = message.to();
        if !self.hosts.contains_key(&to) {
            return;
        }
        let mut times = self.network.send(self.now(), id, &message);
        if let Some(last) = times.pop() {
            for time in times {
                self.deliver_at(time, id, message.clone());
            }
            self.deliver_at(last, id, message);
        }
    }

    /// An answer for a client. A request that is given up just before it is applied, or before the replica has heard of that, has two: the
    /// first counts.
    pub(crate) fn answered(&mut self, id: MemberId, answer: Answer) {
        let Answer { number, outcome, .. } = answer;
        let host = self.hosts.get_mut(&id).expect("a member");
        let process = host.process_mut().expect("it answers");
        let by_applier = matches!(outcome, Outcome::Applied(_));
        let is_asked = process.pending.contains_key(&number)
            || process.compactions.contains(&number)
            || process.alarms.contains(&number)
            || process.leasing.contains_key(&number);
        if !is_asked && !process.answered.contains_key(&number) {
            assert!(by_applier, "only what an earlier process has taken in is answered without being asked");
            return;
        }
        if let Some(before) = process.answered.insert(number, by_applier) {
            assert!(before != by_applier, "a request is answered once by each");
            return self.coverage.count("requests answered twice");
        }
        if process.compactions.remove(&number) {
            let done = matches!(outcome, Outcome::Applied(Ok(_)));
            return self.coverage.count(if done {
                "compactions done"
            } else {
                "compactions refused or given up"
            });
        }
        if process.alarms.remove(&number) {
            return self.coverage.count(match outcome {
                Outcome::Applied(Ok(_)) => "alarms raised or disarmed",
                Outcome::NotApplied(Failure::Unsupported) => "alarms refused: level",
                _ => "alarms given up",
            });
        }
        if let Some(asked) = process.leasing.remove(&number) {
            return self.lease_answered(asked, &outcome);
        }
        let pending = process.pending.remove(&number).expect("it is asked");
        let leads = process.shown.0 == Role::Leader;
        let reply = match outcome {
            Outcome::Applied(Err(KvError::NoSpace)) => {
                self.coverage.count("requests refused: over the quota");
                Reply::NotDone
            }
            Outcome::Applied(reply) => {
                let reply = reply.expect("nothing asks for what the state refuses");
                if self.plan.late && !reply.is_whole() {
                    return self.read_later(id, number, (reply, pending));
                }
                let output = match pending.form {
                    Form::Usual => clients::output(&process.applier.store().read(), reply),
                    Form::Ranges | Form::Nested => forms::output(&pending.input, reply.finish()),
                };
                self.invariants.acknowledged(id, number, output.revision);
                Reply::Done(output)
            }
            Outcome::Readable => {
                let output = clients::read(&process.applier.store().read(), &pending.input);
                self.invariants.read(id, pending.began, output.revision);
                self.coverage.count(if leads && self.plan.leases {
                    "reads served by a leader that may have a lease"
                } else if leads {
                    "reads served by the leader"
                } else {
                    "reads served by others"
                });
                Reply::Done(output)
            }
            Outcome::NotApplied(failure) => {
                self.coverage.count(match failure {
                    Failure::NoLeader => "commands given up: no leader",
                    Failure::TimedOut => "commands given up: no answer in time",
                    Failure::NotAMember => "requests refused: no member",
                    Failure::NoSpace | Failure::NoDescriptors => "requests refused: no space",
                    Failure::OverQuota => "requests refused at admission: over the quota",
                    Failure::Unsupported => {
                        unreachable!("nothing is asked for that is not of the first level")
                    }
                    Failure::TooFarBehind => "requests refused: too far behind",
                    Failure::Corrupt => "requests refused: corrupt, or divided",
                });
                if failure == Failure::TimedOut { Reply::Unknown } else { Reply::NotDone }
            }
            Outcome::Lease(_) => unreachable!("it was asked of no lease"),
            Outcome::NotReadable(_) => {
                self.coverage.count("reads given up");
                Reply::NotDone
            }
        };
        self.tell(&pending, reply);
    }

    /// A client is told this.
    pub(crate) fn tell(&mut self, pending: &Pending, reply: Reply) {
        let Pending { client, token, .. } = *pending;
        self.agenda.after(self.plan.latency, Event::Answer { client, token, reply });
    }

    /// If the disk has nothing to do, it gets what there is.
    pub(crate) fn use_disk(&mut self, id: MemberId) {
        let now = self.now();
        if self.hosts[&id].process().is_none_or(|process| process.task.is_some()) || self.store_removal(id) {
            return;
        }
        let host = self.hosts.get_mut(&id).expect("a member");
        let Stage::Up(process) = &mut host.stage else { return };
        host.disk.begin(now);
        let waiting = process.unwritten.take().or_else(|| process.queue.take(self.plan.group_bytes));
        let Some(group) = waiting else {
            process.task = process.other_work(&host.disk);
            if let Some(task) = &process.task {
                self.agenda.at(host.disk.ends() + task.rests(), Event::DiskDone(id, host.life));
            }
            return;
        };
        let appended = process.wal.append(&group.writes);
        process.task = Some(Task::Append(group, appended));
        process.task_since = now;
        self.disk_works(id);
    }

    /// The disk writes something that the process depends on: it may be killed in the middle of that.
    pub(crate) fn disk_works(&mut self, id: MemberId) {
        let now = self.now();
        let host = self.hosts.get_mut(&id).expect("a member");
        let rests = host.process().and_then(|process| process.task.as_ref()).map_or(0, Task::rests);
        let ends = host.disk.ends() + rests;
        self.agenda.at(ends, Event::DiskDone(id, host.life));
        if std::mem::take(&mut host.killed_when_it_writes) {
            // The power or the process ends somewhere in this group.
            let moment = host.random.random_range(now..=ends);
            let crash = if host.random.random() { Crash::Killed } else { Crash::PowerCut };
            self.agenda.at(moment, Event::Kill(id, host.life, crash));
        }
    }

    pub(crate) fn on_disk_idle(&mut self, id: MemberId, life: u32) {
        let now = self.now();
        let Some(host) = self.hosts.get_mut(&id).filter(|host| host.life == life) else { return };
        let Stage::Up(process) = &mut host.stage else { return };
        if process.task.is_none() && !process.writes_wait() && !process.prepared {
            host.disk.begin(now);
            process.task = Some(Task::Prepare(process.wal.prepare()));
            self.agenda.at(host.disk.ends(), Event::DiskDone(id, life));
        }
    }

    pub(crate) fn on_disk_done(&mut self, id: MemberId, life: u32) {
        let Some(host) = self.hosts.get_mut(&id).filter(|host| host.life == life) else { return };
        host.disk.finish();
        let Stage::Up(process) = &mut host.stage else { return self.started(id) };
        let failed = match process.task.take().expect("the disk had something to do") {
            Task::Append(group, Ok(())) => {
                self.persisted(id, group.durable);
                self.agenda.after(IDLE, Event::DiskIdle(id, life));
                None
            }
            // Nothing was written: each is tried again.
            Task::Append(group, Err(WalError::NoDescriptors { .. })) => {
                process.unwritten = Some(group);
                self.coverage.count("groups that waited for a descriptor");
                None
            }
            Task::Release(index, Err(WalError::NoDescriptors { .. })) => {
                process.release = process.release.max(Some(index));
                None
            }
            Task::Adopt(Err(error)) if error.lacks_descriptors() => None,
            Task::Prepare(Ok(more)) => {
                process.prepared = !more;
                if more {
                    self.agenda.after(IDLE, Event::DiskIdle(id, life));
                }
                None
            }
            Task::Mark(stored) => {
                self.stored_removal(id, &stored);
                stored.err().filter(|error| !error.lacks_descriptors()).map(|error| (error.to_string(), None))
            }
            Task::Adopt(Ok(())) => {
                self.coverage.count("clusters adopted");
                None
            }
            Task::Release(_, Ok(())) => {
                self.coverage.count("beginnings of logs given up");
                None
            }
            Task::Snapshot(report) => {
                if let Some(report) = report {
                    self.reported(id, report);
                }
                None
            }
            Task::Append(_, Err(error)) | Task::Prepare(Err(error)) | Task::Release(_, Err(error)) => {
                Some(error.to_string()).zip(Some(Some(error)))
            }
            Task::Adopt(Err(error)) => Some((error.to_string(), None)),
        };
        match failed {
            None => {
                self.look_at_room(id);
                self.use_disk(id);
                self.wake(id);
            }
            Some((words, error)) => self.disk_failed(id, &words, error.as_ref()),
        }
    }

    /// A group is on the disk.
    fn persisted(&mut self, id: MemberId, durable: Durable) {
        let process = self.hosts.get_mut(&id).and_then(|host| host.process_mut()).expect("it has a disk");
        process.prepared = false;
        if let Some(peers) = &process.peers {
            peers.persisted(process.wal.sequence());
        }
        match durable {
            Durable::Write(write) => {
                process.replica.persisted(write);
                self.invariants.persisted(write, id);
                self.account(id, write);
            }
            Durable::Part(write, index) => {
                process.replica.persisted_part(write, index);
                self.invariants.persisted_part(write, index, id);
                self.coverage.count("parts of writes that were durable before the rest");
            }
        }
    }

    /// What the log says of its room, as the server's gauge judges it; a full disk is tried again now and then.
    fn look_at_room(&mut self, id: MemberId) {
        let last = self.plan.segment_bytes / 4;
        let Some(host) = self.hosts.get_mut(&id) else { return };
        let life = host.life;
        let Some(process) = host.process_mut() else { return };
        let log = process.wal.room();
        let room = match log.lacks {
            Some(_) if !log.spare && log.active < last => Room::Out,
            Some(Lack::Space) => Room::Low,
            Some(Lack::Descriptors) | None => Room::Enough,
        };
        let retries = process.prepared && log.lacks.is_some();
        process.prepared &= log.lacks.is_none();
        if retries {
            self.agenda.after(SECOND, Event::DiskIdle(id, life));
        }
        let process = self.hosts.get_mut(&id).and_then(|host| host.process_mut()).expect("it was there");
        if process.replica.set_room(room) {
            self.coverage.count(match room {
                Room::Enough => "disks with room again",
                Room::Low => "disks nearly full",
                Room::NoDescriptors | Room::Out => "disks full",
            });
        }
    }

    /// Something has come of a job on snapshots.
    fn reported(&mut self, id: MemberId, report: Report) {
        self.note_held(id, &report);
        self.note_report(id, &report);
        let process = self.hosts.get_mut(&id).and_then(|host| host.process_mut()).expect("it has reported");
        process.replica.reported(report);
    }

    /// The server ends its process when the log cannot be written.
    fn disk_failed(&mut self, id: MemberId, words: &str, error: Option<&WalError>) {
        self.say(|| format!("{} cannot write: {words}", name(id)));
        self.coverage.count(match error {
            Some(WalError::NoSpace { .. }) => "processes ended: disk full",
            Some(WalError::Io { action, .. }) if *action == "sync" => "processes ended: fsync failed",
            _ => "processes ended: write failed",
        });
        self.crash(id, Crash::Killed);
        self.start_later(id);
    }

    /// A client's request arrives at a member.
    pub(crate) fn on_request(&mut self, asked: Asked, at: MemberId) {
        let Asked { client, token, input, stale } = asked;
        let began = self.invariants.newest_acknowledged();
        let Some(process) = self.hosts.get_mut(&at).and_then(|host| host.process_mut()) else {
            return self
                .agenda
                .after(self.plan.latency, Event::Answer { client, token, reply: Reply::NotDone });
        };
        if stale {
            let standing = process.replica.standing();
            let reply = match standing {
                Standing::Member if matches!(process.replica.agreement(), Agreement::Corrupt(_)) => {
                    Reply::NotDone
                }
                Standing::Member if self.plan.late => {
                    let past = token.wrapping_mul(SPREAD);
                    let read = forms::read_past(&process.applier.store().read(), &input, past);
                    read.map_or_else(
                        || {
                            self.coverage.count("reads refused: compacted");
                            Reply::NotDone
                        },
                        Reply::Done,
                    )
                }
                Standing::Member => Reply::Done(clients::read(&process.applier.store().read(), &input)),
                Standing::Outsider | Standing::Removed => Reply::NotDone,
            };
            return self.agenda.after(self.plan.latency, Event::Answer { client, token, reply });
        }
        let number = process.next_number;
        process.next_number += 1;
        let form = if self.plan.late { Form::of(token) } else { Form::Usual };
        clients::submit(&mut process.replica, at, number, &input, form);
        process.pending.insert(number, Pending { client, token, input, form, began });
        self.wake(at);
    }
}
