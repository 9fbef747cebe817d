//! Commands of this member's clients, from their arrival until they are applied here.
//!
//! A command is handed to the leader of one term only: appended, if this member leads, or forwarded with that term. Entries of
//! a term stand in the log before those of every later one. So when an entry of a later term is applied, a command that was
//! handed over in an earlier one and has not been applied never will be, and may safely be handed over again.

use std::collections::BTreeMap;

use bytes::Bytes;
use quorate_raft::{MemberId, Raft, Term};

use super::{Answer, Client, Failure, Message, Outcome, Rejection};
use crate::command;
use crate::level::Level;

/// A message takes in commands until it has this many bytes.
const FORWARD_BYTES: usize = 1 << 20;

/// A command to be appended.
#[derive(Debug, Clone)]
pub struct Command {
    /// Its number: never used before by this member, in this life or an earlier one. Numbers count up.
    pub number: u64,
    /// The encoded [`quorate_api::log::Command`], with the same number in it.
    pub bytes: Bytes,
    /// The level that it needs ([`crate::command::needs`]).
    pub needs: Level,
}

#[derive(Debug, Default)]
pub(super) struct Writes {
    /// All that are not applied, by number: nearly in the order of arrival.
    waiting: BTreeMap<u64, Waiting>,
    /// Numbers of those that are to be handed over.
    unsent: Vec<u64>,
    /// Some of them have become so by what was applied: nobody else will call for them.
    due: bool,
    /// Numbers of those that a leader did not take: unsent again at the next tick.
    rejected: Vec<u64>,
    /// Other members' commands, as they came.
    forwarded: Vec<Forwarded>,
    /// The term of the newest entry applied.
    applied_term: Term,
}

#[derive(Debug)]
struct Waiting {
    client: Client,
    deadline: u64,
    bytes: Bytes,
    /// The term in which it was handed to a leader.
    sent: Option<Term>,
}

#[derive(Debug)]
struct Forwarded {
    from: MemberId,
    term: Term,
    commands: Vec<Bytes>,
}

impl Writes {
    /// Commands have arrived from a client.
    pub(super) fn arrive(&mut self, client: Client, deadline: u64, commands: Vec<Command>) {
        for Command { number, bytes, .. } in commands {
            self.unsent.push(number);
            self.waiting.insert(number, Waiting { client, deadline, bytes, sent: None });
        }
    }

    /// Commands have come from another member.
    pub(super) fn forwarded(&mut self, from: MemberId, term: Term, commands: Vec<Bytes>) {
        self.forwarded.push(Forwarded { from, term, commands });
    }

    /// Whom they were forwarded to in `term` did not append these.
    pub(super) fn rejected(&mut self, term: Term, numbers: &[u64]) {
        for number in numbers {
            if let Some(waiting) = self.waiting.get_mut(number).filter(|w| w.sent == Some(term)) {
                waiting.sent = None;
                self.rejected.push(*number);
            }
        }
    }

    /// What they were forwarded to in `term` does not take these, and nothing else would.
    pub(super) fn refused(
        &mut self,
        term: Term,
        numbers: &[u64],
        failure: Failure,
        answers: &mut Vec<Answer>,
    ) {
        for number in numbers {
            if self.waiting.get(number).is_some_and(|waiting| waiting.sent == Some(term))
                && let Some(Waiting { client, .. }) = self.waiting.remove(number)
            {
                let outcome = Outcome::NotApplied(failure);
                answers.push(Answer { client, number: *number, outcome });
            }
        }
    }

    /// Whether commands were found lost, and can be handed over again.
    pub(super) fn is_due(&self) -> bool {
        self.due
    }

    /// An attempt to hand them over begins.
    pub(super) fn begin(&mut self) {
        self.due = false;
    }

    /// Whether there is nothing to hand over.
    pub(super) fn is_idle(&self) -> bool {
        self.unsent.is_empty() && self.forwarded.is_empty()
    }

    /// Appends everything, as the leader of `term`.
    pub(super) fn append(&mut self, term: Term, raft: &mut Raft) {
        let (mine, stale): (Vec<_>, Vec<_>) = self.forwarded.drain(..).partition(|f| f.term == term);
        self.forwarded = stale;
        let own = self.unsent.iter().filter_map(|number| self.waiting.get(number)).map(|w| w.bytes.clone());
        let commands: Vec<Bytes> = own.chain(mine.iter().flat_map(|f| f.commands.iter().cloned())).collect();
        if commands.is_empty() {
            return;
        }
        match raft.propose(commands) {
            Ok((_, appended_in)) => {
                assert_eq!(appended_in, term, "a leader appends in its own term");
                self.mark_sent(term);
            }
            // Leadership is being handed over: this member's own commands wait for whoever leads next.
            Err(_) => self.forwarded.extend(mine),
        }
    }

    /// Sends this member's commands to the leader of `term`.
    pub(super) fn forward(&mut self, from: MemberId, to: MemberId, term: Term, messages: &mut Vec<Message>) {
        let mut commands: Vec<Bytes> = Vec::new();
        let mut size = 0;
        for waiting in self.unsent.iter().filter_map(|number| self.waiting.get(number)) {
            if size > FORWARD_BYTES {
                messages.push(Message::Forward { from, to, term, commands: std::mem::take(&mut commands) });
                size = 0;
            }
            size += waiting.bytes.len();
            commands.push(waiting.bytes.clone());
        }
        if !commands.is_empty() {
            messages.push(Message::Forward { from, to, term, commands });
        }
        self.mark_sent(term);
    }

    /// Tells their senders what was not appended.
    pub(super) fn reject_forwarded(&mut self, from: MemberId, messages: &mut Vec<Message>) {
        for Forwarded { from: to, term, commands } in self.forwarded.drain(..) {
            let (numbers, reason) = (command::numbers(commands), Rejection::NotLeader);
            messages.push(Message::ForwardRejected { from, to, term, numbers, reason });
        }
    }

    /// An entry of `term` is about to be applied: what was handed over in an earlier one, and is still here, is lost.
    pub(super) fn entered_term(&mut self, term: Term) {
        if term == self.applied_term {
            return;
        }
        self.applied_term = term;
        for (number, waiting) in &mut self.waiting {
            if waiting.sent.is_some_and(|sent| sent < term) {
                waiting.sent = None;
                self.unsent.push(*number);
                self.due = true;
            }
        }
    }

    /// A snapshot, whose last entry is of `term`, took the place of the state. What was handed over may be in it, or may yet be
    /// applied: nobody can tell, and nobody waits for it any more (failure 32).
    pub(super) fn overtaken(&mut self, term: Term, answers: &mut Vec<Answer>) {
        self.applied_term = term;
        let sent = self.waiting.extract_if(.., |_, waiting| waiting.sent.is_some());
        answers.extend(sent.map(|(number, waiting)| Answer {
            client: waiting.client,
            number,
            outcome: Outcome::NotApplied(Failure::TimedOut),
        }));
    }

    /// Command `number` is applied. Whom to answer: none if its client is no longer waiting.
    pub(super) fn applied(&mut self, number: u64) -> Option<Client> {
        self.waiting.remove(&number).map(|waiting| waiting.client)
    }

    /// Gives up what has waited for too long.
    pub(super) fn tick(&mut self, now: u64, answers: &mut Vec<Answer>) {
        self.unsent.append(&mut self.rejected);
        while let Some(oldest) = self.waiting.first_entry().filter(|entry| entry.get().deadline <= now) {
            let (number, waiting) = oldest.remove_entry();
            let failure = if waiting.sent.is_some() { Failure::TimedOut } else { Failure::NoLeader };
            answers.push(Answer { client: waiting.client, number, outcome: Outcome::NotApplied(failure) });
        }
    }

    fn mark_sent(&mut self, term: Term) {
        for number in self.unsent.drain(..) {
            if let Some(waiting) = self.waiting.get_mut(&number) {
                waiting.sent = Some(term);
            }
        }
    }
}
