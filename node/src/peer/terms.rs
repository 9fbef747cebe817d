//! The terms that messages speak of, and which of them are believed.

use quorate_raft::{self as raft, Body, Term};

use crate::replica::Message;

/// How far ahead of ours a term may be that another member speaks of.
pub const MOST_AHEAD: u64 = 1 << 32;

/// Whether term `theirs` may be when `ours` is this member's. Terms count up one by one: one that is far ahead is a defect or worse, and would be
/// stored by everybody for good.
pub fn is_credible(ours: Term, theirs: Term) -> bool {
    theirs.saturating_sub(ours) <= MOST_AHEAD
}

/// The term in which a message is spoken: its sender has been in it. None for those of no term, and for those about one that nobody has entered.
pub fn spoken_in(message: &Message) -> Option<Term> {
    match message {
        Message::Raft(raft::Message {
            body: Body::RequestVote { pre_vote: true, .. } | Body::Vote { pre_vote: true, .. },
            ..
        }) => None,
        Message::Raft(message) => Some(message.term),
        _ => None,
    }
}

/// The greatest term that a message names, whatever it says of it.
pub fn named_by(message: &Message) -> Term {
    match message {
        Message::Raft(message) => message.term,
        Message::Forward { term, .. } | Message::ForwardRejected { term, .. } => *term,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_far_ahead_are_not_believed_and_earlier_ones_are() {
        assert!(is_credible(5, 0) && is_credible(5, 5) && is_credible(0, MOST_AHEAD));
        assert!(!is_credible(5, 6 + MOST_AHEAD) && !is_credible(0, Term::MAX));
    }
}
