//! Snapshots as files: taken of the state, served to other members, received from them, and read when the node starts.
//!
//! ```text
//! DATA_DIR/snapshots/0000000000000123-0000000000000007.snapshot   the state after entry 0x123, which is of term 7
//!                    *.part                                       one that is being written
//! ```
//!
//! A snapshot is the same bytes on every member (see [`crate::kv::snapshot`]), and so are the hashes of its pieces: its manifest tells
//! whether a piece is right, whoever it came from. A file gets its name when all of it is durable. The newest two are kept: while
//! the newest is on its way to a member, or turns out to be damaged, there is another.
//!
//! All work on files is done in pieces by a [`Worker`], which has the disk to itself for some milliseconds at a time: the server gives
//! it a thread, a simulator calls it.

mod archive;
mod digest;
mod file;
mod manifest;
mod mark;
#[cfg(test)]
mod tests;
mod worker;

use std::io;
use std::path::{Path, PathBuf};

use quorate_raft::Index;

pub use archive::{Archive, inspect, newest};
pub use digest::{Corrupt, Digest, Hash};
#[cfg(test)]
pub(crate) use manifest::Draft;
pub use manifest::{Manifest, ManifestError};
pub use mark::{read_mark, write_mark};
pub use worker::{Found, Job, Part, Report, Worker};

use crate::kv::snapshot::{NotEncoded, RestoreError};
use crate::level::{Levels, Subject, Unsupported};

/// The folder of the snapshots in a data directory.
const DIR: &str = "snapshots";

/// Why a snapshot was not written, or cannot be read. The others, and the log, are as they were.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
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
    /// It does not hold what was made durable.
    #[error("{} is damaged: {what}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was found.
        what: String,
    },
    /// Its pieces are right, and make no state.
    #[error("{} cannot be restored: {source}", path.display())]
    Restore {
        /// The file.
        path: PathBuf,
        /// Why.
        source: RestoreError,
    },
    /// Another version made it, and it is not to be touched by this one.
    #[error("{}: {what}", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What was found, and what to do.
        what: String,
    },
    /// The same: the level that it needs is not supported.
    #[error(transparent)]
    Unsupported(#[from] Unsupported),
    /// The state that it is of is gone, or cannot be encoded.
    #[error(transparent)]
    NotEncoded(#[from] NotEncoded),
    /// Newer ones have come, and it was removed.
    #[error("the snapshot was removed: there are newer ones")]
    Superseded,
}

impl SnapshotError {
    /// What came of restoring the file in `path`, the snapshot at entry `index`.
    fn restoring(path: &Path, index: Index, source: RestoreError) -> Self {
        match source {
            RestoreError::Newer(needs) => Levels::ALL.lacks(Subject::Snapshot(index), needs).into(),
            source => Self::Restore { path: path.to_owned(), source },
        }
    }

    /// Whether another version made it: then no older snapshot may take its place, and it must not be removed.
    pub fn is_of_another_version(&self) -> bool {
        matches!(self, Self::Foreign { .. } | Self::Unsupported(_))
    }
}

/// Names the file and the action of a failed call.
trait Context<T> {
    fn during(self, action: &'static str, path: &Path) -> Result<T, SnapshotError>;
}

impl<T> Context<T> for io::Result<T> {
    fn during(self, action: &'static str, path: &Path) -> Result<T, SnapshotError> {
        self.map_err(|source| SnapshotError::Io { action, path: path.to_owned(), source })
    }
}
