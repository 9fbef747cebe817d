//! What clients ask of leases' times: renewals, and how much is left.
//!
//! The leader answers, for its own clients and for other members', which send it all that wait in one message. Nothing of it goes into the log:
//! the leader has itself confirmed first, as for a read, and by then has applied all that was committed; many questions share a round.
//! A question may be asked twice, and a message with some may be lost: the member that has a client waiting asks again, and gives up when the
//! client's time is over.

use std::collections::BTreeMap;

use quorate_api::log::ExpireLease;
use quorate_api::log::command::Operation;
use quorate_raft::{MemberId, Term};

use super::builds::NO_ORIGIN;
use super::lease_times::{Renewal, TimeLeft};
use super::{Answer, Client, Failure, Message, Outcome, Replica};
use crate::command;
use crate::leases::Grant;
use crate::level::LEASES;

/// Who asks for the reads by which the leader has itself confirmed.
pub(super) const CONFIRMING: Client = Client(usize::MAX - 1);

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

/// The questions of this member's clients, and those that it is to answer.
#[derive(Debug, Default)]
pub(super) struct Questions {
    /// Of this member's clients, by number.
    waiting: BTreeMap<u64, Waiting>,
    /// The numbers of those that are to be sent.
    unsent: Vec<u64>,
    /// To be answered by this member, once it has itself confirmed again.
    asked: Vec<(MemberId, Question)>,
    /// To be answered when it is confirmed as the leader of this term.
    confirming: Option<(Term, Vec<(MemberId, Question)>)>,
    /// The number of that, and of all before.
    confirmations: u64,
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
        let refusal = self.refusal().or(by_level);
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
            self.questions.confirming = Some((term, std::mem::take(&mut self.questions.asked)));
            self.questions.confirmations += 1;
            let (number, deadline) = (self.questions.confirmations, self.now + self.request_ticks);
            self.reads.arrive(CONFIRMING, number, deadline);
        }
    }

    /// Answers questions, if what was asked for to confirm this member has come.
    pub(super) fn answer_questions(&mut self) {
        if self.questions.confirming.is_none() {
            return;
        }
        let mut confirmed = None;
        self.answers.retain(|answer| {
            let confirms = answer.client == CONFIRMING;
            if confirms {
                confirmed = Some(matches!(answer.outcome, Outcome::Readable));
            }
            !confirms
        });
        let Some(confirmed) = confirmed else { return };
        let Some((term, questions)) = self.questions.confirming.take() else { return };
        // Whoever led in a term and does so still has led all the time. What is dropped here is asked again.
        if confirmed && self.raft.leadership() == (term, Some(self.id)) {
            self.answer_confirmed(questions);
        }
    }

    fn answer_confirmed(&mut self, questions: Vec<(MemberId, Question)>) {
        self.time_leases();
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
            let due = self.lease_times.take_due(self.now);
            if !due.is_empty() && !self.propose_ends(&due) {
                // They are given their time again, which does no harm.
                self.lease_times.leads(None, self.now);
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
