//! Looks at a data directory without changing anything, whether or not a node runs on it.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use quorate_raft::LogId;

use super::disk::{Dir, Disk, File, OsDisk};
use super::identity::{self, Identity};
use super::recovery::{self, Found};
use super::replay::Log;
use super::{CORRUPT, Context, Damage, OpenError, Recovered, WAL_DIR, lock, replacement, segment, starts};

/// What stands in a data directory.
#[derive(Debug)]
pub struct Inspection {
    /// Whose it is; None for a new one.
    pub identity: Result<Option<Identity>, OpenError>,
    /// Its log, if there is one and it is known whose. An error is what a node that starts on it says.
    pub log: Option<Result<LogContents, OpenError>>,
    /// Who runs on it: "by process 7 on n1". What that one writes meanwhile may look torn.
    pub held: Option<String>,
    /// What is not needed: files on their way to become segments, and whatever does not belong here.
    pub left_over: Vec<PathBuf>,
}

/// What a log holds.
#[derive(Debug)]
pub struct LogContents {
    /// How many segments there are.
    pub segments: usize,
    /// One more is ready, and empty.
    pub spare: bool,
    /// Their size.
    pub bytes: u64,
    /// What a node that starts finds.
    pub recovered: Recovered,
    /// What it cuts, because it was not written in full.
    pub torn: Vec<Damage>,
}

impl Inspection {
    /// Why not everything is there: the first reason.
    pub fn damage(&self) -> Option<String> {
        let of_log = |log: &LogContents| {
            let recovered = &log.recovered;
            (recovered.lost.is_some() || !recovered.damage.is_empty()).then(|| recovered.worst().to_string())
        };
        match (&self.identity, &self.log) {
            (Err(error), _) | (_, Some(Err(error))) => Some(error.to_string()),
            (_, Some(Ok(log))) => of_log(log),
            (_, None) => None,
        }
    }

    /// Whether there is something, and nothing that a node has made.
    pub fn is_foreign(&self) -> bool {
        matches!(self.identity, Ok(None)) && self.log.is_none() && !self.left_over.is_empty()
    }
}

/// Reads data directory `dir`, whose newest whole snapshot covers the log up to `covered`. An error when it cannot be read at all.
pub fn inspect(dir: &Path, covered: Option<LogId>) -> Result<Inspection, OpenError> {
    let names = ReadOnly.list(dir).on("list", dir)?;
    let held = lock::held(dir)?;
    let identity = Identity::read(&ReadOnly, dir);
    let identity = identity.and_then(|id| identity::check_log(&ReadOnly, dir, id.as_ref()).map(|()| id));
    let wal = dir.join(WAL_DIR);
    let mut left_over: Vec<PathBuf> = names.iter().filter(|n| !is_ours(n)).map(|n| dir.join(n)).collect();
    let mut log = None;
    if names.iter().any(|name| name == WAL_DIR) {
        let of_log = ReadOnly.list(&wal).on("list", &wal)?;
        left_over.extend(of_log.iter().filter(|n| segment::number_of(n).is_none()).map(|n| wal.join(n)));
        if let Ok(Some(identity)) = &identity {
            log = Some(contents(&wal, identity, covered));
        }
    }
    left_over.sort_unstable();
    Ok(Inspection { identity, log, held, left_over })
}

fn contents(wal: &Path, identity: &Identity, covered: Option<LogId>) -> Result<LogContents, OpenError> {
    let Found { segments, spare, log, damage, torn, .. } =
        recovery::read_log(&ReadOnly, wal, identity.member, covered)?.found;
    let Log { hard_state, base, entries, lost, .. } = log;
    let bytes = segments.iter().chain(&spare).map(|segment| segment.bytes).sum();
    let uncertain_tail = !torn.is_empty();
    let recovered = Recovered { hard_state, base, entries, uncertain_tail, lost, damage };
    Ok(LogContents { segments: segments.len(), spare: spare.is_some(), bytes, recovered, torn })
}

/// Whether a name in a data directory is one that a node gives.
fn is_ours(name: &str) -> bool {
    // Many volumes come with the last one.
    let files = [identity::NAME, lock::NAME, starts::NAME, CORRUPT];
    let folders = [WAL_DIR, "snapshots", "copy", "copy.opening", "lost+found"];
    files.contains(&name) || folders.contains(&name) || replacement::is_of_replacement(name)
}

/// The machine's file system, for somebody who only looks.
#[derive(Debug, Clone, Copy)]
pub struct ReadOnly;

impl Disk for ReadOnly {
    fn create_dir(&self, _path: &Path) -> io::Result<()> {
        Err(ErrorKind::ReadOnlyFilesystem.into())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        OsDisk.list(dir)
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn File>> {
        Ok(Box::new(fs::File::open(path)?))
    }

    fn create(&self, _path: &Path) -> io::Result<Box<dyn File>> {
        Err(ErrorKind::ReadOnlyFilesystem.into())
    }

    fn rename(&self, _from: &Path, _to: &Path) -> io::Result<()> {
        Err(ErrorKind::ReadOnlyFilesystem.into())
    }

    fn remove(&self, _path: &Path) -> io::Result<()> {
        Err(ErrorKind::ReadOnlyFilesystem.into())
    }

    fn open_dir(&self, _dir: &Path) -> io::Result<Box<dyn Dir>> {
        Err(ErrorKind::ReadOnlyFilesystem.into())
    }
}
