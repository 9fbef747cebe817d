//! What the members say of their builds, and whether the level of the cluster may be raised.
//!
//! Each member says which levels it supports in the hello of each stream to another, and tells its leader again now and then. A level is
//! proposed only while every member of the configuration, old and new, voter or learner, has said lately that it supports it. A build that
//! does not say so supports none but the first.

use std::collections::BTreeMap;
use std::fmt;

use quorate_raft::{
    ChangeError, Configuration, Entry, Index, MemberId, Payload, ProposeError, Restored, Term,
};

use super::{Message, Replica};
use crate::level::{FIRST, Level, Levels, VERSION};
use crate::{codec, command};
use quorate_api::log;
use quorate_api::log::command::Operation;

/// How often, in ticks, a member says what it supports.
pub(super) const TELLS_EVERY: u64 = 50;

/// For how many ticks that counts: a member that was started as another version says so soon.
const COUNTS_FOR: u64 = 4 * TELLS_EVERY;

/// The member that proposes what nobody waits for, such as a raise of the level: 0 is no member.
pub(super) const NO_ORIGIN: u64 = 0;

/// A member's build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Build {
    /// The product's version.
    pub version: String,
    /// What it supports.
    pub levels: Levels,
}

/// What others have said, and when.
#[derive(Debug, Default)]
pub(super) struct Builds {
    told: BTreeMap<MemberId, (Build, u64)>,
    /// The leader that was told last, and its term.
    leader: Option<(Term, MemberId)>,
    /// The level that this member has proposed as the leader of a term.
    proposed: Option<(Term, Level)>,
}

impl Builds {
    /// A member says what it supports.
    pub(super) fn told(&mut self, from: MemberId, build: Build, now: u64) {
        self.told.insert(from, (build, now));
    }

    /// Time passes.
    pub(super) fn tick(&mut self, now: u64) {
        self.told.retain(|_, (_, told)| now < *told + COUNTS_FOR);
    }

    /// Whether this leader has not been told yet.
    fn is_new(&mut self, leader: (Term, MemberId)) -> bool {
        self.leader.replace(leader) != Some(leader)
    }

    /// The members that do not support `to`, as far as is known.
    fn lacking(&self, members: impl Iterator<Item = MemberId>, to: Level) -> Vec<Lacking> {
        let build = |id: &MemberId| self.told.get(id).map(|(build, _)| build.clone());
        members
            .filter(|id| !build(id).is_some_and(|build| build.levels.contains(to)))
            .map(|id| Lacking { id, build: build(&id) })
            .collect()
    }
}

/// A member that does not support a level.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lacking {
    /// Which.
    pub id: MemberId,
    /// What it has said of its build. None if nothing was heard of it lately, or its build is older than such messages.
    pub build: Option<Build>,
}

impl fmt::Display for Lacking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.build {
            Some(Build { version, levels }) => write!(f, "{} (version {version}) supports {levels}", self.id),
            None => write!(f, "{} has not said lately what it supports", self.id),
        }
    }
}

/// Why the level of the cluster is not raised.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RaiseError {
    /// This member does not lead, or hands over.
    #[error(transparent)]
    NotNow(#[from] ProposeError),
    /// Not every member supports that level.
    #[error("level {to} is not supported by every member: {}", list(members))]
    Unsupported {
        /// The level.
        to: Level,
        /// Those that do not.
        members: Vec<Lacking>,
    },
}

fn list(members: &[Lacking]) -> String {
    members.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

impl Replica {
    /// Proposes to raise the level of the cluster to `to`, or to the newest that this member supports; returns it. Nothing is proposed if the
    /// cluster has it. The level has risen when [`Self::level`] shows it.
    pub fn raise_level(&mut self, to: Option<Level>) -> Result<Level, RaiseError> {
        let to = to.unwrap_or(self.levels.newest);
        if let (_, leader) = self.raft.leadership()
            && leader != Some(self.id)
        {
            return Err(ProposeError::NotLeader { leader }.into());
        }
        if to <= self.level {
            return Ok(self.level);
        }
        self.builds.told(self.id, self.build(), self.now);
        let members = self.raft.status().configuration.members();
        let members = self.builds.lacking(members.into_iter(), to);
        if !members.is_empty() {
            return Err(RaiseError::Unsupported { to, members });
        }
        // No other is committed at this place: its number is unique.
        let number = self.raft.last().index + 1;
        let (_, term) = self.raft.propose(vec![raise(to, number)])?;
        self.builds.proposed = Some((term, to));
        Ok(to)
    }

    /// An error if a voter that a change of membership brings has not said lately that it supports the newest level in the log: it has ended
    /// at the entry that raises it, or will, and would be missing in the majority. The leader knows.
    pub(super) fn check_levels(&self, wanted: &Configuration) -> Result<(), ChangeError> {
        let format = codec::needs(&codec::configuration_to_wire(wanted));
        if format > self.level {
            let what = format!(
                "members are registered from level {format} of the cluster on, and it has {}",
                self.level
            );
            return Err(ChangeError::Invalid(what));
        }
        let (term, leader) = self.raft.leadership();
        if leader != Some(self.id) {
            return Ok(());
        }
        // What earlier terms have raised shows once all of it is applied.
        if self.writes.applied_term() != term {
            return Err(ChangeError::InProgress);
        }
        let proposed = self.builds.proposed.filter(|(of, _)| *of == term).map_or(FIRST, |(_, to)| to);
        let needs = self.level.max(proposed);
        let current = self.raft.status().configuration.voters;
        let new = wanted.voters.difference(&current).copied();
        // Builds that do not say what they support have the first.
        match self.builds.lacking(new, needs).first().filter(|_| needs > FIRST) {
            Some(lacking) => {
                tracing::warn!(%lacking, level = needs, "a learner is not made a voter");
                Err(ChangeError::Lagging(lacking.id))
            }
            None => Ok(()),
        }
    }

    fn build(&self) -> Build {
        Build { version: VERSION.to_owned(), levels: self.levels }
    }

    /// Tells the leader what this member supports: a new one at once, and every one now and then.
    pub(super) fn tell_build(&mut self) {
        let (term, leader) = self.raft.leadership();
        let Some(leader) = leader.filter(|leader| *leader != self.id) else { return };
        if self.builds.is_new((term, leader)) || self.now.is_multiple_of(TELLS_EVERY) {
            let (from, quota, stands_still) = (self.id, self.quota.own(), self.applier_stands_still());
            self.messages.push(Message::Supports {
                from,
                to: leader,
                build: self.build(),
                quota,
                stands_still,
            });
        }
    }
}

fn raise(to: Level, number: u64) -> bytes::Bytes {
    command::encode(NO_ORIGIN, number, Operation::RaiseLevel(log::RaiseLevel { to }))
}

/// The log of a cluster that `log`'s founder begins: with the newest level that it supports, as there is no older member.
pub fn found_at(level: Level, mut founding: Restored) -> Restored {
    if level > FIRST {
        let index: Index = founding.entries.len() as Index + 1;
        let payload = Payload::Command(raise(level, index));
        founding.entries.push(Entry { term: founding.hard_state.term, index, payload });
        // Its own vote is a quorum, and the entry is durable before anything is restored from it.
        founding.hard_state.commit = index;
    }
    founding
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build(newest: Level) -> Build {
        Build { version: format!("0.{newest}.0"), levels: Levels { oldest: FIRST, newest } }
    }

    #[test]
    fn a_level_needs_every_member_and_what_they_said_lately() {
        let mut builds = Builds::default();
        let members = || [1, 2, 3].map(MemberId).into_iter();
        builds.told(MemberId(1), build(2), 0);
        builds.told(MemberId(2), build(1), 0);
        let lacking = builds.lacking(members(), 2);
        let error = RaiseError::Unsupported { to: 2, members: lacking }.to_string();
        assert!(error.contains("0000000000000002 (version 0.1.0) supports level 1, "), "{error}");
        assert!(error.contains("0000000000000003 has not said lately"), "{error}");
        (2..4).for_each(|id| builds.told(MemberId(id), build(2), COUNTS_FOR / 2));
        assert_eq!(builds.lacking(members(), 2), []);
        builds.tick(COUNTS_FOR);
        assert_eq!(builds.lacking(members(), 2), [Lacking { id: MemberId(1), build: None }]);
    }
}
