//! What a message says of its sender is on the sender's disk (failures 2 to 5).

use quorate_raft::{Body, Message};

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
            *matched == 0 || member.has_durably(*matched),
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
