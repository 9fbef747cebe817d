//! What a member takes in of commands, its own clients' and, as the leader, others': what is refused is refused at once, and says why.

use std::collections::BTreeMap;

use bytes::Bytes;
use quorate_api::etcdserverpb::CompactionRequest;
use quorate_api::log::command::Operation;
use quorate_raft::{MemberId, Role, Term};

use super::builds::NO_ORIGIN;
use super::{Answer, Client, Command, Failure, Message, Outcome, Rejection, Replica, Room, Standing};
use crate::level::{ALARMS, Levels};
use crate::{command, kv};

impl Replica {
    /// A client wants commands to be done, in order.
    pub fn write(&mut self, client: Client, commands: Vec<Command>) {
        let refusal = self.refusal().or(self.holds_too_much().then_some(Failure::TooFarBehind));
        let (room, level) = (self.room_for_commands(), self.level);
        let mut admitted = Vec::with_capacity(commands.len());
        for command in commands {
            let by_level = (command.needs > level).then_some(Failure::Unsupported);
            let refused = refusal.or(by_level);
            match refused.or_else(|| self.refuses(command.growth, room)?.failure()) {
                None => admitted.push(command),
                Some(failure) => {
                    let (number, outcome) = (command.number, Outcome::NotApplied(failure));
                    self.answers.push(Answer { client, number, outcome });
                }
            }
        }
        self.writes.arrive(client, self.now + self.request_ticks, admitted);
    }

    /// Another member's clients have sent commands. Those that are not taken in go back at once: all if this member is far behind, those that
    /// there is no room for, and those that it does not read as a whole, or that the cluster's level does not allow: in the log they would
    /// end every member that does not know better.
    pub(super) fn forwarded(&mut self, from: MemberId, term: Term, commands: Vec<Bytes>) {
        if self.is_divided() {
            return self.send_back(from, term, commands, Rejection::Corrupt);
        }
        if self.is_far_behind() || self.holds_too_much() {
            return self.send_back(from, term, commands, Rejection::TooFarBehind);
        }
        let room = self.room_for_commands();
        let levels = Levels { newest: self.level, ..self.levels };
        let mut admitted = Vec::with_capacity(commands.len());
        let mut refused: BTreeMap<Rejection, Vec<Bytes>> = BTreeMap::new();
        for bytes in commands {
            let read = command::read(bytes.clone(), levels).map_err(|_| Rejection::Unsupported);
            let growth = read.map(|command| kv::growth(&command.operation));
            match growth.and_then(|growth| self.refuses(growth, room).map_or(Ok(growth), Err)) {
                Err(reason) => refused.entry(reason).or_default().push(bytes),
                Ok(growth) => admitted.push((bytes, growth)),
            }
        }
        for (reason, commands) in refused {
            self.send_back(from, term, commands, reason);
        }
        if !admitted.is_empty() {
            self.writes.forwarded(from, term, admitted);
        }
    }

    /// Tells another member which of its clients' commands are not taken in.
    fn send_back(&mut self, to: MemberId, term: Term, commands: Vec<Bytes>, reason: Rejection) {
        let numbers = command::numbers(commands);
        self.messages.push(Message::ForwardRejected { from: self.id, to, term, numbers, reason });
    }

    /// Gives up the history below `revision`, which no client has asked for. Whether that was proposed; what comes of it nobody waits for.
    pub fn compact(&mut self, revision: i64) -> bool {
        // No other is committed at this place: its number is unique.
        let number = self.raft.last().index + 1;
        let compact = Operation::Compact(CompactionRequest { revision, physical: false });
        !self.is_divided()
            && !self.room.takes_nothing()
            && self.raft.propose(vec![command::encode(NO_ORIGIN, number, compact)]).is_ok()
    }

    /// Why no request is taken in now, if so.
    pub(super) fn refusal(&self) -> Option<Failure> {
        // One who is no member cannot say what was acknowledged, and nobody would take its commands.
        if self.standing() != Standing::Member {
            return Some(Failure::NotAMember);
        }
        // What waits already would be given up now, had it come when there was a leader last.
        if self.raft.leadership().1.is_none() && self.now >= self.led + self.request_ticks {
            return Some(Failure::NoLeader);
        }
        if self.is_divided() {
            return Some(Failure::Corrupt);
        }
        self.is_far_behind().then_some(Failure::TooFarBehind)
    }

    /// Whether the log holds so much that is not committed that no more commands are taken in. Reads ask nothing of it.
    fn holds_too_much(&self) -> bool {
        self.ahead.bytes() > self.waiting_bytes
    }

    /// Whether so much waits to be applied that a request that comes now would hardly be answered in time, or would take memory that
    /// is not there.
    fn is_far_behind(&self) -> bool {
        self.backlog.bytes() > self.waiting_bytes || self.backlog.waited() > self.request_ticks / 2
    }

    /// How much room there is for commands: as much as this member's disk has; if it leads, no more than a quorum has.
    fn room_for_commands(&self) -> Room {
        if self.status.role != Role::Leader || self.rooms.is_empty() {
            return self.room;
        }
        let progress = self.raft.progress();
        let is_heard = |id| progress.iter().any(|member| member.id == id && member.active);
        self.room.max(self.rooms.of_quorum(&self.status.configuration, is_heard, (self.id, self.room)))
    }

    /// Why a command that may make the state larger by `growth` is not taken in, if so: for want of room, which the disks have as much of as
    /// `room`, or by the quota. What the leader does not refuse by that counts from here on.
    fn refuses(&mut self, growth: u64, room: Room) -> Option<Rejection> {
        if !room.admits(growth) {
            return Some(room.rejection());
        }
        if growth == 0 || self.raft.leadership().1 != Some(self.id) {
            return None;
        }
        let refuses = if self.level >= ALARMS {
            self.quota.usage().is_full && self.is_current()
        } else {
            !self.quota.admit(growth)
        };
        refuses.then_some(Rejection::OverQuota)
    }

    /// Whether this member leads, and its state has all that was acknowledged by anyone.
    fn is_current(&self) -> bool {
        let (term, leader) = self.raft.leadership();
        let has_all = self.writes.applied_term() == term && self.applied >= self.raft.commit();
        leader == Some(self.id) && has_all
    }
}
