//! What comes of a change of membership that a client asks for: etcd's checks, in etcd's order, by what the leader shows.
//!
//! A member that a client adds as a voter is a learner here until it has come and caught up, and so costs no quorum before. The checks are etcd's all the same:
//! they count it as the voter that it is to be.

use quorate_api::admin::{Progress, StatusResponse};
use quorate_api::log;

use crate::doors::members::{Change, Refusal, has_come, is_shown_as_voter};
use crate::level::REGISTRATIONS;

/// The most learners there may be when a client adds one: etcd's default.
const MAX_LEARNERS: usize = 1;

/// What is to be done next.
#[derive(Debug, PartialEq)]
pub(super) enum Step {
    /// The change is made, and committed.
    Made,
    /// Ask the leader for this configuration.
    Ask(log::Configuration),
    /// Look again: an earlier change is not finished.
    Wait,
}

/// The next step of `change`, by the status of the leader. It is about `member`, the ID of a member that is added among others. What `was_asked` for
/// before may have been done.
pub(super) fn next(
    leader: &StatusResponse,
    change: &Change,
    member: u64,
    was_asked: bool,
) -> Result<Step, Refusal> {
    let Some(current) = committed(leader) else { return Ok(Step::Wait) };
    let cluster = Cluster { current, progress: &leader.progress, leader: leader.member_id };
    if was_asked && is_made(current, change, member) {
        return Ok(Step::Made);
    }
    cluster.check(change, leader.level)?;
    let mut wanted = current.clone();
    match change {
        Change::Add { peer_address, learner } => {
            let registered = if *learner { log::Registration::Learner } else { log::Registration::Voter };
            wanted.learners.push(member);
            wanted.members.push(log::Member {
                id: member,
                peer_address: peer_address.clone(),
                registered: registered.into(),
                ..log::Member::default()
            });
        }
        Change::Remove(id) => {
            wanted.voters.retain(|voter| voter != id);
            wanted.learners.retain(|learner| learner != id);
            wanted.members.retain(|member| member.id != *id);
        }
        Change::Update(id, address) => {
            let known = wanted.members.iter_mut().find(|member| member.id == *id);
            known.ok_or(Refusal::NotFound)?.peer_address.clone_from(address);
        }
        Change::Promote(id) => {
            wanted.learners.retain(|learner| learner != id);
            wanted.voters.push(*id);
        }
    }
    if wanted == *current { Ok(Step::Made) } else { Ok(Step::Ask(wanted)) }
}

/// Whether the configuration is what `change` makes of it.
fn is_made(current: &log::Configuration, change: &Change, id: u64) -> bool {
    let member = current.members.iter().find(|member| member.id == id);
    match change {
        Change::Add { .. } => member.is_some(),
        Change::Remove(_) => member.is_none(),
        Change::Update(_, address) => member.is_some_and(|member| member.peer_address == *address),
        Change::Promote(_) => current.voters.contains(&id),
    }
}

/// The leader's configuration, unless it is being changed.
fn committed(leader: &StatusResponse) -> Option<&log::Configuration> {
    let status = leader.configuration.as_ref().filter(|status| status.committed)?;
    status.configuration.as_ref().filter(|current| current.outgoing.is_empty())
}

/// What is checked against.
#[derive(Debug, Clone, Copy)]
struct Cluster<'s> {
    current: &'s log::Configuration,
    progress: &'s [Progress],
    leader: u64,
}

impl Cluster<'_> {
    fn check(self, change: &Change, level: u32) -> Result<(), Refusal> {
        match change {
            Change::Add { peer_address, learner } => {
                if level < REGISTRATIONS {
                    return Err(Refusal::Unsupported);
                }
                self.may_add(*learner)?;
                self.is_free(peer_address, None)?;
                let learners = self.current.members.len() - self.voters().count();
                if *learner && learners >= MAX_LEARNERS {
                    return Err(Refusal::TooManyLearners);
                }
                Ok(())
            }
            Change::Remove(id) => {
                let member = self.member(*id);
                if member.is_none_or(|member| is_shown_as_voter(self.current, member)) {
                    self.may_remove(*id)?;
                }
                member.map(drop).ok_or(Refusal::NotFound)
            }
            Change::Update(id, address) => {
                self.member(*id).ok_or(Refusal::NotFound)?;
                self.is_free(address, Some(*id))
            }
            Change::Promote(id) => self.may_promote(*id),
        }
    }

    fn member(&self, id: u64) -> Option<&log::Member> {
        self.current.members.iter().find(|member| member.id == id)
    }

    /// Those that vote, or were registered to.
    fn voters(&self) -> impl Iterator<Item = &log::Member> {
        self.current.members.iter().filter(|member| is_shown_as_voter(self.current, member))
    }

    /// Whether the leader has heard of it lately. Of one that has just been added it only hopes so.
    fn is_heard(&self, id: u64) -> bool {
        let is_active = || self.progress.iter().any(|member| member.member_id == id && member.active);
        self.member(id).is_some_and(has_come) && (id == self.leader || is_active())
    }

    fn may_add(&self, learner: bool) -> Result<(), Refusal> {
        let (members, come) = (1 + self.voters().count(), self.voters().filter(|m| has_come(m)).count());
        // One may become two: otherwise it would stay alone for ever.
        if !learner && (members, come) != (2, 1) {
            is_majority(come, members)?;
        }
        let all_are_heard = self.voters().all(|voter| self.is_heard(voter.id));
        all_are_heard.then_some(()).ok_or(Refusal::Unhealthy)
    }

    fn may_remove(&self, id: u64) -> Result<(), Refusal> {
        let others = || self.voters().filter(|voter| voter.id != id);
        is_majority(others().filter(|member| has_come(member)).count(), others().count())?;
        // What is not heard is no part of the quorum that there is.
        if !self.is_heard(id) {
            return Ok(());
        }
        let (voters, heard) = (self.voters().count(), self.voters().filter(|v| self.is_heard(v.id)).count());
        let left_over = heard.saturating_sub(1);
        if left_over < 1 + voters.saturating_sub(1) / 2 { Err(Refusal::Unhealthy) } else { Ok(()) }
    }

    fn may_promote(&self, id: u64) -> Result<(), Refusal> {
        let matched = |id| self.progress.iter().find(|member| member.member_id == id).map(|m| m.r#match);
        let (own, end) = (matched(id).ok_or(Refusal::NotFound)?, matched(self.leader).unwrap_or(0));
        // Nine tenths of what the leader has.
        if u128::from(own) * 10 < u128::from(end) * 9 {
            return Err(Refusal::LearnerNotReady);
        }
        is_majority(1 + self.voters().filter(|m| has_come(m)).count(), 1 + self.voters().count())?;
        let member = self.member(id).ok_or(Refusal::NotFound)?;
        if is_shown_as_voter(self.current, member) { Err(Refusal::NotALearner) } else { Ok(()) }
    }

    /// Whether no other member than `own` has this address.
    fn is_free(&self, address: &str, own: Option<u64>) -> Result<(), Refusal> {
        let mut others = self.current.members.iter().filter(|member| Some(member.id) != own);
        if others.any(|member| member.peer_address == address) { Err(Refusal::AddressExists) } else { Ok(()) }
    }
}

fn is_majority(come: usize, members: usize) -> Result<(), Refusal> {
    if come < members / 2 + 1 { Err(Refusal::NotEnoughStarted) } else { Ok(()) }
}

#[cfg(test)]
mod tests;
