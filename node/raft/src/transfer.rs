//! Handing leadership over (dissertation, 3.10).
//!
//! The leader takes no proposals, waits until the target holds its whole log, durably (failure 39), and tells it to campaign at
//! once. Within an election timeout that has happened, or it is given up.

use crate::common::Common;
use crate::leader::Leader;
use crate::{Body, MemberId, ProposeError, TransferError};

/// A transfer under way.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Transfer {
    pub(crate) target: MemberId,
    /// Ticks since it began.
    elapsed: u32,
    /// The target was told to campaign.
    told: bool,
}

impl Leader {
    /// Begins to hand over, or goes on with it: asking twice is harmless.
    pub(crate) fn transfer(
        &mut self,
        common: &mut Common,
        target: Option<MemberId>,
    ) -> Result<MemberId, TransferError> {
        let running = self.transfer.as_ref().map(|transfer| transfer.target);
        let target = target.or(running).or_else(|| self.furthest_voter(common));
        let target = target.ok_or(TransferError::NotAVoter(common.id()))?;
        match running {
            Some(running) if running == target => return Ok(target),
            Some(running) => return Err(ProposeError::Transferring { target: running }.into()),
            None => {}
        }
        if target == common.id() || !common.membership.current().voters.contains(&target) {
            return Err(TransferError::NotAVoter(target));
        }
        self.transfer = Some(Transfer { target, elapsed: 0, told: false });
        self.hand_over_if_ready(common);
        Ok(target)
    }

    /// Once the target holds everything it may campaign.
    pub(crate) fn hand_over_if_ready(&mut self, common: &mut Common) {
        let Some(transfer) = &mut self.transfer else { return };
        let matched = self.followers.get(&transfer.target).map_or(0, |follower| follower.matched);
        if !transfer.told && matched == common.log.last().index {
            transfer.told = true;
            self.renewals.void = true;
            common.send(transfer.target, Body::TimeoutNow);
        }
    }

    /// A tick has passed.
    pub(crate) fn give_up_late_transfer(&mut self, common: &Common) {
        self.transfer.take_if(|transfer| {
            transfer.elapsed += 1;
            transfer.elapsed >= common.config.election_ticks
        });
    }

    /// The other voter with the most of the log, among those that were heard of late.
    pub(crate) fn furthest_voter(&self, common: &Common) -> Option<MemberId> {
        let patience = common.config.election_ticks;
        let voters = &common.membership.current().voters;
        let others = self.followers.iter().filter(|(id, _)| voters.contains(id));
        others.max_by_key(|(_, f)| (f.is_active(patience), f.matched, f.priority)).map(|(id, _)| *id)
    }
}
