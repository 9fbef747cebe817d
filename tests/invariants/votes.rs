//! No vote is forgotten: a member votes once in a term, over all its lives.

use std::collections::BTreeMap;

use quorate_raft::{MemberId, Term};

#[derive(Debug, Default)]
pub(crate) struct Votes {
    cast: BTreeMap<(MemberId, Term), MemberId>,
}

impl Votes {
    /// A vote leaves its voter.
    pub(crate) fn cast(&mut self, voter: MemberId, term: Term, candidate: MemberId) {
        let first = *self.cast.entry((voter, term)).or_insert(candidate);
        assert_eq!(first, candidate, "VOTES: {voter} votes for two in term {term}");
    }
}
