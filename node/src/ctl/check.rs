//! A data directory, looked at from outside: what is in it, whether it is whole, what a node makes of it.

use std::fmt::Write as _;
use std::path::Path;

use quorate_raft::{Entry, HardState, LogId};
use serde_json::{Value, json};

use super::{CtlError, Output, print};
use crate::snapshots::{self, Manifest, SnapshotError};
use crate::storage::identity::Identity;
use crate::storage::{Damage, Inspection, LogContents, OpenError, ReadOnly, Recovered, inspect};

/// Shows what stands in `dir`. An error when it is damaged, after that.
pub(super) fn check(output: Output, dir: &Path) -> Result<(), CtlError> {
    let usage = |error: &dyn std::fmt::Display| CtlError::Usage(error.to_string());
    let snapshots = snapshots::inspect(&ReadOnly, dir).map_err(|error| usage(&error))?;
    let newest = snapshots.iter().rev().find_map(|snapshot| snapshot.as_ref().ok());
    let found = inspect(dir, newest.map(Manifest::id)).map_err(|error| usage(&error))?;
    let damage = damage(&found, &snapshots);
    if found.is_foreign() {
        let what = format!("{} is no data directory: it has neither an identity nor a log", dir.display());
        return Err(CtlError::Usage(what));
    }
    if let Some(holder) = &found.held {
        let holder = if holder.is_empty() { String::new() } else { format!(" {holder}") };
        print::progress(&format!(
            "warning: the directory is in use{holder}: what is being written may look as if it were not finished"
        ));
    }
    if let Ok(Some(corrupt)) = snapshots::read_mark(&ReadOnly, dir) {
        print::progress(&format!("warning: {corrupt}"));
    }
    match output {
        Output::Text => print::text(&text(dir, &found, &snapshots))?,
        Output::Json => print::json(&json(dir, &found, &snapshots))?,
    }
    match damage {
        Some(_) => Err(CtlError::Damaged { dir: dir.to_owned() }),
        None => Ok(()),
    }
}

type Snapshots = [Result<Manifest, SnapshotError>];

/// Why not everything is there: the first reason.
fn damage(found: &Inspection, snapshots: &Snapshots) -> Option<String> {
    let of_snapshots =
        || snapshots.iter().find_map(|snapshot| snapshot.as_ref().err()).map(ToString::to_string);
    found.damage().or_else(|| Some(refusal(found, snapshots)?.to_string())).or_else(of_snapshots)
}

/// Why a node refuses to start on the log that was found, with the newest whole snapshot.
fn refusal(found: &Inspection, snapshots: &Snapshots) -> Option<OpenError> {
    let newest = snapshots.iter().rev().find_map(|snapshot| snapshot.as_ref().ok());
    let member = found.identity.as_ref().ok()?.as_ref()?.member;
    let log = found.log.as_ref()?.as_ref().ok()?;
    log.recovered.check(member, newest.map(|manifest| &manifest.snapshot)).err()
}

fn text(dir: &Path, found: &Inspection, snapshots: &Snapshots) -> String {
    let mut lines = Lines::default();
    let whole = if damage(found, snapshots).is_none() { "whole" } else { "DAMAGED" };
    lines.add("directory", &format!("{}: {whole}", dir.display()));
    match &found.identity {
        Ok(Some(Identity { member, cluster: 0, .. })) => {
            lines.add("identity", &format!("member {member}, of no cluster yet"));
        }
        Ok(Some(Identity { member, cluster, removed, leases })) => {
            let removed = if *removed > 0 { ", which has removed it" } else { "" };
            let leases = if *leases { "; started with leases" } else { "" };
            let cluster = print::id(*cluster);
            lines.add("identity", &format!("member {member} of cluster {cluster}{removed}{leases}"));
        }
        Ok(None) => lines.add("identity", "none: a node that starts here is a new member"),
        Err(error) => lines.add("damage", &error.to_string()),
    }
    match &found.log {
        Some(Ok(log)) => add_log(&mut lines, log, refusal(found, snapshots).as_ref()),
        Some(Err(error)) => {
            lines.add("damage", &error.to_string());
            lines.add("a node", "refuses to start on it");
        }
        None => lines.add("log", if found.identity.is_ok() { "none" } else { "not looked at" }),
    }
    for snapshot in snapshots {
        match snapshot {
            Ok(manifest) => {
                let (LogId { term, index }, bytes) = (manifest.id(), manifest.bytes());
                lines.add("snapshot", &format!("up to entry {index} of term {term}, {bytes} bytes, whole"));
            }
            Err(error) => lines.add("damage", &error.to_string()),
        }
    }
    for path in &found.left_over {
        lines.add("left over", &format!("{}: not needed", path.display()));
    }
    lines.0
}

fn add_log(lines: &mut Lines, log: &LogContents, refusal: Option<&OpenError>) {
    let recovered = &log.recovered;
    let HardState { term, vote, commit } = recovered.hard_state;
    let spare = if log.spare { ", the last one unused" } else { "" };
    let segments = log.segments + usize::from(log.spare);
    lines.add("log", &format!("{segments} segments{spare}; {} bytes", log.bytes));
    lines.add("entries", &entries(recovered));
    let vote = vote.map_or_else(|| "no vote".to_owned(), |vote| format!("vote for {vote}"));
    lines.add("state", &format!("term {term}, {vote}, committed up to {commit} at least"));
    for torn in &log.torn {
        lines.add("torn", &format!("{} at byte {}: {}", torn.path.display(), torn.offset, torn.what));
    }
    for damage in &recovered.damage {
        lines.add("damage", &damage.to_string());
    }
    if let Some(lost) = recovered.lost {
        let first = end(recovered).index + 1;
        lines.add("missing", &format!("entries {first} to {} (term {})", lost.index.max(first), lost.term));
    }
    for fate in fate(log, refusal) {
        lines.add("a node", &fate);
    }
}

fn entries(recovered: &Recovered) -> String {
    let LogId { term, index } = recovered.base;
    let begins = if index > 0 { format!(", after entry {index} of term {term}") } else { String::new() };
    match (recovered.entries.first(), recovered.entries.last()) {
        (Some(first), Some(last)) => {
            format!("{} to {}, of terms {} to {}{begins}", first.index, last.index, first.term, last.term)
        }
        _ => format!("none{begins}"),
    }
}

/// What a node does that starts on such a log.
fn fate(log: &LogContents, refusal: Option<&OpenError>) -> Vec<String> {
    let mut fate = Vec::new();
    if !log.torn.is_empty() {
        fate.push("cuts what was not written in full: it was never acknowledged".to_owned());
    }
    fate.extend(match refusal {
        Some(OpenError::OnlyVoter(_)) => {
            Some("refuses to start on it: as the only voter it cannot be repaired".to_owned())
        }
        Some(other) => Some(format!("refuses to start on it: {other}")),
        None if log.recovered.lost.is_some() => Some(
            "keeps what is whole, and takes no part in elections until its leader has sent the rest"
                .to_owned(),
        ),
        None if !log.recovered.damage.is_empty() => {
            Some("starts: nothing that it needs is missing".to_owned())
        }
        None => None,
    });
    fate
}

/// The end of what is whole.
fn end(recovered: &Recovered) -> LogId {
    recovered.entries.last().map_or(recovered.base, Entry::id)
}

fn json(dir: &Path, found: &Inspection, snapshots: &Snapshots) -> Value {
    let identity = found.identity.as_ref().ok().and_then(Option::as_ref);
    let log = found.log.as_ref().and_then(|log| log.as_ref().ok());
    json!({
        "directory": dir.display().to_string(),
        "whole": damage(found, snapshots).is_none(),
        "damage": damage(found, snapshots),
        "held": found.held,
        "member_id": identity.map(|identity| print::id(identity.member.0)),
        "cluster_id": identity.map(|identity| print::id(identity.cluster)),
        "log": log.map(|log| log_json(log, refusal(found, snapshots).as_ref())),
        "snapshots": snapshots.iter().map(snapshot_json).collect::<Vec<_>>(),
        "left_over": found.left_over.iter().map(|path| path.display().to_string()).collect::<Vec<_>>(),
    })
}

fn snapshot_json(snapshot: &Result<Manifest, SnapshotError>) -> Value {
    match snapshot {
        Ok(manifest) => {
            let LogId { term, index } = manifest.id();
            json!({ "term": term, "index": index, "bytes": manifest.bytes() })
        }
        Err(error) => json!({ "damage": error.to_string() }),
    }
}

fn log_json(log: &LogContents, refusal: Option<&OpenError>) -> Value {
    let Recovered { hard_state, base, entries, lost, damage, .. } = &log.recovered;
    let id = |id: LogId| json!({ "term": id.term, "index": id.index });
    let places = |places: &[Damage]| {
        let place = |place: &Damage| json!({ "file": place.path.display().to_string(), "offset": place.offset, "what": place.what });
        places.iter().map(place).collect::<Vec<_>>()
    };
    json!({
        "segments": log.segments,
        "spare": log.spare,
        "bytes": log.bytes,
        "after": id(*base),
        "first": entries.first().map(|entry| id(entry.id())),
        "last": entries.last().map(|entry| id(entry.id())),
        "term": hard_state.term,
        "vote": hard_state.vote.map(|vote| print::id(vote.0)),
        "commit": hard_state.commit,
        "torn": places(&log.torn),
        "damage": places(damage),
        "lost": lost.map(id),
        "a_node": fate(log, refusal),
    })
}

/// Lines with what they are about before them.
#[derive(Debug, Default)]
struct Lines(String);

impl Lines {
    fn add(&mut self, about: &str, text: &str) {
        let _ = writeln!(self.0, "{about:<11}{text}");
    }
}
