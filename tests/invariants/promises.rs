//! What a message says of its sender is on the sender's disk (failures 2 to 5).

use quorate_raft::{Body, Index, Message, Term};

use super::member::Member;

/// A message leaves `member`.
pub(crate) fn sent(member: &Member, message: &Message) {
    let disk = member.durable_state;
    let speaks_of_next_term = matches!(
        message.body,
        Body::RequestVote { pre_vote: true, .. } | Body::Vote { pre_vote: true, granted: true }
    );
    assert!(
        speaks_of_next_term || message.term <= disk.term,
        "PROMISES: shows a term that is not durable: {message:?}"
    );
    match &message.body {
        Body::AppendAccepted { matched } => assert!(
            *matched == 0 || member.has_durably(*matched) || is_late(member, message.term, *matched),
            "PROMISES: accepts what is not durable: {message:?}"
        ),
        Body::Vote { pre_vote: false, granted: true } => assert_eq!(
            (disk.term, disk.vote),
            (message.term, Some(message.to)),
            "PROMISES: a vote that is not durable: {message:?}"
        ),
        Body::RequestVote { pre_vote: false, .. } => assert_eq!(
            (disk.term, disk.vote),
            (message.term, Some(message.from)),
            "PROMISES: its own vote is not durable: {message:?}"
        ),
        _ => {}
    }
}

/// An acceptance that was on its way out when a later leader replaced the tail of the log. It is true until that is on disk: as if it
/// had been sent before, and were late.
fn is_late(member: &Member, term: Term, matched: Index) -> bool {
    let accepted = member.durable.get(matched as usize - 1);
    let newest =
        member.under_way.iter().rev().find_map(|write| write.hard_state).unwrap_or(member.durable_state);
    newest.term > term && accepted.is_some_and(|name| name.term <= term)
}
