//! Leader Completeness: an entry committed in an earlier term is in the log of every later leader (Raft paper, figure 3).

use quorate_raft::Term;

use super::committed::Committed;
use super::member::Member;

/// `member` has been elected in `term`. With Log Matching the newest entry stands for all before it.
pub(crate) fn elected(member: &Member, term: Term, committed: &Committed) {
    let Some(newest) = committed.newest_before(term) else { return };
    let held = member.term_at(newest.index);
    assert_eq!(
        held,
        Some(newest.term),
        "LEADER COMPLETENESS: the leader of term {term} lacks the committed entry {newest:?}"
    );
}
