//! Changes of membership by joint consensus (Raft paper, section 6).
//!
//! A change of voters goes from `C_old` to `C_old,new`, in which both majorities are needed, and from there to `C_new`. Each
//! counts from the moment that it is appended. Entering needs a caller; leaving is the leader's duty, whoever leads by then: it
//! follows from the log alone, so a change that was begun is finished by the next leader, and by no one too early.

use std::collections::BTreeSet;

use crate::common::Common;
use crate::leader::Leader;
use crate::progress::Follower;
use crate::{ChangeError, Configuration, LogId, MemberId, Payload};

impl Leader {
    /// Starts a change from the configuration with ID `expected` to `wanted`.
    pub(crate) fn change(
        &mut self,
        common: &mut Common,
        expected: LogId,
        wanted: Configuration,
    ) -> Result<LogId, ChangeError> {
        self.refuse_while_handing_over()?;
        let current = common.membership.id();
        if expected != current {
            return Err(ChangeError::Stale { expected, current });
        }
        if is_changing(common) || !self.knows_commit(common) {
            return Err(ChangeError::InProgress);
        }
        validate(common.membership.current(), &wanted)?;
        for voter in wanted.voters.difference(&common.membership.current().voters) {
            if !self.caught_up(*voter, common.config.election_ticks) {
                return Err(ChangeError::Lagging(*voter));
            }
        }
        if wanted == *common.membership.current() {
            return Ok(current);
        }
        if wanted.voters != common.membership.current().voters && !self.can_finish(common, &wanted) {
            return Err(ChangeError::TooFewAnswer);
        }
        let next = enter(common.membership.current(), wanted);
        Ok(self.append_configuration(common, next))
    }

    /// Leaves a joint configuration once it is committed. It would be wrong before: `C_new` alone could then decide while
    /// `C_old` does not know of it (failure 19). Returns whether it did.
    pub(crate) fn continue_change(&mut self, common: &mut Common) -> bool {
        let leave = common.membership.current().is_joint()
            && self.knows_commit(common)
            && common.membership.is_committed(common.commit())
            && self.transfer.is_none();
        if leave {
            let next = leave_joint(common.membership.current());
            self.append_configuration(common, next);
        }
        leave
    }

    /// Whether a majority of the voters wanted follows this leader: it has answered an append of this term, was heard lately, and lacks nothing
    /// that it acknowledged. From the moment that the change is appended nothing is committed without one. So a member must not be taken out while
    /// another that is needed then is away: together they would be more failures than the cluster survives.
    fn can_finish(&self, common: &Common, wanted: &Configuration) -> bool {
        let patience = common.config.election_ticks;
        let follows =
            |follower: &Follower| follower.matched > 0 && follower.is_active(patience) && !follower.lost;
        wanted.quorum(|id| id == common.id() || self.followers.get(&id).is_some_and(follows))
    }

    fn append_configuration(&mut self, common: &mut Common, next: Configuration) -> LogId {
        let index = common.append_payload(Payload::Configuration(Box::new(next)));
        self.meet(common, index);
        common.membership.id()
    }
}

/// Whether a change is not finished: the configuration is joint, or not committed (failure 23).
pub(crate) fn is_changing(common: &Common) -> bool {
    common.membership.current().is_joint() || !common.membership.is_committed(common.commit())
}

/// What follows `current` on the way to `wanted`: `C_old,new` if the voters differ, and `wanted` itself otherwise.
fn enter(current: &Configuration, wanted: Configuration) -> Configuration {
    if wanted.voters == current.voters {
        return wanted;
    }
    let mut joint = wanted;
    joint.outgoing.clone_from(&current.voters);
    for voter in &current.voters {
        if let Some(address) = current.addresses.get(voter) {
            joint.addresses.entry(*voter).or_insert_with(|| address.clone());
        }
    }
    joint
}

/// `C_new` of a joint configuration.
fn leave_joint(joint: &Configuration) -> Configuration {
    let mut next = Configuration { outgoing: BTreeSet::new(), ..joint.clone() };
    let members = next.members();
    next.addresses.retain(|id, _| members.contains(id));
    next
}

/// Whether `wanted` can follow `current`, whoever has caught up.
fn validate(current: &Configuration, wanted: &Configuration) -> Result<(), ChangeError> {
    let refuse = |reason: String| Err(ChangeError::Invalid(reason));
    let members = wanted.members();
    if wanted.voters.is_empty() {
        return refuse("a cluster needs a voter".into());
    }
    if wanted.is_joint() {
        return refuse("outgoing voters are the cluster's own business: leave them out".into());
    }
    if let Some(both) = wanted.voters.intersection(&wanted.learners).next() {
        return refuse(format!("{both} cannot be a voter and a learner"));
    }
    if let Some(lost) = members.iter().find(|id| !wanted.addresses.contains_key(id)) {
        return refuse(format!("{lost} has no address"));
    }
    if let Some(stray) = wanted.addresses.keys().find(|id| !members.contains(id)) {
        return refuse(format!("there is an address of {stray}, which is no member"));
    }
    if let Some(demoted) = wanted.learners.intersection(&current.voters).next() {
        return refuse(format!("{demoted} is a voter: remove it before it can be a learner"));
    }
    let new = |id: &&MemberId| !current.voters.contains(id) && !current.learners.contains(id);
    if let Some(stranger) = wanted.voters.iter().find(new) {
        return refuse(format!("{stranger} is not a learner yet: add it as one first"));
    }
    Ok(())
}
