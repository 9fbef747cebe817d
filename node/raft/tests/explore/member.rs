//! One member with its disk, as a value: what an input makes of it.

use std::collections::VecDeque;

use quorate_raft::{
    Body, Config, Configuration, Entry, Index, LogId, MemberId, Message, Raft, Restored, Role, Term, Write,
    WriteId,
};

use crate::harness::{at, overwrite};

/// What can happen to a member.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Input {
    /// A message comes.
    Deliver(Message),
    /// The oldest write under way becomes durable.
    Persist,
    /// The process ends, and starts on what is durable. What was being written is lost: had some of it reached the disk, that would
    /// be as if it had been reported, and the messages that this brought about had been lost.
    Restart,
    /// That happens to all members at once, and whatever is on its way is lost.
    Outage,
    /// The process restarts, and the disk has lost what it held after the first entry.
    RestartDamaged,
    /// Patience is at its end.
    Tick,
    /// Its caller proposes a command.
    Propose(u8),
    /// Its caller wants this configuration.
    Change(Box<Configuration>),
    /// Its caller wants to read.
    Read,
}

/// A rule that a member breaks: exploring finds what comes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// It forgets its vote when it restarts, as with a disk that gives back an older state.
    ForgetsVote,
    /// It does not say that its disk was damaged.
    ForgetsDamage,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Member {
    raft: Raft,
    pub(crate) disk: Restored,
    /// Handed out, not durable yet.
    writing: VecDeque<Write>,
    /// The log as it was last handed out: durable or not.
    pub(crate) log: Vec<Entry>,
}

/// What is asked of a member again and again, taken out of it once.
#[derive(Debug)]
pub(crate) struct View {
    pub(crate) id: MemberId,
    pub(crate) term: Term,
    /// The term that its disk knows: a restart does not bring it back to an earlier one.
    durable: Term,
    pub(crate) leads: bool,
    /// It waits for votes.
    campaigns: bool,
    /// The newest entry that it knows to be committed.
    pub(crate) committed: LogId,
    pub(crate) writes: bool,
}

impl View {
    /// Whether `message` to this member changes nothing any more, whenever it comes: an answer to what the member was in a term, and
    /// will never be again.
    pub(crate) fn is_deaf_to(&self, message: &Message) -> bool {
        let past = |role: bool| self.durable >= message.term && !(role && self.term == message.term);
        match message.body {
            Body::Vote { pre_vote: false, .. } => past(self.campaigns),
            Body::Vote { granted: true, .. } => past(false),
            Body::Vote { granted: false, .. } | Body::TimeoutNow => self.durable > message.term,
            Body::AppendAccepted { .. } | Body::AppendRejected { .. } | Body::HeartbeatAck { .. } => {
                past(self.campaigns || self.leads)
            }
            _ => false,
        }
    }
}

impl Member {
    pub(crate) fn new(id: MemberId, disk: Restored) -> Self {
        let raft = Raft::new(config(id), disk.clone());
        let mut member = Self { raft, log: disk.entries.clone(), disk, writing: VecDeque::new() };
        member.settle();
        member
    }

    pub(crate) fn view(&self) -> View {
        let status = self.raft.status();
        View {
            id: status.id,
            term: status.term,
            durable: self.disk.hard_state.term,
            leads: status.role == Role::Leader,
            campaigns: status.role == Role::Candidate,
            committed: at(&self.log, status.commit).map_or_else(LogId::default, Entry::id),
            writes: !self.writing.is_empty(),
        }
    }

    /// What it is after `input`, and what it says then. None if nothing can come of it.
    pub(crate) fn after(&self, input: &Input, fault: Fault) -> Option<(Self, Vec<Message>)> {
        let mut next = self.clone();
        match input {
            Input::Deliver(message) => next.raft.step(message.clone()),
            Input::Persist => next.persist(),
            Input::Restart | Input::Outage => return Some((next.restarted(fault), Vec::new())),
            Input::RestartDamaged => {
                next.damage(1);
                return Some((next.restarted(fault), Vec::new()));
            }
            Input::Tick => next.raft.tick(),
            Input::Propose(number) => {
                next.raft.propose(vec![vec![*number].into()]).ok()?;
            }
            Input::Change(wanted) => {
                let expected = next.raft.status().configuration_id;
                next.raft.change_membership(expected, (**wanted).clone()).ok()?;
            }
            Input::Read => {
                next.raft.read_index();
            }
        }
        let messages = next.settle();
        Some((next, messages))
    }

    fn persist(&mut self) {
        let write = self.writing.pop_front().expect("a write is under way");
        overwrite(&mut self.disk.entries, &write);
        if let Some(hard_state) = write.hard_state {
            self.disk.hard_state = hard_state;
        }
        self.raft.persisted(write.id);
    }

    fn damage(&mut self, keep: Index) {
        let newest = self.disk.entries.last().map(Entry::id);
        if newest.is_some_and(|newest| newest.index > keep) {
            self.disk.lost = self.disk.lost.max(newest);
            self.disk.entries.retain(|entry| entry.index <= keep);
        }
    }

    fn restarted(mut self, fault: Fault) -> Self {
        match fault {
            Fault::None => {}
            Fault::ForgetsVote => self.disk.hard_state.vote = None,
            Fault::ForgetsDamage => {
                self.disk.lost = None;
                let last = self.disk.entries.last().map_or(0, |entry| entry.index);
                self.disk.hard_state.commit = self.disk.hard_state.commit.min(last);
            }
        }
        Self::new(self.raft.status().id, self.disk)
    }

    /// Takes what it puts out, and makes it equal to all that will do the same.
    fn settle(&mut self) -> Vec<Message> {
        let mut messages = Vec::new();
        while self.raft.has_output() {
            let output = self.raft.output();
            if let Some(write) = output.write {
                overwrite(&mut self.log, &write);
                self.writing.push_back(write);
            }
            for entry in &output.committed {
                assert_eq!(at(&self.disk.entries, entry.index), Some(entry), "applied before it was durable");
            }
            messages.extend(output.messages);
        }
        for message in &messages {
            self.assert_durable(message);
        }
        if !self.raft.status().repairing {
            self.disk.lost = None;
        }
        self.raft = self.raft.canonical();
        for (write, number) in self.writing.iter_mut().zip(1..) {
            write.id = WriteId(number);
        }
        messages
    }

    /// What a message says of its sender is on the sender's disk.
    fn assert_durable(&self, message: &Message) {
        let disk = &self.disk.hard_state;
        match &message.body {
            Body::AppendAccepted { matched } => {
                let last = self.disk.entries.last().map_or(0, |entry| entry.index);
                assert!(*matched <= last, "not durable: {message:?}");
            }
            Body::Vote { pre_vote: false, granted: true } => {
                assert_eq!((disk.term, disk.vote), (message.term, Some(message.to)), "not durable");
            }
            Body::RequestVote { pre_vote: false, .. } => {
                assert_eq!((disk.term, disk.vote), (message.term, Some(message.from)), "not durable");
            }
            _ => {}
        }
    }
}

/// One tick is all the patience that there is: so no chance decides anything, and a tick means that nobody was heard in time. A
/// disk may be as slow as it likes.
fn config(id: MemberId) -> Config {
    Config {
        id,
        election_ticks: 1,
        start_ticks: 1,
        heartbeat_ticks: 1,
        disk_ticks: u32::MAX,
        priority: 0,
        lease: None,
        promised: false,
        max_append_bytes: 1 << 20,
        max_inflight_bytes: 1 << 20,
        seed: 1,
    }
}
