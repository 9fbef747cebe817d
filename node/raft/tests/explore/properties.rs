//! What must hold in every state.

use std::collections::BTreeSet;

use quorate_raft::{Body, Configuration, Entry, LogId, MemberId, Message, Payload, Term};

use crate::harness::at;
use crate::member::{Member, View};

/// What was ever known to be committed: for each term in which that went further, how far.
pub(crate) type Committed = Vec<(LogId, Term)>;

/// What a message shows for good, of which there may be one in a term.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Sign {
    /// This member votes for that.
    Vote(Term, MemberId, MemberId),
    /// This member leads.
    Leader(Term, MemberId),
}

impl Sign {
    pub(crate) fn of(message: &Message) -> Option<Self> {
        let Message { from, to, term, .. } = *message;
        match message.body {
            Body::Vote { pre_vote: false, granted: true } => Some(Self::Vote(term, from, to)),
            Body::RequestVote { pre_vote: false, .. } => Some(Self::Vote(term, from, from)),
            Body::AppendEntries { .. } | Body::Heartbeat { .. } | Body::InstallSnapshot { .. } => {
                Some(Self::Leader(term, from))
            }
            _ => None,
        }
    }

    /// One vote in a term, whatever restarts there were; and Election Safety (Raft paper, figure 3).
    pub(crate) fn contradicts(self, other: Self) -> bool {
        match (self, other) {
            (Self::Vote(term, voter, one), Self::Vote(same, who, another)) => {
                (term, voter) == (same, who) && one != another
            }
            (Self::Leader(term, one), Self::Leader(same, another)) => term == same && one != another,
            _ => false,
        }
    }
}

/// Of one member.
pub(crate) fn alone(member: &Member) -> Result<(), String> {
    let configurations: Vec<&Configuration> = configurations(&member.log).map(|(_, c)| c).collect();
    match configurations.windows(2).find(|pair| !overlap(pair[0], pair[1])) {
        Some(pair) => Err(format!("quorums that do not overlap: {pair:?}")),
        None => Ok(()),
    }
}

/// Of two members: Election Safety, Log Matching, State Machine Safety.
pub(crate) fn together(a: (&Member, &View), b: (&Member, &View)) -> Result<(), String> {
    if a.1.leads && b.1.leads && a.1.term == b.1.term {
        return Err("election safety: two leaders in one term".into());
    }
    for one in [&a.0.log, &a.0.disk.entries] {
        for other in [&b.0.log, &b.0.disk.entries] {
            if !match_up(one, other) {
                return Err(format!("log matching: {one:?} and {other:?}"));
            }
        }
    }
    let both = a.1.committed.index.min(b.1.committed.index);
    if at(&a.0.log, both) != at(&b.0.log, both) {
        return Err(format!("state machine safety at {both}"));
    }
    Ok(())
}

/// Of all of them, and of what was ever committed.
pub(crate) fn all(members: &[(&Member, &View)], committed: &Committed) -> Result<(), String> {
    for (member, view) in members.iter().filter(|(_, view)| view.leads) {
        let earlier = committed.iter().filter(|(_, known_in)| *known_in < view.term);
        for (id, _) in earlier {
            if !holds(&member.log, *id) {
                return Err(format!("leader completeness: {} lacks {id:?}", view.id));
            }
        }
    }
    let Some((newest, _)) = committed.last() else { return Ok(()) };
    let Some((holder, _)) = members.iter().find(|(member, _)| holds(&member.log, *newest)) else {
        // When all disks that had it are damaged it is gone. But they know, and nobody is elected without it.
        let is_owed = members.iter().any(|(member, _)| answers_for(member, *newest));
        return if is_owed { Ok(()) } else { Err(format!("nobody holds {newest:?}, which is committed")) };
    };
    if let Some((_, view)) = members.iter().find(|(_, view)| !holds(&holder.log, view.committed)) {
        return Err(format!("{} has {:?} committed, others another", view.id, view.committed));
    }
    let durable =
        |id: MemberId| members.iter().any(|(member, view)| view.id == id && answers_for(member, *newest));
    let from =
        configurations(&holder.log).filter(|(index, _)| *index <= newest.index).count().saturating_sub(1);
    let mut counting = configurations(&holder.log).skip(from);
    if counting.any(|(_, configuration)| is_quorum(configuration, durable)) {
        Ok(())
    } else {
        Err(format!("{newest:?} is committed, and not durable on a quorum"))
    }
}

/// Whether the disk holds `id`; or has lost it, and the member owes it.
fn answers_for(member: &Member, id: LogId) -> bool {
    holds(&member.disk.entries, id) || member.disk.lost.is_some_and(|lost| lost >= id)
}

fn holds(log: &[Entry], id: LogId) -> bool {
    at(log, id.index).is_some_and(|entry| entry.id() == id)
}

/// The newest entry that both have under the same name, and everything before it, is the same.
fn match_up(a: &[Entry], b: &[Entry]) -> bool {
    let newest = a.iter().zip(b).rposition(|(a, b)| a.id() == b.id());
    newest.is_none_or(|newest| a[..=newest] == b[..=newest])
}

fn configurations(log: &[Entry]) -> impl Iterator<Item = (u64, &Configuration)> {
    log.iter().filter_map(|entry| match &entry.payload {
        Payload::Configuration(configuration) => Some((entry.index, &**configuration)),
        Payload::Noop | Payload::Command(_) => None,
    })
}

fn is_quorum(configuration: &Configuration, holds: impl Fn(MemberId) -> bool) -> bool {
    let majority = |set: &BTreeSet<MemberId>| {
        set.is_empty() || set.iter().filter(|id| holds(**id)).count() * 2 > set.len()
    };
    majority(&configuration.voters) && majority(&configuration.outgoing)
}

/// Whether no two quorums are without a common member: of each choice of members one side at most is a quorum.
fn overlap(a: &Configuration, b: &Configuration) -> bool {
    let everyone: Vec<MemberId> = a.members().union(&b.members()).copied().collect();
    (0..1_u32 << everyone.len()).all(|choice| {
        let chosen =
            |id: MemberId| everyone.iter().position(|e| *e == id).is_some_and(|at| choice >> at & 1 == 1);
        !(is_quorum(a, chosen) && is_quorum(b, |id| !chosen(id)))
    })
}
