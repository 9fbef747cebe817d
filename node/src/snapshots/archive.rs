//! The snapshots in a data directory.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use quorate_raft::LogId;

use super::file::{Kept, Part};
use super::manifest::Manifest;
use super::{Context, DIR, SnapshotError};
use crate::kv::Store;
use crate::kv::snapshot::Restore;
use crate::storage::disk::{Dir, Disk, File};

/// How many are kept, beside those that another member is fetching.
const KEPT: usize = 2;

const SUFFIX: &str = ".snapshot";
const PART: &str = ".part";

/// What is received may be what is being taken: each has a file of its own.
const RECEIVED: &str = ".received.part";

/// The snapshots of one member.
#[derive(Debug)]
pub struct Archive {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    /// The same, open for as long as the process runs: a name is made durable without a descriptor more.
    directory: Box<dyn Dir>,
    /// Oldest first.
    kept: Vec<Kept>,
}

impl Archive {
    /// Opens the snapshots in data directory `dir`. What was not finished is removed; what is damaged is reported, and left alone
    /// until newer ones are there. An error if one is of another version: it stays as it is.
    pub fn open(disk: Arc<dyn Disk>, data_dir: &Path) -> Result<Self, SnapshotError> {
        let dir = data_dir.join(DIR);
        match disk.create_dir(&dir) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                return Err(error).during("create", &dir);
            }
            _ => disk.sync_dir(data_dir).during("sync", data_dir)?,
        }
        // A process that was killed may have given a file its name and not made that durable: whoever relies on it has to.
        let directory = disk.open_dir(&dir).during("open", &dir)?;
        directory.sync().during("sync", &dir)?;
        let mut kept = Vec::new();
        for name in names(disk.as_ref(), &dir)? {
            let path = dir.join(&name);
            if name.ends_with(PART) {
                disk.remove(&path).during("remove", &path)?;
            } else if let Some(id) = id_of(&name) {
                match disk.open(&path).during("open", &path).and_then(|file| Kept::open(file, path)) {
                    Ok(found) if found.manifest.id() == id => kept.push(found),
                    Ok(found) => {
                        tracing::warn!(file = %found.path.display(), "a snapshot has another's name");
                    }
                    Err(error) if error.is_of_another_version() => return Err(error),
                    // One that cannot be read is as good as one that is damaged: there may be another.
                    Err(error) => tracing::warn!(%error, "a snapshot is of no use"),
                }
            }
        }
        kept.sort_by_key(|kept| kept.manifest.id().index);
        Ok(Self { disk, dir, directory, kept })
    }

    /// The newest state, restored and verified; an older one if the newest is damaged, or cannot be read. None if there is none. An
    /// error if the newest is of another version: the state has gone on from there, and an older one would be another.
    pub fn restore(&mut self) -> Result<Option<(Manifest, Store)>, SnapshotError> {
        while let Some(newest) = self.kept.last() {
            match restore(newest) {
                Ok(store) => return Ok(Some((newest.manifest.clone(), store))),
                Err(error) if error.is_of_another_version() => return Err(error),
                Err(error) => tracing::warn!(%error, "a snapshot is of no use"),
            }
            self.kept.pop();
        }
        Ok(None)
    }

    /// The newest one's manifest. Whether its pieces are whole is seen when they are read.
    pub fn newest(&self) -> Option<&Manifest> {
        self.kept.last().map(|kept| &kept.manifest)
    }

    /// The manifests of all that are kept, oldest first.
    pub fn manifests(&self) -> impl Iterator<Item = &Manifest> {
        self.kept.iter().map(|kept| &kept.manifest)
    }

    pub(super) fn find(&self, id: LogId) -> Option<&Kept> {
        self.kept.iter().find(|kept| kept.manifest.id() == id)
    }

    /// The same, for a member that is fetching it: as long as it asks, the snapshot stays.
    pub(super) fn find_for_another(&mut self, id: LogId) -> Option<&Kept> {
        let kept = self.kept.iter_mut().find(|kept| kept.manifest.id() == id)?;
        kept.wanted = true;
        Some(kept)
    }

    /// A new file for the snapshot `id`, which is being taken.
    pub(super) fn begin(&self, id: LogId) -> Result<Part, SnapshotError> {
        self.create(id, PART)
    }

    /// The same of one that comes from other members.
    pub(super) fn begin_received(&self, id: LogId) -> Result<Part, SnapshotError> {
        self.create(id, RECEIVED)
    }

    fn create(&self, id: LogId, suffix: &str) -> Result<Part, SnapshotError> {
        let path = self.dir.join(format!("{}{suffix}", stem(id)));
        self.remove(&path)?;
        let file = self.disk.create_streamed(&path).during("create", &path)?;
        Ok(Part { file, path })
    }

    /// Gives up a file that was begun.
    pub(super) fn abandon(&self, part: Part) {
        let Part { file, path } = part;
        drop(file);
        if let Err(error) = self.remove(&path) {
            tracing::debug!(%error, "what is left of a snapshot stays until the next start");
        }
    }

    /// Ends the file of a snapshot, all of whose pieces are written, and gives it its name, durably. It is kept from then on; the
    /// oldest goes, unless another member is fetching it.
    pub(super) fn keep(&mut self, part: Part, manifest: Manifest) -> Result<(), SnapshotError> {
        let path = self.dir.join(format!("{}{SUFFIX}", stem(manifest.id())));
        let file = match self.name(&part, &path, &manifest) {
            Ok(file) => file,
            Err(error) => {
                self.abandon(part);
                return Err(error);
            }
        };
        self.directory.sync().during("sync", &self.dir)?;
        self.kept.retain(|kept| kept.manifest.id() != manifest.id());
        self.kept.push(Kept { file, path, manifest, wanted: false });
        self.kept.sort_by_key(|kept| kept.manifest.id().index);
        if let Err(error) = self.remove_others() {
            tracing::warn!(%error, "older snapshots stay until there is another");
        }
        Ok(())
    }

    /// Makes the file durable and gives it its name. It is opened to be read before that: once it has its name, nothing that the
    /// system may deny is missing.
    fn name(&self, part: &Part, path: &Path, manifest: &Manifest) -> Result<Box<dyn File>, SnapshotError> {
        part.finish(manifest)?;
        let file = self.disk.open(&part.path).during("open", &part.path)?;
        self.disk.rename(&part.path, path).during("rename", &part.path)?;
        Ok(file)
    }

    /// Offers a snapshot to nobody any more that could not be read. The file stays until there is another: what could not be read now may be
    /// read by the next start.
    pub(super) fn forget(&mut self, id: LogId) {
        self.kept.retain(|kept| kept.manifest.id() != id);
    }

    /// Removes a snapshot: one that turned out to be damaged may come again, from a member whose copy is whole.
    pub(super) fn discard(&mut self, id: LogId) {
        let Some(at) = self.kept.iter().position(|kept| kept.manifest.id() == id) else { return };
        let path = self.kept.remove(at).path;
        if let Err(error) = self.remove(&path) {
            tracing::debug!(%error, "a snapshot of no use stays until newer ones are there");
        }
    }

    /// Removes what is kept only for members that may be fetching it.
    pub(super) fn tidy(&mut self) {
        let older: Vec<LogId> = self.kept.iter().rev().skip(KEPT).map(|kept| kept.manifest.id()).collect();
        for id in older {
            self.discard(id);
        }
    }

    /// Removes all that are older than `id`.
    pub(super) fn outdate(&mut self, id: LogId) {
        let kept = self.kept.iter().map(|kept| kept.manifest.id());
        let older: Vec<LogId> = kept.filter(|kept| kept.index < id.index).collect();
        for id in older {
            self.discard(id);
        }
    }

    /// Removes all files but the newest [`KEPT`] that are good, and those that were asked for since the last one came.
    fn remove_others(&mut self) -> Result<(), SnapshotError> {
        let mut older = self.kept.len().saturating_sub(KEPT);
        self.kept.retain_mut(|kept| {
            let is_older = older > 0;
            older = older.saturating_sub(1);
            std::mem::take(&mut kept.wanted) || !is_older
        });
        for name in names(self.disk.as_ref(), &self.dir)? {
            let path = self.dir.join(&name);
            if name.ends_with(SUFFIX) && !self.kept.iter().any(|kept| kept.path == path) {
                self.remove(&path)?;
            }
        }
        Ok(())
    }

    fn remove(&self, path: &Path) -> Result<(), SnapshotError> {
        match self.disk.remove(path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error).during("remove", path),
            _ => Ok(()),
        }
    }
}

/// The newest whole snapshot in data directory `dir`, which is not changed, and its state. None if there is none.
pub fn newest(disk: &dyn Disk, data_dir: &Path) -> Result<Option<(Manifest, Store)>, SnapshotError> {
    for path in found(disk, data_dir)?.into_iter().rev() {
        let file = disk.open(&path).during("open", &path);
        match file.and_then(|file| Kept::open(file, path)).and_then(|kept| Ok((restore(&kept)?, kept))) {
            Ok((store, kept)) => return Ok(Some((kept.manifest, store))),
            Err(error) => tracing::warn!(%error, "a snapshot is of no use"),
        }
    }
    Ok(None)
}

/// What stands in data directory `dir`, which is not changed: each file that has a snapshot's name, oldest first, and whether it is
/// whole to its last piece.
pub fn inspect(
    disk: &dyn Disk,
    data_dir: &Path,
) -> Result<Vec<Result<Manifest, SnapshotError>>, SnapshotError> {
    Ok(found(disk, data_dir)?.into_iter().map(|path| verified(disk, path)).collect())
}

/// The files of snapshots in a data directory, oldest first.
fn found(disk: &dyn Disk, data_dir: &Path) -> Result<Vec<PathBuf>, SnapshotError> {
    let dir = data_dir.join(DIR);
    let names = match disk.list(&dir) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        listed => listed.during("list", &dir)?,
    };
    let mut found: Vec<(LogId, String)> =
        names.into_iter().filter_map(|name| Some((id_of(&name)?, name))).collect();
    found.sort_unstable();
    Ok(found.into_iter().map(|(_, name)| dir.join(name)).collect())
}

/// The manifest of a file, all of whose pieces are as it says.
fn verified(disk: &dyn Disk, path: PathBuf) -> Result<Manifest, SnapshotError> {
    let file = disk.open(&path).during("open", &path)?;
    let kept = Kept::open(file, path)?;
    restore(&kept)?;
    Ok(kept.manifest)
}

/// Makes the state of a file.
fn restore(kept: &Kept) -> Result<Store, SnapshotError> {
    let mut restore = Restore::new();
    let failed = |source| SnapshotError::restoring(&kept.path, kept.manifest.id().index, source);
    for number in 0..kept.manifest.pieces() {
        restore.push(&kept.verified_piece(number)?).map_err(failed)?;
    }
    let mut store = restore.finish().map_err(failed)?;
    store.applied_up_to(kept.manifest.id());
    Ok(store)
}

fn names(disk: &dyn Disk, dir: &Path) -> Result<Vec<String>, SnapshotError> {
    let mut names = disk.list(dir).during("list", dir)?;
    names.sort_unstable();
    Ok(names)
}

fn stem(id: LogId) -> String {
    format!("{:016x}-{:016x}", id.index, id.term)
}

/// The snapshot in a file of this name.
fn id_of(name: &str) -> Option<LogId> {
    let (index, term) = name.strip_suffix(SUFFIX)?.split_once('-')?;
    let number = |digits| u64::from_str_radix(digits, 16).ok();
    let id = LogId { term: number(term)?, index: number(index)? };
    (stem(id) == name.strip_suffix(SUFFIX)?).then_some(id)
}
