//! Linearizable reads that wait for their index (dissertation, 6.4).
//!
//! At most one batch is with the protocol at a time. Reads that arrive meanwhile make the next one: a batch never takes in a
//! read that arrived after the batch was asked for.

use std::collections::VecDeque;

use quorate_raft::{Index, Raft, ReadDone};

use super::{Answer, Client, Failure, Outcome};

#[derive(Debug, Default)]
pub(super) struct Reads {
    /// Not asked for yet, in the order of arrival.
    arrived: VecDeque<Waiting>,
    /// Asked for in vain; asked for again at the next tick.
    retry: VecDeque<Waiting>,
    /// The batch that the protocol works on, under the protocol's number.
    asked: Option<(u64, Vec<Waiting>)>,
    /// Settled: they wait for the state to reach an index.
    settled: Vec<(Index, Vec<Waiting>)>,
}

#[derive(Debug)]
struct Waiting {
    client: Client,
    number: u64,
    deadline: u64,
}

impl Waiting {
    fn answer(&self, outcome: Outcome) -> Answer {
        Answer { client: self.client, number: self.number, outcome }
    }
}

impl Reads {
    pub(super) fn arrive(&mut self, client: Client, number: u64, deadline: u64) {
        self.arrived.push_back(Waiting { client, number, deadline });
    }

    /// Whether there is a batch to ask for.
    pub(super) fn is_due(&self) -> bool {
        self.asked.is_none() && !self.arrived.is_empty()
    }

    /// Asks for the next batch, unless one is under way.
    pub(super) fn ask(&mut self, raft: &mut Raft) {
        if self.is_due() {
            let batch = self.arrived.drain(..).collect();
            self.asked = Some((raft.read_index(), batch));
        }
    }

    /// The protocol has settled a batch.
    pub(super) fn settled(&mut self, done: ReadDone, applied: Index, answers: &mut Vec<Answer>) {
        let Some((_, batch)) = self.asked.take_if(|(id, _)| *id == done.id) else { return };
        match done.index {
            Some(index) if index <= applied => answer_all(&batch, answers),
            Some(index) => self.settled.push((index, batch)),
            None => self.retry.extend(batch),
        }
    }

    /// The state has reached `applied`.
    pub(super) fn applied(&mut self, applied: Index, answers: &mut Vec<Answer>) {
        self.settled.retain(|(index, batch)| {
            let waits = *index > applied;
            if !waits {
                answer_all(batch, answers);
            }
            waits
        });
    }

    /// Gives up what has waited for too long, and tries again what could not be settled.
    pub(super) fn tick(&mut self, now: u64, answers: &mut Vec<Answer>) {
        self.retry.append(&mut self.arrived);
        std::mem::swap(&mut self.retry, &mut self.arrived);
        let mut keep = |waiting: &Waiting, failure| {
            let expired = waiting.deadline <= now;
            if expired {
                answers.push(waiting.answer(Outcome::NotReadable(failure)));
            }
            !expired
        };
        self.arrived.retain(|waiting| keep(waiting, Failure::NoLeader));
        for (_, batch) in &mut self.settled {
            batch.retain(|waiting| keep(waiting, Failure::TimedOut));
        }
        if let Some((_, batch)) = &mut self.asked {
            batch.retain(|waiting| keep(waiting, Failure::TimedOut));
        }
    }
}

fn answer_all(batch: &[Waiting], answers: &mut Vec<Answer>) {
    answers.extend(batch.iter().map(|waiting| waiting.answer(Outcome::Readable)));
}
