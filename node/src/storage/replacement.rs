//! The contents of a data directory are replaced as a whole, whenever the process or the power ends.
//!
//! ```text
//! DATA_DIR/replacement.part/new/…     what is to come, while it is written: of no account, and removed by the next attempt
//!          replacement/new/…          it is whole and durable: from this name on it counts, and what follows is only moving
//!          replacement/old/…          what has made room for it
//!          before-MEMBER/old/…        the end: the member's directory as it was, to be used or removed by hand
//! ```
//!
//! The data directory itself may be a mount point, so it keeps its name, and what is in it moves. Every step is one rename, and [`finish`]
//! sees from what stands where which ones are still to be done: it goes on wherever it was interrupted. It rests on a rename between two
//! directories being there as a whole after a crash, as journaling file systems have it. Whoever uses a data directory calls it
//! first, with the directory's lock.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::disk::Disk;
use super::identity::{self, Identity};
use super::{CORRUPT, Context, OpenError, WAL_DIR};

const PART: &str = "replacement.part";
const PENDING: &str = "replacement";
/// What a directory is called that was replaced, with its member behind.
pub(super) const BEFORE: &str = "before-";

/// What a data directory is made of, in the order in which it is exchanged. The lock stays. Its identity comes last: with the old one a
/// log of the new member would be foreign.
const CONTENTS: [&str; 6] = ["copy", "copy.opening", CORRUPT, "snapshots", WAL_DIR, identity::NAME];

/// Whether a name in a data directory belongs to an exchange.
pub(super) fn is_of_replacement(name: &str) -> bool {
    name == PART || name == PENDING || name.starts_with(BEFORE)
}

/// Makes an empty data directory within `dir`, to be filled and handed to [`exchange`].
pub fn begin(disk: &dyn Disk, dir: &Path) -> Result<PathBuf, OpenError> {
    let part = dir.join(PART);
    for dir in [&part, &part.join("new"), &part.join("old")] {
        disk.create_dir(dir).on("create", dir)?;
    }
    disk.sync_dir(&part).on("sync", &part)?;
    Ok(part.join("new"))
}

/// Where an attempt that did not come to an end has left what it wrote.
pub fn leftover(dir: &Path) -> PathBuf {
    dir.join(PART)
}

/// Puts what [`begin`] has given, which is whole and durable, in the place of what `dir` holds. Returns where that is now.
pub fn exchange(disk: &dyn Disk, dir: &Path) -> Result<PathBuf, OpenError> {
    let (part, pending) = (dir.join(PART), dir.join(PENDING));
    let new = part.join("new");
    disk.sync_dir(&new).on("sync", &new)?;
    disk.rename(&part, &pending).on("rename", &part)?;
    disk.sync_dir(dir).on("sync", dir)?;
    let replaced = finish(disk, dir)?;
    Ok(replaced.expect("there is one to be finished"))
}

/// Ends an exchange that was begun, if there is one. Returns where the old contents are.
pub fn finish(disk: &dyn Disk, dir: &Path) -> Result<Option<PathBuf>, OpenError> {
    let pending = dir.join(PENDING);
    if !list(disk, dir)?.iter().any(|name| name == PENDING) {
        return Ok(None);
    }
    let (new, old) = (pending.join("new"), pending.join("old"));
    for name in CONTENTS {
        step(disk, dir, &new, &old, name)?;
    }
    let member = Identity::read(disk, &old)?.map_or(0, |identity| identity.member.0);
    let before = dir.join(format!("{BEFORE}{member:016x}"));
    disk.rename(&pending, &before).on("rename", &pending)?;
    disk.sync_dir(dir).on("sync", dir)?;
    Ok(Some(before.join("old")))
}

/// Exchanges one thing. What stands in `dir` is the old one as long as that has not moved to `old`.
fn step(disk: &dyn Disk, dir: &Path, new: &Path, old: &Path, name: &str) -> Result<(), OpenError> {
    let has = |place: &Path| Ok::<_, OpenError>(list(disk, place)?.iter().any(|found| found == name));
    let (here, comes) = (has(dir)?, has(new)?);
    // Nothing comes in the place of a copy, or of a mark. Of everything else, what is here when nothing is to come is the new one.
    let has_successor = name == identity::NAME || name == WAL_DIR || name == "snapshots";
    if here && (comes || !has_successor) {
        let from = dir.join(name);
        disk.rename(&from, &old.join(name)).on("rename", &from)?;
        disk.sync_dir(old).on("sync", old)?;
        disk.sync_dir(dir).on("sync", dir)?;
    }
    if comes {
        let from = new.join(name);
        disk.rename(&from, &dir.join(name)).on("rename", &from)?;
        disk.sync_dir(dir).on("sync", dir)?;
        disk.sync_dir(new).on("sync", new)?;
    }
    Ok(())
}

fn list(disk: &dyn Disk, dir: &Path) -> Result<Vec<String>, OpenError> {
    match disk.list(dir) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        listed => listed.on("list", dir),
    }
}
