//! A snapshot that etcdctl has saved, of an etcd or of Quorate, becomes a new cluster of one.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use quorate_api::log;
use quorate_raft::{LogId, MemberId};
use ring::digest::{Context, SHA256};
use serde_json::{Value, json};

use super::recover::{check_owner, remove_leftover};
use super::{CtlError, Output, print};
use crate::backup::{self, Contained, HASH_BYTES, has_hash};
use crate::bolt::Database;
use crate::codec;
use crate::found::{Beginning, FoundError};
use crate::kv::Store;
use crate::snapshots;
use crate::storage::disk::{Disk, OsDisk};
use crate::storage::identity::{Identity, random_member};
use crate::storage::{self, ReadOnly, replacement};

/// Where the new log begins.
const FIRST: LogId = LogId { term: 1, index: 1 };

/// What may stand in a directory that is taken for an empty one.
const NOTHING: [&str; 3] = ["lock", "lost+found", "replacement.part"];

/// What is asked for.
#[derive(Debug)]
pub(super) struct Wish {
    pub file: PathBuf,
    pub dir: PathBuf,
    /// By how much revisions go up; none if they stay.
    pub bump_revision: Option<i64>,
    pub skip_hash_check: bool,
    pub without_users: bool,
    /// The ID of the new cluster; a random one if it is none.
    pub new_cluster: Option<u64>,
}

/// Why a snapshot cannot be restored. Nothing was changed, but for a directory that was made.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotFileError {
    /// It cannot be read.
    #[error("cannot read {}: {source}", file.display())]
    Read {
        /// The snapshot.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What is in it is not what it was.
    #[error(
        "{} is damaged: its SHA-256 is not the one at its end. Save another snapshot, or restore what is there with --skip-hash-check",
        file.display()
    )]
    Hash {
        /// The snapshot.
        file: PathBuf,
    },
    /// Nothing says what it was.
    #[error(
        "{} has no SHA-256 at its end, as a file has that is copied from an etcd's data directory: save a snapshot with etcdctl, or restore \
         this file with --skip-hash-check",
        file.display()
    )]
    NoHash {
        /// The snapshot.
        file: PathBuf,
    },
    /// It holds no state.
    #[error("{}: {source}", file.display())]
    Contents {
        /// The snapshot.
        file: PathBuf,
        /// Why.
        source: backup::RestoreError,
    },
    /// Whoever reads it may then read it without a name.
    #[error(
        "{} is of an etcd with authentication (users: {users}), which this version has not: every client could read and write all of it. If \
         that is wanted, say --without-users",
        file.display()
    )]
    Users {
        /// The snapshot.
        file: PathBuf,
        /// How many.
        users: u64,
    },
    /// Revisions end.
    #[error("revision {revision} cannot go up by {by}")]
    Overflow {
        /// What the snapshot is at.
        revision: i64,
        /// How much further it was to go.
        by: i64,
    },
    /// The data directory cannot be written.
    #[error(transparent)]
    Found(#[from] FoundError),
    /// What was written cannot be read back.
    #[error("what was written to {} cannot be read back: its disk may be damaged", dir.display())]
    NotReadBack {
        /// The data directory.
        dir: PathBuf,
    },
}

/// Makes the data directory.
pub(super) fn restore(output: Output, wish: &Wish) -> Result<(), CtlError> {
    let dir = &wish.dir;
    if dir.exists() {
        check_owner(dir)?;
    }
    let _lock = storage::lock(dir).map_err(of_dir)?;
    let pending = replacement::finish(&OsDisk, dir).map_err(of_dir)?;
    pending.as_deref().map_or(Ok(()), remove_empty)?;
    let identity = Identity::read(&OsDisk, dir).map_err(of_dir)?;
    if let Some(identity) =
        identity.filter(|identity| Some(identity.cluster) == wish.new_cluster || pending.is_some())
    {
        let cluster = print::id(identity.cluster);
        let what = format!("the directory is of the restored cluster {cluster} already: nothing was changed");
        return say(output, &format!("{what}\n"), &json!({ "done": what }));
    }
    check_empty(dir)?;
    remove_leftover(dir)?;

    let contained = read(wish)?;
    let Contained { mut store, missing_leases, users, alarms, changes, .. } = contained;
    let leases = store.leases().len();
    if let Some(by) = wish.bump_revision {
        let revision = store.revision();
        if !store.leap(by) {
            return Err(SnapshotFileError::Overflow { revision, by }.into());
        }
    }
    let (revision, compacted) = (store.revision(), store.compacted());
    let cluster = wish.new_cluster.map_or_else(|| random_member().map(|id| id.0), Ok)?;
    let member = random_member()?;
    write(dir, cluster, member, store)?;

    let left = [(users, "users"), (alarms, "alarms")];
    let left: Vec<_> = left.into_iter().filter(|(count, _)| *count > 0).collect();
    let found = json!({
        "cluster_id": print::id(cluster),
        "member_id": print::id(member.0),
        "revision": revision,
        "compacted": compacted,
        "changes": changes,
        "leases": leases,
        "missing_leases": missing_leases,
        "left_behind": left.iter().map(|(count, what)| ((*what).to_owned(), Value::from(*count))).collect::<Value>(),
    });
    let mut text = format!(
        "{} is member {member} of the new cluster {}, its one voter, at revision {revision}{}.\n",
        dir.display(),
        print::id(cluster),
        if compacted > 0 { format!(", compacted up to {compacted}") } else { String::new() },
    );
    if leases > 0 {
        let _ = writeln!(text, "Leases, each with its whole time again: {leases}.");
    }
    if missing_leases > 0 {
        let _ = writeln!(
            text,
            "Of these {missing_leases} were named by keys and did not exist: they live for the longest time there is."
        );
    }
    for (count, what) in left {
        let _ = writeln!(text, "Left behind: {count} {what}.");
    }
    text.push_str("Start a node on it, without --join; then add others with empty data directories.\n");
    say(output, &text, &found)
}

fn of_dir(error: impl Into<FoundError>) -> SnapshotFileError {
    error.into().into()
}

fn say(output: Output, text: &str, value: &Value) -> Result<(), CtlError> {
    match output {
        Output::Text => print::text(text)?,
        Output::Json => print::json(value)?,
    }
    Ok(())
}

/// Whoever names a directory that holds something may have named the wrong one.
fn check_empty(dir: &Path) -> Result<(), CtlError> {
    let names = OsDisk.list(dir)?;
    let Some(found) = names.iter().find(|name| !NOTHING.contains(&name.as_str())) else { return Ok(()) };
    let what = format!(
        "{} is not empty (it has {found}): name a directory that is not there yet, or remove what is in this one",
        dir.display()
    );
    Err(CtlError::Usage(what))
}

/// Removes what has made room, which is nothing.
fn remove_empty(old: &Path) -> Result<(), CtlError> {
    Ok(fs::remove_dir(old).and_then(|()| old.parent().map_or(Ok(()), fs::remove_dir_all))?)
}

/// Reads the snapshot, all of it, and checks that it is whole.
fn read(wish: &Wish) -> Result<Contained, SnapshotFileError> {
    let file = || wish.file.clone();
    let reading = |source| SnapshotFileError::Read { file: file(), source };
    let mut opened = File::open(&wish.file).map_err(reading)?;
    let bytes = opened.metadata().map_err(reading)?.len();
    let database = if has_hash(bytes) { bytes - HASH_BYTES } else { bytes };
    if !wish.skip_hash_check {
        if database == bytes {
            return Err(SnapshotFileError::NoHash { file: file() });
        }
        if !is_whole(&mut opened, database).map_err(reading)? {
            return Err(SnapshotFileError::Hash { file: file() });
        }
    }
    let database = Database::open(opened, database).map_err(backup::RestoreError::from);
    let contained = database.and_then(|database| backup::restore(&database));
    let contained = contained.map_err(|source| SnapshotFileError::Contents { file: file(), source })?;
    let Contained { users, auth_enabled, .. } = contained;
    if auth_enabled && !wish.without_users {
        return Err(SnapshotFileError::Users { file: file(), users });
    }
    Ok(contained)
}

/// Whether the first `bytes` have the hash that follows them.
fn is_whole(file: &mut File, bytes: u64) -> io::Result<bool> {
    let mut hash = Context::new(&SHA256);
    let mut buffer = vec![0; 1 << 20];
    let mut left = file.by_ref().take(bytes);
    loop {
        let read = left.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        hash.update(&buffer[..read]);
    }
    let mut said = Vec::new();
    file.read_to_end(&mut said)?;
    file.rewind()?;
    Ok(hash.finish().as_ref() == said)
}

/// Writes the directory, as a whole or not at all, and reads it back as a node does that starts on it.
fn write(dir: &Path, cluster: u64, member: MemberId, state: Store) -> Result<(), CtlError> {
    let disk: Arc<dyn Disk> = Arc::new(OsDisk);
    let described = log::Member { id: member.0, ..log::Member::default() };
    let beginning = Beginning { cluster, member, address: codec::address(&described), id: FIRST, state };
    let new = replacement::begin(&OsDisk, dir).map_err(of_dir)?;
    beginning.write(&disk, &new).map_err(of_dir)?;
    let read_back = snapshots::newest(&ReadOnly, &new).map_err(of_dir)?;
    if read_back.is_none_or(|(manifest, _)| manifest.id() != FIRST) {
        return Err(SnapshotFileError::NotReadBack { dir: dir.to_owned() }.into());
    }
    let old = replacement::exchange(&OsDisk, dir).map_err(of_dir)?;
    remove_empty(&old)
}
