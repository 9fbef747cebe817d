//! What may be sent now, and what has to wait until it is true after a crash as well.

use crate::log::Log;
use crate::message::Claim;
use crate::writes::{Durable, Writes};
use crate::{Body, HardState, Message, Term, WriteId};

/// A message that states something which may not be durable yet: a vote, an accepted entry, a term. There is no way to its
/// message but [`Promise::redeem`], and no way through that but the proof that the write is durable (failures 2 to 5).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Promise {
    after: WriteId,
    message: Message,
}

impl Promise {
    fn redeem(self, proof: Durable) -> Result<Message, Self> {
        if proof.covers(self.after) { Ok(self.message) } else { Err(self) }
    }
}

/// Messages on their way out. `ready` is private to this file: nobody else can put a message there.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(crate) struct Outbox {
    ready: Vec<Message>,
    promises: Vec<Promise>,
}

impl Outbox {
    /// Sends `message` as soon as what it claims is durable: at once, or after a write.
    pub(crate) fn send(&mut self, message: Message, writes: &Writes, state: HardState, log: &Log) {
        let after = match message.body.claim() {
            Claim::Nothing => WriteId::default(),
            Claim::Term => writes.of_term_and_vote(state),
            Claim::Log => writes.of_everything(state, log),
        };
        let promise = Promise { after, message };
        match promise.redeem(writes.proof()) {
            Ok(message) => self.ready.push(message),
            Err(promise) => self.hold(promise),
        }
    }

    /// Lets go what is true by now.
    pub(crate) fn release(&mut self, proof: Durable) {
        if self.promises.is_empty() {
            return;
        }
        let mut held = Vec::new();
        for promise in self.promises.drain(..) {
            match promise.redeem(proof) {
                Ok(message) => self.ready.push(message),
                Err(promise) => held.push(promise),
            }
        }
        self.promises = held;
    }

    /// Takes back what was promised before `term`: it is of no use to anyone any more (failure 15).
    pub(crate) fn forget_before(&mut self, term: Term) {
        self.promises.retain(|promise| promise.message.term >= term);
    }

    /// Takes out the messages that this member sent to itself: its own vote.
    pub(crate) fn take_own(&mut self) -> Vec<Message> {
        self.ready.extract_if(.., |message| message.to == message.from).collect()
    }

    /// Takes what may be sent.
    pub(crate) fn take(&mut self) -> Vec<Message> {
        std::mem::take(&mut self.ready)
    }

    /// Whether something may be sent.
    pub(crate) fn is_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Writes have been numbered anew: `offset` was taken off. In which order promises are kept, and how often the same one, makes
    /// no difference on a network that reorders and doubles.
    pub(crate) fn make_canonical(&mut self, offset: u64) {
        for promise in &mut self.promises {
            promise.after.0 -= offset;
        }
        self.promises.sort();
        self.promises.dedup();
    }

    /// Of several acknowledgements to one leader that wait for the same write, the furthest says all.
    fn hold(&mut self, promise: Promise) {
        if let Body::AppendAccepted { matched } = promise.message.body {
            for earlier in self.promises.iter_mut().rev().take_while(|earlier| earlier.after == promise.after)
            {
                let same =
                    (earlier.message.to, earlier.message.term) == (promise.message.to, promise.message.term);
                if let Body::AppendAccepted { matched: already } = &mut earlier.message.body
                    && same
                {
                    *already = matched.max(*already);
                    return;
                }
            }
        }
        self.promises.push(promise);
    }
}
