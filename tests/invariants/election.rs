//! Election Safety: at most one leader in a term (Raft paper, figure 3).

use std::collections::BTreeMap;

use quorate_raft::{MemberId, Term};

#[derive(Debug, Default)]
pub(crate) struct ElectionSafety {
    leaders: BTreeMap<Term, MemberId>,
}

impl ElectionSafety {
    /// A member shows itself as the leader of `term`, or speaks as one. Returns whether that is news.
    pub(crate) fn leads(&mut self, id: MemberId, term: Term) -> bool {
        let mut new = false;
        let known = *self.leaders.entry(term).or_insert_with(|| {
            new = true;
            id
        });
        assert_eq!(known, id, "ELECTION SAFETY: two members lead term {term}");
        new
    }
}
