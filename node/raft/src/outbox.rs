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

    /// A message that waits is merged with an earlier one that it makes superfluous, so that what waits is bounded by the members and by the
    /// writes under way: a disk may hang for long, while others say the same again and again.
    ///
    /// Of several acknowledgements to one leader that wait for the same write, the furthest says all. Of everything else to one member in one
    /// term the newest does, of each kind: an answer to an older heartbeat, rejection, request or question is worth nothing beside it.
    fn hold(&mut self, promise: Promise) {
        let same = |earlier: &Promise| {
            let (earlier, later) = (&earlier.message, &promise.message);
            (earlier.to, earlier.term) == (later.to, later.term)
                && std::mem::discriminant(&earlier.body) == std::mem::discriminant(&later.body)
        };
        if let Body::AppendAccepted { matched } = promise.message.body {
            let of_this_write = self.promises.iter_mut().filter(|earlier| earlier.after == promise.after);
            for earlier in of_this_write.filter(|earlier| same(earlier)) {
                if let Body::AppendAccepted { matched: already } = &mut earlier.message.body {
                    *already = matched.max(*already);
                    return;
                }
            }
        } else if is_superseded_by_the_next(&promise.message.body) {
            self.promises.retain(|earlier| !same(earlier));
        }
        self.promises.push(promise);
    }
}

/// Whether a later message of this kind, to the same member in the same term, leaves nothing to say for an earlier one.
fn is_superseded_by_the_next(body: &Body) -> bool {
    matches!(body, Body::HeartbeatAck { .. } | Body::AppendRejected { .. })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{LogId, MemberId};

    /// Sends bodies of `term` to member 1 while the write of that term is under way, and returns how many wait.
    fn held(outbox: &mut Outbox, term: Term, bodies: Vec<Body>) -> usize {
        let state = HardState { term, ..HardState::default() };
        let log = Log::new(LogId::default(), []);
        let writes = Writes::new(HardState::default(), 0);
        for body in bodies {
            let message = Message { from: MemberId(2), to: MemberId(1), term, body };
            outbox.send(message, &writes, state, &log);
        }
        outbox.promises.len()
    }

    #[test]
    fn answers_that_wait_for_a_hung_disk_are_merged() {
        let mut outbox = Outbox::default();
        let acks = (0..100).map(|round| Body::HeartbeatAck { round, priority: 0, promise: 0 }).collect();
        assert_eq!(held(&mut outbox, 7, acks), 1);
        let hint = LogId::default();
        let rejections =
            (0..100).map(|rejected| Body::AppendRejected { rejected, hint, lost: false }).collect();
        assert_eq!(held(&mut outbox, 7, rejections), 2);
        let accepted = (0..100).map(|matched| Body::AppendAccepted { matched }).collect();
        assert_eq!(held(&mut outbox, 7, accepted), 3);
        let newest = outbox.promises.iter().map(|promise| promise.message.body.clone()).collect::<Vec<_>>();
        assert!(newest.contains(&Body::HeartbeatAck { round: 99, priority: 0, promise: 0 }));
        assert!(newest.contains(&Body::AppendAccepted { matched: 99 }));
        // A vote is its own word, whatever else was said.
        assert_eq!(held(&mut outbox, 7, vec![Body::Vote { pre_vote: false, granted: true }]), 4);
    }
}
