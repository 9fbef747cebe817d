//! What the steps of members show to the coverage.

use quorate_node::replica::{Message, Room};
use quorate_node::snapshots::{Found, Report};
use quorate_raft::{Body, Configuration, LogId, MemberId, Payload, Role, Status, Write};

use crate::host::{ELECTION_TICKS, name, names};
use crate::time::{MILLI, SECOND};
use crate::world::World;

/// A leader's disk hangs when a write takes so long: two election timeouts, on a clock that may be too fast.
const HUNG: u64 = 15 * ELECTION_TICKS as u64 * MILLI;

/// By then somebody leads that is preferred, if nothing goes wrong.
const BEGINNING: u64 = 10 * SECOND;

impl World {
    pub(crate) fn note_write(&mut self, id: MemberId, write: &Write) {
        let (tail, configured) = self.invariants.replaces(id, write);
        if tail {
            self.coverage.count("log tails replaced");
        }
        if configured {
            self.coverage.count("configurations rolled back");
        }
        let commands = write.entries.iter().filter(|entry| matches!(entry.payload, Payload::Command(_)));
        self.coverage.add("commands appended", commands.count() as u64);
        for entry in &write.entries {
            if let Payload::Configuration(configuration) = &entry.payload
                && !self.invariants.knows_configuration(entry.id())
            {
                self.note_configuration(id, entry.id(), configuration);
            }
        }
    }

    /// A configuration that nobody had before.
    fn note_configuration(&mut self, id: MemberId, at: LogId, configuration: &Configuration) {
        self.say(|| {
            let Configuration { voters, outgoing, learners, .. } = configuration;
            let (voters, outgoing, learners) = (names(voters), names(outgoing), names(learners));
            format!("{} appends {at:?}: voters {voters}, outgoing {outgoing}, learners {learners}", name(id))
        });
        let before = self.invariants.configuration_before(id, at.index);
        let (was_joint, same_leader, had) = before.map_or((false, true, 0), |(before, earlier)| {
            (earlier.is_joint(), before.term == at.term, earlier.learners.len())
        });
        if configuration.is_joint() {
            self.coverage.count("joint configurations entered");
        } else if was_joint {
            self.coverage.count("joint configurations left");
            if !same_leader {
                self.coverage.count("joint configurations left by another leader");
            }
        } else if configuration.learners.len() > had {
            self.coverage.count("learners added");
        }
    }

    pub(crate) fn note_status(&mut self, status: &Status) {
        let (id, now) = (status.id, self.now());
        self.disk_hung |= status.disk_hangs;
        let Some(process) = self.hosts.get_mut(&id).and_then(|host| host.process_mut()) else { return };
        let (role, term) = std::mem::replace(&mut process.shown, (status.role, status.term));
        let heard = process.heard;
        process.heard |= status.leader.is_some();
        if (role, term) == process.shown {
            return;
        }
        let disk_hangs = process.task.is_some() && now - process.task_since > HUNG;
        let (is_leader, was_leader) = (status.role == Role::Leader, role == Role::Leader);
        if is_leader && (!was_leader || term != status.term) {
            self.coverage.count("leaders elected");
            let was_handed_to = self.heir.take() == Some(id);
            self.late_leaders += u64::from(now > BEGINNING && !was_handed_to);
            if status.configuration.learners.contains(&id) {
                self.coverage.count("learners elected");
            }
            if !heard {
                self.coverage.count("leaders elected that have heard nobody since their start");
            }
            if was_handed_to {
                self.coverage.count("transfers done");
            }
        } else if was_leader && !is_leader {
            let cause = if term < status.term {
                "leaders that met a later term"
            } else if !status.configuration.is_voter(id) {
                "leaders that were removed"
            } else if disk_hangs {
                "leaders whose disk hung"
            } else {
                "leaders that lost their quorum"
            };
            self.coverage.count(cause);
        }
        if status.role == Role::Candidate && (role != Role::Candidate || term != status.term) {
            self.coverage.count("elections begun");
        }
        if role == Role::Candidate && status.role == Role::Follower && status.leader.is_some() {
            self.coverage.count("candidates that saw another win");
        }
        self.say(|| format!("{} is {:?} in term {}", name(id), status.role, status.term));
    }

    pub(crate) fn note_message(&mut self, id: MemberId, message: &Message) {
        match message {
            Message::Forward { commands, .. } => {
                self.coverage.add("commands forwarded", commands.len() as u64);
            }
            Message::ForwardRejected { .. } => self.coverage.count("forwards rejected"),
            Message::SnapshotRequest { .. }
            | Message::SnapshotManifest { .. }
            | Message::Supports { .. }
            | Message::Holds { .. }
            | Message::Room { room: Room::Enough, .. } => {}
            Message::LeaseQuestions { .. } => self.coverage.count("questions of leases sent to the leader"),
            Message::LeaseAnswers { .. } => self.coverage.count("questions of leases answered for others"),
            Message::SnapshotPiece { .. } => self.coverage.count("pieces of snapshots sent"),
            Message::Room { .. } => self.coverage.count("leaders told that a disk is nearly full"),
            Message::SnapshotMissing { .. } => self.coverage.count("snapshots asked for in vain"),
            Message::Raft(message) => {
                let reached = match &message.body {
                    Body::RequestVote { pre_vote: true, .. } => "pre-votes asked for",
                    Body::Vote { pre_vote: true, granted: false } => "pre-votes refused",
                    Body::Vote { pre_vote: false, granted: false } => "votes refused",
                    Body::AppendRejected { .. } => "appends rejected",
                    Body::InstallSnapshot { .. } => "snapshots offered",
                    Body::ReadIndex { .. } => "read rounds asked of the leader",
                    Body::ReadIndexReply { index: None, .. } => {
                        "read rounds refused by a member that does not lead"
                    }
                    Body::TimeoutNow => {
                        self.heir = Some(message.to);
                        return self.say(|| format!("{} hands over to {}", name(id), name(message.to)));
                    }
                    _ => return,
                };
                self.coverage.count(reached);
            }
        }
    }

    pub(crate) fn note_report(&mut self, id: MemberId, report: &Report) {
        match report {
            Report::Taken(manifest) => {
                self.coverage.count("snapshots taken");
                self.say(|| format!("{} has taken a snapshot at {:?}", name(id), manifest.id()));
            }
            Report::Received(manifest, _) => {
                self.coverage.count("snapshots received");
                if manifest.pieces() > 1 {
                    self.coverage.count("snapshots received in several pieces");
                }
                self.say(|| format!("{} has received the snapshot at {:?}", name(id), manifest.id()));
            }
            Report::NotTaken(at, error) => {
                self.coverage.count("snapshots not taken");
                self.say(|| format!("{} has not taken a snapshot at {at:?}: {error}", name(id)));
            }
            Report::NotReceived(at, error) => {
                self.coverage.count("snapshots not received");
                self.say(|| format!("{} has not received the snapshot at {at:?}: {error}", name(id)));
            }
            Report::Read(_, at, _, Some(Found::Damaged)) => {
                self.coverage.count("snapshots found damaged when others asked");
                self.say(|| format!("{} finds its snapshot at {at:?} damaged", name(id)));
            }
            Report::Written(..) | Report::Read(..) | Report::Whole(_) => {}
        }
    }
}
