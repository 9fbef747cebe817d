//! Commands of this member's clients, from their arrival until they are applied here.
//!
//! A command is handed to the leader of one term only: appended, if this member leads, or forwarded with that term. Entries of
//! a term stand in the log before those of every later one. So when an entry of a later term is applied, a command that was
//! handed over in an earlier one and has not been applied never will be, and may safely be handed over again.
//!
//! How many commands wait is bounded where they come from (`doors/gateway.rs`); what is kept here for each of them goes with it.

use std::collections::BTreeMap;

use bytes::Bytes;
use quorate_api::log::command::Operation;
use quorate_raft::{Index, MemberId, Raft, Term};

use super::{Answer, Client, Failure, Message, Outcome, Rejection};
use crate::level::Level;
use crate::{command, kv};

/// A message takes in commands until it has this many bytes.
const FORWARD_BYTES: usize = 1 << 20;

/// So many bytes of commands are under way to a leader, and not applied, when no more are forwarded: half of what the link to it holds
/// (`peer/link.rs`), so that what is forwarded is sent.
const FORWARDED_BYTES: usize = 32 << 20;

/// A command to be appended.
#[derive(Debug, Clone)]
pub struct Command {
    /// Its number: never used before by this member, in this life or an earlier one. Numbers count up.
    pub number: u64,
    /// The encoded [`quorate_api::log::Command`], with the same number in it.
    pub bytes: Bytes,
    /// The level that it needs ([`crate::command::needs`]).
    pub needs: Level,
    /// By how many bytes it may make the state larger ([`crate::kv::growth`]).
    pub growth: u64,
}

impl Command {
    /// The command of member `origin` to do `operation`.
    pub fn new(origin: u64, number: u64, operation: Operation) -> Self {
        let (needs, growth) = (command::needs(&operation), kv::growth(&operation));
        Command { number, bytes: command::encode(origin, number, operation), needs, growth }
    }
}

#[derive(Debug, Default)]
pub(super) struct Writes {
    /// All that are not applied, by number: nearly in the order of arrival.
    waiting: BTreeMap<u64, Waiting>,
    /// Numbers of those that are to be handed over. May hold numbers of some that were given up: see [`Self::forget_unsent`].
    unsent: Vec<u64>,
    /// Bytes of those that were handed over.
    sent_bytes: usize,
    /// Some can be handed over by what was applied: nobody else will call for them.
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
    growth: u64,
    /// The term in which it was handed to a leader.
    sent: Option<Term>,
}

impl Waiting {
    /// It is to be handed over again: to be taken off the bytes that were.
    fn take_back(&mut self) -> usize {
        self.sent.take().map_or(0, |_| self.bytes.len())
    }
}

#[derive(Debug)]
struct Forwarded {
    from: MemberId,
    term: Term,
    /// And by how much each may make the state larger.
    commands: Vec<(Bytes, u64)>,
}

impl Writes {
    /// Commands have arrived from a client.
    pub(super) fn arrive(&mut self, client: Client, deadline: u64, commands: Vec<Command>) {
        for Command { number, bytes, growth, .. } in commands {
            self.unsent.push(number);
            self.waiting.insert(number, Waiting { client, deadline, bytes, growth, sent: None });
        }
    }

    /// Commands have come from another member, each with how much it may make the state larger.
    pub(super) fn forwarded(&mut self, from: MemberId, term: Term, commands: Vec<(Bytes, u64)>) {
        self.forwarded.push(Forwarded { from, term, commands });
    }

    /// These were not appended by the member that they were forwarded to in `term`, or did not get there.
    pub(super) fn rejected(&mut self, term: Term, numbers: &[u64]) {
        for number in numbers {
            if let Some(waiting) = self.waiting.get_mut(number).filter(|w| w.sent == Some(term)) {
                self.sent_bytes -= waiting.take_back();
                self.rejected.push(*number);
            }
        }
    }

    /// These are refused, for a reason that stays, by the member that they were forwarded to in `term`.
    pub(super) fn refused(
        &mut self,
        term: Term,
        numbers: &[u64],
        failure: Failure,
        answers: &mut Vec<Answer>,
    ) {
        for number in numbers {
            if self.waiting.get(number).is_some_and(|waiting| waiting.sent == Some(term))
                && let Some(Waiting { client, .. }) = self.remove(*number)
            {
                answers.push(Answer { client, number: *number, outcome: Outcome::NotApplied(failure) });
            }
        }
    }

    /// Whether commands can be handed over that could not before.
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

    /// Appends everything, as the leader of `term`. Before a command `check` may put another: it is told its place in the log, by how much
    /// those before it may make the state larger, and by how much this one. Returns up to which entry, and by how much all may.
    pub(super) fn append(
        &mut self,
        term: Term,
        raft: &mut Raft,
        check: impl Fn(Index, u64, u64) -> Option<Bytes>,
    ) -> Option<(Index, u64)> {
        let (mine, stale): (Vec<_>, Vec<_>) = self.forwarded.drain(..).partition(|f| f.term == term);
        self.forwarded = stale;
        let own = self.unsent.iter().filter_map(|number| self.waiting.get(number));
        let own = own.map(|waiting| (&waiting.bytes, waiting.growth));
        let theirs = mine.iter().flat_map(|f| &f.commands).map(|(bytes, growth)| (bytes, *growth));
        let (first, mut commands, mut growth) = (raft.last().index + 1, Vec::new(), 0);
        for (bytes, more) in own.chain(theirs) {
            commands.extend(check(first + commands.len() as u64, growth, more));
            commands.push(bytes.clone());
            growth += more;
        }
        if commands.is_empty() {
            return None;
        }
        let last = first + commands.len() as u64 - 1;
        let Ok(appended) = raft.propose(commands) else {
            // Leadership is being handed over: this member's own commands wait for whoever leads next.
            self.forwarded.extend(mine);
            return None;
        };
        assert_eq!(appended, (first, term), "a leader appends in its own term, behind the log");
        self.mark_sent(self.unsent.len(), term);
        Some((last, growth))
    }

    /// Sends this member's commands to the leader of `term`: no more than the link there can take. The others follow as those are applied.
    pub(super) fn forward(&mut self, from: MemberId, to: MemberId, term: Term, messages: &mut Vec<Message>) {
        let mut commands: Vec<Bytes> = Vec::new();
        let (mut size, mut count, mut sent_bytes) = (0, 0, self.sent_bytes);
        for number in &self.unsent {
            if sent_bytes >= FORWARDED_BYTES {
                break;
            }
            count += 1;
            let Some(waiting) = self.waiting.get(number) else { continue };
            if size > FORWARD_BYTES {
                messages.push(Message::Forward { from, to, term, commands: std::mem::take(&mut commands) });
                size = 0;
            }
            size += waiting.bytes.len();
            sent_bytes += waiting.bytes.len();
            commands.push(waiting.bytes.clone());
        }
        if !commands.is_empty() {
            messages.push(Message::Forward { from, to, term, commands });
        }
        self.mark_sent(count, term);
    }

    /// Tells their senders what was not appended.
    pub(super) fn reject_forwarded(&mut self, from: MemberId, messages: &mut Vec<Message>) {
        for Forwarded { from: to, term, commands } in self.forwarded.drain(..) {
            let commands = commands.into_iter().map(|(bytes, _)| bytes);
            let (numbers, reason) = (command::numbers(commands), Rejection::NotLeader);
            messages.push(Message::ForwardRejected { from, to, term, numbers, reason });
        }
    }

    /// Everything up to an entry of `term` is applied, and the commands in it are taken note of: what was handed over in an earlier
    /// term, and is still here, is lost.
    pub(super) fn entered_term(&mut self, term: Term) {
        if term <= self.applied_term {
            return;
        }
        self.applied_term = term;
        for (number, waiting) in &mut self.waiting {
            if waiting.sent.is_some_and(|sent| sent < term) {
                self.sent_bytes -= waiting.take_back();
                self.unsent.push(*number);
                self.due = true;
            }
        }
    }

    /// The term of the newest entry applied.
    pub(super) fn applied_term(&self) -> Term {
        self.applied_term
    }

    /// A snapshot takes the place of the state. What was handed over may be in it, or may yet be applied: nobody can tell, and nobody waits
    /// for it any more (failure 32). If it is applied on the way there, the client has two answers: the first counts.
    pub(super) fn overtaken(&mut self, answers: &mut Vec<Answer>) {
        let sent = self.waiting.extract_if(.., |_, waiting| waiting.sent.is_some());
        answers.extend(sent.map(|(number, waiting)| Answer {
            client: waiting.client,
            number,
            outcome: Outcome::NotApplied(Failure::TimedOut),
        }));
        self.sent_bytes = 0;
        self.due |= !self.unsent.is_empty();
    }

    /// Command `number` is applied, and its client has its answer.
    pub(super) fn applied(&mut self, number: u64) {
        if self.remove(number).is_some() {
            self.due |= !self.unsent.is_empty();
        }
    }

    /// Gives up what has waited for too long.
    pub(super) fn tick(&mut self, now: u64, answers: &mut Vec<Answer>) {
        self.unsent.append(&mut self.rejected);
        while let Some(number) =
            self.waiting.first_key_value().filter(|(_, oldest)| oldest.deadline <= now).map(|(n, _)| *n)
        {
            let Some(Waiting { client, sent, .. }) = self.remove(number) else { break };
            let failure = if sent.is_some() { Failure::TimedOut } else { Failure::NoLeader };
            answers.push(Answer { client, number, outcome: Outcome::NotApplied(failure) });
        }
        self.forget_unsent();
    }

    /// How much is remembered of what is to be handed over.
    #[cfg(test)]
    pub(super) fn unsent(&self) -> usize {
        self.unsent.len()
    }

    /// Takes the numbers of what was given up out of those that are to be handed over: while nobody leads nothing else does. Once they may
    /// be most of them, so that it costs each number no more than to be put there.
    fn forget_unsent(&mut self) {
        if self.unsent.len() > 2 * self.waiting.len() {
            self.unsent.retain(|number| self.waiting.contains_key(number));
        }
    }

    /// Takes a command out, whatever has become of it.
    fn remove(&mut self, number: u64) -> Option<Waiting> {
        let mut waiting = self.waiting.remove(&number)?;
        let sent = waiting.sent;
        self.sent_bytes -= waiting.take_back();
        waiting.sent = sent;
        Some(waiting)
    }

    /// The first `count` of those that were unsent are handed over.
    fn mark_sent(&mut self, count: usize, term: Term) {
        for number in self.unsent.drain(..count) {
            if let Some(waiting) = self.waiting.get_mut(&number) {
                waiting.sent = Some(term);
                self.sent_bytes += waiting.bytes.len();
            }
        }
    }
}
