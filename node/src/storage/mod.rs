//! What survives a crash: the write-ahead log, and the identity of its member.
//!
//! ```text
//! DATA_DIR/lock                    held by the process that runs on this directory
//!          identity                who this member is, and of which cluster
//!          starts                  how many processes have run on this directory
//!          corrupt                 the state differs from what a majority holds, and is not to be served
//!          wal/0000000000000001.wal …   the segments of the log, oldest first; the last one may be prepared and unused
//!              *.free              a file on its way to become the next segment
//!          replacement…            while all of that is replaced: see `replacement.rs`
//! ```
//!
//! Invariants: nothing is acknowledged before it is durable; what lies ahead of the log's end is zero; a block that holds a
//! durable frame is not written again before its segment is released; what was durable is never cut. Damage to it is reported with
//! what it has taken ([`Recovered::lost`]), and stays where it is: the log goes on behind it. After a failed write nothing more is written: the error is final, and the process is to end.

pub mod disk;
pub mod identity;
mod inspect;
mod lock;
mod prepare;
mod record;
mod recovery;
pub mod replacement;
mod replay;
mod segment;
pub mod starts;
mod terms;
mod wal;

use std::io;
use std::path::{Path, PathBuf};

use quorate_raft::Index;

use crate::level::Unsupported;

pub use disk::Space;
pub use inspect::{Inspection, LogContents, ReadOnly, inspect};
pub use lock::{DirLock, lock};
pub(crate) use wal::OPEN_FILES;
pub use wal::{Lack, Recovered, Room, Wal, WalOptions};

/// How much room the file system of `dir` has.
pub fn space(dir: &Path) -> io::Result<Space> {
    let statistics = rustix::fs::statvfs(dir)?;
    let bytes = |blocks: u64| blocks.saturating_mul(statistics.f_frsize);
    Ok(Space { available: bytes(statistics.f_bavail), total: bytes(statistics.f_blocks) })
}

/// Puts a small file called `name` with these bytes into `dir`, durably and atomically, in the place of what is there.
pub(crate) fn replace_file(
    disk: &dyn disk::Disk,
    dir: &Path,
    name: &str,
    bytes: &[u8],
) -> Result<(), OpenError> {
    let (path, temporary) = (dir.join(name), dir.join(format!("{name}.new")));
    match disk.remove(&temporary) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e).on("remove", &temporary),
        _ => {}
    }
    let file = disk.create(&temporary).on("create", &temporary)?;
    file.write_at(bytes, 0).on("write", &temporary)?;
    file.sync().on("sync", &temporary)?;
    disk.rename(&temporary, &path).on("rename", &temporary)?;
    disk.sync_dir(dir).on("sync", dir)
}

/// The file that marks a member whose state is not to be served. What it says is for `snapshots` to know.
pub(crate) const CORRUPT: &str = "corrupt";

/// The folder of the log's segments in a data directory.
const WAL_DIR: &str = "wal";

/// Why a data directory cannot be used. Nothing in it was changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file system says no.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What came of it.
        source: io::Error,
    },
    /// Another process runs on it.
    #[error("data directory {} is in use{holder}: stop that process, or choose another directory", dir.display())]
    Locked {
        /// The data directory.
        dir: PathBuf,
        /// Who holds it, if known: " by process 7 on host n1".
        holder: String,
    },
    /// It does not hold what was made durable, and nobody can make that good.
    #[error(
        "{0}. Nothing was changed. Restore the volume as it was, or remove this member from its cluster and start a new one with \
         an empty data directory"
    )]
    Damaged(Damage),
    /// The same, and there is nobody else who has it.
    #[error(
        "{0}. This member is the only voter: nobody can repair it. Nothing was changed. Restore the volume from a backup, or \
         found a new cluster with an empty data directory: what was written to this one is lost then"
    )]
    OnlyVoter(Damage),
    /// The log begins after an entry that no snapshot covers any more.
    #[error(
        "the log begins after entry {base}, and the newest whole snapshot covers those up to {covered} only: the entries between \
         are gone. Restore the volume as it was, or remove this member from its cluster and start a new one with an empty data \
         directory"
    )]
    NoSnapshot {
        /// The last entry that the log has given up.
        base: Index,
        /// The last one that the snapshot covers; 0 without one.
        covered: Index,
    },
    /// The log could not be begun.
    #[error(transparent)]
    Begin(#[from] WalError),
    /// An entry in it needs a level that is not supported.
    #[error(transparent)]
    Unsupported(#[from] Unsupported),
    /// It is somebody else's, or of another version.
    #[error("{}: {what}", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What was found, and what was expected.
        what: String,
    },
}

/// A place that does not hold what was made durable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} is damaged at byte {offset}: {what}", path.display())]
pub struct Damage {
    /// The file.
    pub path: PathBuf,
    /// Where in it.
    pub offset: u64,
    /// What was found.
    pub what: String,
}

impl OpenError {
    /// Whether the disk, or this user's share of it, is full.
    pub fn is_full(&self) -> bool {
        match self {
            Self::Io { source, .. } => disk::is_full(source),
            Self::Begin(error) => matches!(error, WalError::NoSpace { .. }),
            _ => false,
        }
    }

    /// Whether nothing but a free descriptor was missing.
    pub fn lacks_descriptors(&self) -> bool {
        match self {
            Self::Io { source, .. } => disk::lacks_descriptors(source),
            Self::Begin(error) => matches!(error, WalError::NoDescriptors { .. }),
            _ => false,
        }
    }
}

impl From<Damage> for OpenError {
    fn from(damage: Damage) -> Self {
        Self::Damaged(damage)
    }
}

/// Why nothing more is written. Final, but for [`WalError::NoDescriptors`]: the process is to end, and to recover from what is
/// durable when it starts again.
#[derive(Debug, Clone, thiserror::Error)]
pub enum WalError {
    /// The file system says no.
    #[error("cannot {action} {}: {reason}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What came of it.
        reason: String,
    },
    /// The disk, or this user's share of it, is full.
    #[error("cannot {action} {}: no space left: make the volume larger, or free some of it", path.display())]
    NoSpace {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
    },
    /// The process, or the machine, has no descriptor left. Nothing was written, and nothing is in doubt: the same call may be
    /// made again, and succeeds when there is one.
    #[error("cannot {action} {}: too many open files: raise the limit (ulimit -n), or let fewer clients in", path.display())]
    NoDescriptors {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
    },
    /// More in one group than a frame can say (4 GiB).
    #[error("a group of entries is larger than a frame can be")]
    TooLarge,
    /// An earlier call has failed.
    #[error("the log is closed after an earlier failure: {0}")]
    Poisoned(String),
}

/// Names the file and the action of a failed call.
trait Context<T> {
    fn on(self, action: &'static str, path: &Path) -> Result<T, OpenError>;
    fn during(self, action: &'static str, path: &Path) -> Result<T, WalError>;
}

impl<T> Context<T> for io::Result<T> {
    fn on(self, action: &'static str, path: &Path) -> Result<T, OpenError> {
        self.map_err(|source| OpenError::Io { action, path: path.to_owned(), source })
    }

    fn during(self, action: &'static str, path: &Path) -> Result<T, WalError> {
        let path = path.to_owned();
        self.map_err(|e| {
            if disk::is_full(&e) {
                WalError::NoSpace { action, path }
            } else if disk::lacks_descriptors(&e) {
                WalError::NoDescriptors { action, path }
            } else {
                WalError::Io { action, path, reason: e.to_string() }
            }
        })
    }
}
