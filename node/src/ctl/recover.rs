//! A lost quorum: what one stopped member holds, and how it becomes a new cluster of one.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, BufRead as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;

use quorate_raft::MemberId;
use serde_json::{Value, json};

use super::{CtlError, Output, print};
use crate::codec;
use crate::recover::{self, Founded, RecoverError, Remains};
use crate::snapshots::Corrupt;
use crate::storage::disk::OsDisk;
use crate::storage::identity::random_member;
use crate::storage::{self, replacement};

/// What is asked for.
#[derive(Debug)]
pub(super) struct Wish {
    /// The ID of the old cluster, as it would be typed.
    pub understood: Option<String>,
    /// The ID of the new cluster; a random one if it is none.
    pub new_cluster: Option<u64>,
    /// By how much revisions go up.
    pub bump_revision: i64,
}

/// Shows what `dir` holds, asks, and makes a new cluster of it.
pub(super) fn recover(output: Output, dir: &Path, wish: &Wish) -> Result<(), CtlError> {
    let by = wish.bump_revision;
    check_owner(dir)?;
    let _lock = storage::lock(dir).map_err(RecoverError::from)?;
    if let Some(before) = replacement::finish(&OsDisk, dir).map_err(RecoverError::from)? {
        let what = format!(
            "ended a recovery that was interrupted; what was there before is in {}",
            before.display()
        );
        match output {
            Output::Text => print::text(&format!("{what}\n"))?,
            Output::Json => print::json(&json!({ "done": what }))?,
        }
        return Ok(());
    }
    let remains = recover::read(dir)?;
    if Some(remains.identity.cluster) == wish.new_cluster {
        return already(output, remains.identity.cluster);
    }
    let shown = json_of(dir, &remains);
    if output == Output::Text {
        print::text(&text(dir, &remains, by))?;
    }
    confirm(remains.identity.cluster, wish.understood.as_deref(), output)?;
    remove_leftover(dir)?;
    let cluster = wish.new_cluster.map_or_else(|| random_member().map(|id| id.0), Ok)?;
    let ids = (cluster, random_member()?);
    let founded = remains.found(&(Arc::new(OsDisk) as _), dir, ids, by)?;
    match output {
        Output::Text => print::text(&done(&founded))?,
        Output::Json => print::json(&json!({
            "found": shown,
            "cluster_id": print::id(founded.cluster),
            "member_id": print::id(founded.member.0),
            "revision": founded.revision,
            "before": founded.before.display().to_string(),
        }))?,
    }
    Ok(())
}

/// Asked for once more: it was done before.
fn already(output: Output, cluster: u64) -> Result<(), CtlError> {
    let what = format!("the directory is of cluster {} already: nothing was changed", print::id(cluster));
    match output {
        Output::Text => print::text(&format!("{what}\n"))?,
        Output::Json => print::json(&json!({ "done": what }))?,
    }
    Ok(())
}

/// What it writes belongs to the user that runs it: a node that runs as another could not read it.
pub(super) fn check_owner(dir: &Path) -> Result<(), CtlError> {
    let found = fs::metadata(dir.join("identity")).or_else(|_| fs::metadata(dir));
    let owner =
        found.map_err(|error| CtlError::Usage(format!("cannot look at {}: {error}", dir.display())))?;
    let me = rustix::process::geteuid().as_raw();
    if owner.uid() == me {
        return Ok(());
    }
    let what = format!(
        "{} belongs to user {}, and this is user {me}: run it as the user that the node runs as",
        dir.display(),
        owner.uid()
    );
    Err(CtlError::Usage(what))
}

/// Whoever says which cluster it is has read what it means.
fn confirm(cluster: u64, understood: Option<&str>, output: Output) -> Result<(), CtlError> {
    let wanted = print::id(cluster);
    let said = match understood {
        Some(id) => id.to_owned(),
        None if output == Output::Json => {
            let what = format!("nothing was changed: say --yes-i-understand {wanted}");
            return Err(CtlError::Usage(what));
        }
        None => {
            print::progress(&format!("Type the cluster's ID ({wanted}) to go on:"));
            let mut line = String::new();
            io::stdin().lock().read_line(&mut line)?;
            line
        }
    };
    if said.trim() == wanted {
        return Ok(());
    }
    Err(CtlError::Usage(format!("nothing was changed: {:?} is not the cluster's ID {wanted}", said.trim())))
}

/// What an attempt has left that did not come to its end.
pub(super) fn remove_leftover(dir: &Path) -> Result<(), CtlError> {
    match fs::remove_dir_all(replacement::leftover(dir)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

fn text(dir: &Path, remains: &Remains, by: i64) -> String {
    let Remains { identity, log, snapshot, last, .. } = remains;
    let mut lines = String::new();
    let mut add = |about: &str, text: &str| {
        let _ = writeln!(lines, "{about:<11}{text}");
    };
    add("directory", &dir.display().to_string());
    let removed = if identity.removed > 0 { ", which has removed it" } else { "" };
    add(
        "identity",
        &format!("member {} of cluster {}{removed}", identity.member, print::id(identity.cluster)),
    );
    add("members", &members(remains).join(", "));
    add("snapshot", &format!("up to entry {} of term {}", snapshot.index, snapshot.term));
    add("log", &format!("up to entry {} of term {}", last.index, last.term));
    add("committed", &format!("up to entry {} at least", log.hard_state.commit.max(snapshot.index)));
    let revision = remains.revision();
    add("revision", &format!("{revision}, and {} from now on", revision.saturating_add(by)));
    add("", "");
    if remains.uncertain() > 0 {
        add(
            "kept",
            &format!(
                "the last {} entries, which are not known to be committed: some may have been acknowledged, others never were",
                remains.uncertain()
            ),
        );
    }
    if let Some(missing) = missing(remains) {
        add("lost", &missing);
    }
    if let Some(wrong) = wrong(remains) {
        add("corrupt", &wrong);
    }
    add(
        "lost",
        "whatever the other members have acknowledged without this one: if one of them can still be had, recover the one whose log is longest",
    );
    add(
        "ends",
        "every other member of the old cluster: their volumes are refused by the new one, and so is this one by them",
    );
    add("ends", "every watch and cache of an older revision: they are told that it is compacted");
    lines
}

/// What damage has taken of the log.
fn missing(remains: &Remains) -> Option<String> {
    let worst = remains.log.damage.first()?;
    let lost = remains.log.lost?;
    Some(format!("entries {} to {} (term {}): {worst}", remains.last.index + 1, lost.index, lost.term))
}

/// What is known to be wrong with the state.
fn wrong(remains: &Remains) -> Option<String> {
    let Corrupt { id, own, majority } = remains.corrupt?;
    Some(format!(
        "up to entry {} this member's state ({own}) was not that of a majority ({majority}), and nobody knows which keys differ: the new cluster \
         would serve it. Recover another member if one of them can still be had",
        id.index
    ))
}

/// Names and IDs, voters first.
fn members(remains: &Remains) -> Vec<String> {
    let configuration = &remains.configuration;
    let name = |id: &MemberId| {
        let known = configuration.addresses.get(id).and_then(|address| codec::member(address).ok());
        let name = known.map(|member| member.name).filter(|name| !name.is_empty());
        let role = if configuration.is_voter(*id) { "" } else { ", a learner" };
        name.map_or_else(|| format!("{id}{role}"), |name| format!("{name} ({id}{role})"))
    };
    configuration.members().iter().map(name).collect()
}

fn json_of(dir: &Path, remains: &Remains) -> Value {
    let Remains { identity, log, snapshot, last, .. } = remains;
    json!({
        "directory": dir.display().to_string(),
        "member_id": print::id(identity.member.0),
        "cluster_id": print::id(identity.cluster),
        "members": members(remains),
        "snapshot": snapshot.index,
        "last": { "term": last.term, "index": last.index },
        "commit": log.hard_state.commit,
        "uncertain": remains.uncertain(),
        "missing": missing(remains),
        "corrupt": wrong(remains),
        "revision": remains.revision(),
    })
}

fn done(founded: &Founded) -> String {
    let Founded { cluster, member, revision, before } = founded;
    format!(
        "\nThe directory is member {member} of the new cluster {}, its one voter, at revision {revision}.\n\
         Start the node on it as before, without --join; add members with empty data directories.\n\
         What it held before is in {}: remove it when all is well.\n",
        print::id(*cluster),
        before.display()
    )
}
