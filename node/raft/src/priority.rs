//! Who is to lead, if several could: a leader hands over to a voter with a higher priority.
//!
//! Only a leader acts, and only towards a higher priority, so two members never hand leadership to and fro. It takes its time:
//! a voter that is preferred has to be there and to keep up for some election timeouts, and longer after each attempt in vain.

use crate::MemberId;
use crate::change::is_changing;
use crate::common::Common;
use crate::leader::Leader;

/// How long a leader that is not preferred goes on leading.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Deference {
    /// Ticks for which somebody could have taken over.
    waited: u32,
    /// In election timeouts: how long that has to be.
    patience: u32,
}

impl Default for Deference {
    fn default() -> Self {
        Self { waited: 0, patience: Self::LEAST }
    }
}

impl Deference {
    const LEAST: u32 = 4;
    const MOST: u32 = 64;
}

impl Leader {
    /// A tick has passed.
    pub(crate) fn defer_to_preferred(&mut self, common: &mut Common) {
        let Some(preferred) = self.preferred(common) else {
            self.deference.waited = 0;
            return;
        };
        self.deference.waited += 1;
        if self.deference.waited >= self.deference.patience.saturating_mul(common.config.election_ticks) {
            self.deference.waited = 0;
            self.deference.patience = (2 * self.deference.patience).min(Deference::MOST);
            let begun = self.transfer(common, Some(preferred));
            assert_eq!(begun, Ok(preferred), "another voter, and nothing in the way");
        }
    }

    /// The voter that should lead instead, if it could now and nothing is in the way.
    fn preferred(&self, common: &Common) -> Option<MemberId> {
        if self.transfer.is_some() || !self.knows_commit(common) || is_changing(common) {
            return None;
        }
        let voters = &common.membership.current().voters;
        let candidates = self.followers.iter().filter(|(id, follower)| {
            voters.contains(id)
                && follower.priority > common.config.priority
                && self.caught_up(**id, common.config.election_ticks)
        });
        candidates.max_by_key(|(_, follower)| (follower.priority, follower.matched)).map(|(id, _)| *id)
    }
}
