//! Terms never fall; within a life neither does the commit index, and what is committed is never cut off.

use quorate_raft::{MemberId, Status, Write};

use super::member::Member;

/// What a member shows, after what it showed before.
pub(crate) fn showed(member: &Member, status: &Status) {
    assert!(
        status.term >= member.term,
        "MONOTONIC: {} goes back from term {} to {}",
        status.id,
        member.term,
        status.term
    );
    assert!(
        status.commit >= member.commit,
        "MONOTONIC: {} goes back from commit {} to {}",
        status.id,
        member.commit,
        status.commit
    );
}

/// What a member writes, after what it wrote before.
pub(crate) fn wrote(id: MemberId, member: &Member, write: &Write) {
    let before =
        member.under_way.iter().rev().find_map(|write| write.hard_state).unwrap_or(member.durable_state);
    if let Some(state) = write.hard_state {
        assert!(
            state.term >= before.term && state.commit >= before.commit,
            "MONOTONIC: {id} writes {state:?} after {before:?}"
        );
        assert!(
            state.term > before.term || before.vote.is_none() || state.vote == before.vote,
            "MONOTONIC: {id} takes back a vote: {state:?} after {before:?}"
        );
    }
    if let Some(first) = write.entries.first() {
        let safe = before.commit.max(member.applied);
        assert!(first.index > safe, "MONOTONIC: {id} replaces entry {}, {safe} is committed", first.index);
    }
}
