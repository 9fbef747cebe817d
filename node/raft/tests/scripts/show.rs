//! How messages, entries and the rest read in a script.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use quorate_raft::{
    Body, Configuration, Entry, HardState, LogId, MemberId, Message, Payload, Progress, ReadDone, Role,
    Snapshot, Status, Write,
};

pub(crate) fn member(id: MemberId) -> String {
    format!("n{}", id.0)
}

pub(crate) fn log_id(id: LogId) -> String {
    format!("{}.{}", id.term, id.index)
}

pub(crate) fn configuration(configuration: &Configuration) -> String {
    let mut text = format!("voters={}", set(&configuration.voters));
    if configuration.is_joint() {
        let _ = write!(text, " outgoing={}", set(&configuration.outgoing));
    }
    if !configuration.learners.is_empty() {
        let _ = write!(text, " learners={}", set(&configuration.learners));
    }
    text
}

/// What it covers, and the configuration there.
pub(crate) fn snapshot(snapshot: &Snapshot) -> String {
    let Snapshot { id, configuration: members, configuration_id } = snapshot;
    format!("{} with {} {}", log_id(*id), log_id(*configuration_id), configuration(members))
}

/// `term.index` and what it does.
pub(crate) fn entry(entry: &Entry) -> String {
    let payload = match &entry.payload {
        Payload::Noop => "noop".into(),
        Payload::Command(bytes) if bytes.len() > 8 => format!("{} bytes", bytes.len()),
        Payload::Command(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Payload::Configuration(c) => configuration(c),
    };
    format!("{} {payload}", log_id(entry.id()))
}

pub(crate) fn entries(list: &[Entry]) -> String {
    let list: Vec<String> = list.iter().map(entry).collect();
    format!("[{}]", list.join(", "))
}

pub(crate) fn write(write: &Write) -> String {
    let mut text = format!("write {}:", write.id.0);
    if let Some(HardState { term, vote, commit }) = write.hard_state {
        let _ = write!(text, " term={term} vote={} commit={commit}", vote.map_or("-".into(), member));
    }
    if let Some(id) = write.reset {
        let _ = write!(text, " begins anew after {}", log_id(id));
    }
    if let Some(LogId { term, index }) = write.lost {
        let end = if index == u64::MAX { "any".into() } else { index.to_string() };
        let _ = write!(text, " owes {term}.{end}");
    }
    if !write.entries.is_empty() {
        let _ = write!(text, " {}", entries(&write.entries));
    }
    text
}

/// A message; `question` gives the numbers of forwarded reads, which are drawn at random, a short name.
pub(crate) fn message(message: &Message, mut question: impl FnMut(u64) -> usize) -> String {
    let body = match &message.body {
        Body::AppendEntries { previous, entries: list, commit } => {
            format!("AppendEntries previous={} commit={commit} {}", log_id(*previous), entries(list))
        }
        Body::AppendAccepted { matched } => format!("AppendAccepted matched={matched}"),
        Body::AppendRejected { rejected, hint, lost } => {
            let lost = if *lost { " lost" } else { "" };
            format!("AppendRejected rejected={rejected} hint={}{lost}", log_id(*hint))
        }
        Body::InstallSnapshot { snapshot: offered, base } => {
            format!("InstallSnapshot {} base={}", snapshot(offered), log_id(*base))
        }
        Body::Heartbeat { commit, round, .. } => format!("Heartbeat commit={commit} round={round}"),
        Body::HeartbeatAck { round, priority, promise } => {
            let priority = unless_zero("priority", *priority);
            let promise = unless_zero("promise", *promise);
            format!("HeartbeatAck round={round}{priority}{promise}")
        }
        Body::RequestVote { pre_vote, last, transfer } => {
            let transfer = if *transfer { " transfer" } else { "" };
            format!("Request{}Vote last={}{transfer}", pre(*pre_vote), log_id(*last))
        }
        Body::Vote { pre_vote, granted } => {
            format!("{}Vote {}", pre(*pre_vote), if *granted { "granted" } else { "refused" })
        }
        Body::ReadIndex { id } => format!("ReadIndex question={}", question(*id)),
        Body::ReadIndexReply { id, index } => {
            let index = index.map_or("-".into(), |index| index.to_string());
            format!("ReadIndexReply question={} index={index}", question(*id))
        }
        Body::TimeoutNow => "TimeoutNow".into(),
        // The number is chance.
        Body::AskEnd { .. } => "AskEnd".into(),
        Body::End { last, .. } => format!("End last={last}"),
    };
    format!("{} -> {} term {} {body}", member(message.from), member(message.to), message.term)
}

pub(crate) fn read(done: &ReadDone) -> String {
    match done.index {
        Some(index) => format!("read {} may be served from index {index} on", done.id),
        None => format!("read {} has to be asked again", done.id),
    }
}

pub(crate) fn role(role: Role) -> &'static str {
    match role {
        Role::Learner => "learner",
        Role::Follower => "follower",
        Role::PreCandidate => "pre-candidate",
        Role::Candidate => "candidate",
        Role::Leader => "leader",
    }
}

pub(crate) fn status(status: &Status) -> String {
    let disk = if status.disk_hangs { " disk-hangs" } else { "" };
    let repairing = if status.repairing { " repairing" } else { "" };
    let contradiction = status.contradiction.map_or(String::new(), |what| format!(" contradiction={what:?}"));
    format!(
        "{}: {} term={} leader={} last={} commit={} configuration={} {}{disk}{repairing}{contradiction}",
        member(status.id),
        role(status.role),
        status.term,
        status.leader.map_or("-".into(), member),
        log_id(status.last),
        status.commit,
        log_id(status.configuration_id),
        configuration(&status.configuration),
    )
}

pub(crate) fn progress(progress: &Progress) -> String {
    let active = if progress.active { "active" } else { "silent" };
    let caught_up = if progress.caught_up { "caught-up" } else { "lagging" };
    let offered = progress.offered.map_or(String::new(), |id| format!(" offered={}", log_id(id)));
    let lost = if progress.lost { " lost" } else { "" };
    format!("{}: matched={} {active} {caught_up}{offered}{lost}", member(progress.id), progress.matched)
}

fn set(ids: &BTreeSet<MemberId>) -> String {
    ids.iter().map(|id| id.0.to_string()).collect::<Vec<_>>().join(",")
}

fn unless_zero(name: &str, value: u32) -> String {
    if value == 0 { String::new() } else { format!(" {name}={value}") }
}

fn pre(pre_vote: bool) -> &'static str {
    if pre_vote { "Pre" } else { "" }
}
