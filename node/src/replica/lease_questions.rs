//! What clients ask of leases' times: renewals, and how much is left.
//!
//! The leader answers, for its own clients and for other members', which send it all that wait in one message. Nothing of it goes into the log:
//! the leader has itself confirmed first, as for a read; many questions share a round. A lease that it knows is renewed then, however far it is behind with
//! applying, once it has applied what the leaders before it have proposed: no end of theirs can follow. That there is no such lease it says only when
//! it has applied all that was committed before it was asked.
//! A question may be asked twice, and a message with some may be lost: the member that has a client waiting asks again, and gives up when the
//! client's time is over.

use std::collections::{BTreeMap, BTreeSet};

use quorate_api::log::ExpireLease;
use quorate_api::log::command::Operation;
use quorate_raft::{Index, MemberId, ReadDone, Term};

use super::builds::NO_ORIGIN;
use super::lease_times::{Renewal, TimeLeft};
use super::{Answer, Client, Failure, Message, Outcome, Replica};
use crate::command;
use crate::leases::Grant;
use crate::level::LEASES;

/// After so many ticks in silence a question is asked again.
const ASKS_AGAIN: u64 = 50;

/// So many questions wait at the leader at most. More are passed over, and asked again.
const MOST_ASKED: usize = 1 << 18;

/// What is asked of a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Question {
    /// Its number: never used before by the member that asks, in this life or an earlier one.
    pub number: u64,
    /// Of which lease.
    pub id: i64,
    /// It is to live for its whole time again. Else only what is left is asked for.
    pub renews: bool,
}

/// Questions, each with the member whose client asks.
type Asked = Vec<(MemberId, Question)>;

/// The questions of this member's clients, and those that it is to answer.
#[derive(Debug, Default)]
pub(super) struct Questions {
    /// Of this member's clients, by number.
    waiting: BTreeMap<u64, Waiting>,
    /// The numbers of those that are to be sent.
    unsent: Vec<u64>,
    /// To be answered by this member, once it has itself confirmed again.
    asked: Asked,
    /// To be answered when it is confirmed as the leader of this term, by the protocol's read of this number.
    confirming: Option<(u64, Term, Asked)>,
    /// To be answered by the leader of this term, once everything up to this entry is applied.
    settled: Vec<(Index, Term, Asked)>,
}

#[derive(Debug)]
struct Waiting {
    client: Client,
    question: Question,
    deadline: u64,
    /// To which leader it was sent, in which term, and at which tick.
    sent: Option<((Term, MemberId), u64)>,
}

impl Questions {
    /// A client asks.
    fn arrive(&mut self, client: Client, question: Question, deadline: u64) {
        self.unsent.push(question.number);
        self.waiting.insert(question.number, Waiting { client, question, deadline, sent: None });
    }

    /// The questions that are to be sent to `leader`.
    fn take_unsent(&mut self, leader: (Term, MemberId), now: u64) -> Vec<Question> {
        let mut questions = Vec::with_capacity(self.unsent.len());
        for number in std::mem::take(&mut self.unsent) {
            if let Some(waiting) = self.waiting.get_mut(&number) {
                waiting.sent = Some((leader, now));
                questions.push(waiting.question);
            }
        }
        questions
    }

    /// These were sent in vain: they never left the process.
    pub(super) fn undelivered(&mut self, questions: &[Question]) {
        for Question { number, .. } in questions {
            if let Some(waiting) = self.waiting.get_mut(number)
                && waiting.sent.take().is_some()
            {
                self.unsent.push(*number);
            }
        }
    }

    /// The leases whose renewal is to be answered by this member.
    fn renewing(&self) -> BTreeSet<i64> {
        let confirming = self.confirming.iter().flat_map(|(_, _, questions)| questions);
        let settled = self.settled.iter().flat_map(|(_, _, questions)| questions);
        let all = self.asked.iter().chain(confirming).chain(settled);
        all.filter(|(_, question)| question.renews).map(|(_, question)| question.id).collect()
    }

    /// A question is answered. None if nobody waits for it any more.
    fn answer(&mut self, number: u64, outcome: Outcome) -> Option<Answer> {
        let Waiting { client, .. } = self.waiting.remove(&number)?;
        Some(Answer { client, number, outcome })
    }

    /// Gives up what has waited for too long, and asks again what was sent to another leader than this one, or some time ago.
    fn tick(&mut self, leader: (Term, Option<MemberId>), now: u64, answers: &mut Vec<Answer>) {
        let unsent = &mut self.unsent;
        self.waiting.retain(|number, waiting| {
            if waiting.deadline <= now {
                let failure = if waiting.sent.is_some() { Failure::TimedOut } else { Failure::NoLeader };
                let outcome = Outcome::Lease(Err(failure));
                answers.push(Answer { client: waiting.client, number: *number, outcome });
                return false;
            }
            let again = |((term, id), at)| (term, Some(id)) != leader || now >= at + ASKS_AGAIN;
            if waiting.sent.is_some_and(again) {
                waiting.sent = None;
                unsent.push(*number);
            }
            true
        });
    }
}

impl Replica {
    /// A client asks something of leases.
    pub fn ask(&mut self, client: Client, questions: Vec<Question>) {
        let by_level = (self.level < LEASES).then_some(Failure::Unsupported);
        // A lease lives on though much waits to be applied.
        let refusal = self.refusal().filter(|failure| *failure != Failure::TooFarBehind).or(by_level);
        for question in questions {
            match refusal {
                Some(failure) => {
                    let outcome = Outcome::Lease(Err(failure));
                    self.answers.push(Answer { client, number: question.number, outcome });
                }
                None => self.questions.arrive(client, question, self.now + self.request_ticks),
            }
        }
    }

    /// Another member asks this one, as the leader of `term`.
    pub(super) fn asked(&mut self, from: MemberId, term: Term, questions: Vec<Question>) {
        if self.raft.leadership() == (term, Some(self.id)) {
            self.questions.asked.extend(questions.into_iter().map(|question| (from, question)));
            self.questions.asked.truncate(MOST_ASKED);
        }
    }

    /// The leader has answered.
    pub(super) fn told_times(&mut self, times: Vec<(u64, TimeLeft)>) {
        let answers = times
            .into_iter()
            .filter_map(|(number, time)| self.questions.answer(number, Outcome::Lease(Ok(time))));
        self.answers.extend(answers);
    }

    /// Sends questions to the leader. If that is this member, asks for a confirmation.
    pub(super) fn hand_over_questions(&mut self) {
        let (term, leader) = self.raft.leadership();
        if leader != Some(self.id) {
            self.questions.asked.clear();
            self.questions.settled.clear();
        }
        let Some(leader) = leader else { return };
        if !self.questions.unsent.is_empty() {
            let questions = self.questions.take_unsent((term, leader), self.now);
            if leader == self.id {
                self.asked(self.id, term, questions);
            } else if !questions.is_empty() {
                self.messages.push(Message::LeaseQuestions { from: self.id, to: leader, term, questions });
            }
        }
        if leader == self.id && !self.questions.asked.is_empty() && self.questions.confirming.is_none() {
            let questions = std::mem::take(&mut self.questions.asked);
            self.questions.confirming = Some((self.raft.read_index(), term, questions));
        }
    }

    /// The protocol has settled a read. Whether that was to confirm this member, for questions.
    pub(super) fn confirmed(&mut self, done: ReadDone) -> bool {
        let Some((_, term, questions)) = self.questions.confirming.take_if(|(id, ..)| *id == done.id) else {
            return false;
        };
        // What is dropped here is asked again, also if too much waits to be answered.
        let waits: usize = self.questions.settled.iter().map(|(.., questions)| questions.len()).sum();
        if let Some(index) = done.index.filter(|_| waits < MOST_ASKED) {
            self.questions.settled.push((index, term, questions));
        }
        true
    }

    /// Answers what can be answered.
    pub(super) fn answer_questions(&mut self) {
        if self.questions.settled.is_empty() {
            return;
        }
        self.time_leases();
        for (index, term, questions) in std::mem::take(&mut self.questions.settled) {
            // Whoever led in a term and does so still has led all the time.
            if self.raft.leadership() != (term, Some(self.id)) {
                continue;
            }
            let knows_all = index <= self.applied;
            let (now, later): (Vec<_>, Vec<_>) = questions.into_iter().partition(|(_, question)| {
                knows_all || (question.renews && self.lease_times.lives(question.id))
            });
            self.answer_confirmed(now);
            if !later.is_empty() {
                self.questions.settled.push((index, term, later));
            }
        }
    }

    fn answer_confirmed(&mut self, questions: Asked) {
        let mut told: BTreeMap<MemberId, Vec<(u64, TimeLeft)>> = BTreeMap::new();
        for (from, question) in questions {
            let Question { number, id, renews } = question;
            let time = if renews {
                match self.lease_times.renew(id, self.now) {
                    Renewal::Done(ttl) => TimeLeft { ttl, left: ttl },
                    Renewal::Ending => {
                        self.questions.asked.push((from, question));
                        continue;
                    }
                }
            } else {
                self.lease_times.left(id, self.now)
            };
            told.entry(from).or_default().push((number, time));
        }
        for (to, times) in told {
            if to == self.id {
                self.told_times(times);
            } else {
                self.messages.push(Message::LeaseAnswers { from: self.id, to, times });
            }
        }
    }

    /// Time passes.
    pub(super) fn tick_leases(&mut self) {
        self.questions.tick(self.raft.leadership(), self.now, &mut self.answers);
        self.time_leases();
        if !self.is_divided() && !self.room.takes_nothing() {
            if !self.lease_times.may_be_due(self.now) {
                return;
            }
            let renewing = self.questions.renewing();
            let due = self.lease_times.take_due(self.now, |id| renewing.contains(&id));
            if !due.is_empty() && !self.propose_ends(&due) {
                self.lease_times.put_back(&due, self.now);
            }
        }
    }

    /// Counts the times of leases while it leads and has applied what earlier leaders have committed.
    fn time_leases(&mut self) {
        let (term, leader) = self.raft.leadership();
        let leads = leader == Some(self.id) && self.writes.applied_term() == term;
        self.lease_times.leads(leads.then_some(term), self.now);
    }

    fn propose_ends(&mut self, due: &[Grant]) -> bool {
        let first = self.raft.last().index + 1;
        let commands = (first..).zip(due).map(|(number, grant)| {
            let expire = ExpireLease { id: grant.id, grant: grant.number };
            // No other is committed at this place: its number is unique.
            command::encode(NO_ORIGIN, number, Operation::ExpireLease(expire))
        });
        self.raft.propose(commands.collect()).is_ok()
    }
}
