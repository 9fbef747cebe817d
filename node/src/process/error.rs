//! Why a node does not start, or ends.

use std::io;

use super::join::JoinError;
use crate::doors::event::ClusterError;
use crate::level::Unsupported;
use crate::server::start::StartError;
use crate::snapshots::SnapshotError;
use crate::storage::{OpenError, WalError};
use crate::tls::TlsError;

/// Why a node does not start, or does not go on. One line that says what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// An address that is missing or no address.
    #[error("{0}")]
    Usage(String),
    /// Certificates.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// An address that cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// The data directory.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The snapshots in it.
    #[error("cannot use the snapshots in the data directory: {0}")]
    Snapshots(#[from] SnapshotError),
    /// The first entry of a new cluster.
    #[error("cannot found a cluster: {0}")]
    Found(#[from] WalError),
    /// A data directory that belongs elsewhere.
    #[error("{0}")]
    Cluster(#[from] ClusterError),
    /// A membership that cannot be.
    #[error(transparent)]
    Join(#[from] JoinError),
    /// The system denies threads, randomness or signals.
    #[error("cannot start: {0}")]
    System(#[from] io::Error),
    /// The log cannot be written any more.
    #[error("the log cannot be written, so this node cannot go on: {0}")]
    DiskFailed(String),
    /// A level that this process does not support.
    #[error(transparent)]
    Unsupported(#[from] Unsupported),
    /// A member has forgotten what it acknowledged: this one has what the others have lost.
    #[error("{0}")]
    Contradiction(String),
    /// Another process runs as this member.
    #[error("{0}")]
    Conflict(String),
    /// A broken invariant.
    #[error("the replica has ended by itself: this is a bug")]
    Lost,
}

impl From<StartError> for RunError {
    fn from(error: StartError) -> Self {
        match error {
            StartError::Snapshots(SnapshotError::Unsupported(unsupported))
            | StartError::Log(OpenError::Unsupported(unsupported))
            | StartError::Unsupported(unsupported) => Self::Unsupported(unsupported),
            StartError::Log(error) => Self::Open(error),
            StartError::Snapshots(error) => Self::Snapshots(error),
        }
    }
}

impl RunError {
    /// What the process exits with.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Usage(_) => Exit::Usage,
            Self::Unsupported(_) | Self::Snapshots(SnapshotError::Unsupported(_)) => Exit::TooOld,
            Self::Listen { .. } => Exit::Listen,
            Self::Contradiction(_) => Exit::Contradicted,
            Self::Conflict(_) => Exit::SecondProcess,
            Self::Open(error) => of_open(error),
            Self::Snapshots(SnapshotError::Io { .. })
            | Self::DiskFailed(_)
            | Self::Found(_)
            | Self::Cluster(ClusterError::Storage(_)) => Exit::Disk,
            Self::Snapshots(SnapshotError::Foreign { .. })
            | Self::Cluster(ClusterError::Other { .. })
            | Self::Join(_) => Exit::Foreign,
            Self::Snapshots(_) => Exit::Damaged,
            Self::Cluster(ClusterError::NotFounder(_) | ClusterError::HalfFounded) => Exit::NotFounder,
            Self::Cluster(ClusterError::NoId | ClusterError::InProgress)
            | Self::Tls(_)
            | Self::System(_)
            | Self::Lost => Exit::Failed,
        }
    }
}

fn of_open(error: &OpenError) -> Exit {
    match error {
        OpenError::Damaged(_) | OpenError::OnlyVoter(_) | OpenError::NoSnapshot { .. } => Exit::Damaged,
        OpenError::Foreign { .. } => Exit::Foreign,
        OpenError::Unsupported(_) => Exit::TooOld,
        OpenError::Locked { .. } => Exit::InUse,
        OpenError::Io { .. } | OpenError::Begin(_) => Exit::Disk,
    }
}

/// What the process exits with, for whoever starts it again, or does not. The same table stands in `quorate-node --help`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Whatever has no number of its own.
    Failed = 1,
    /// Flags or addresses make no sense. Nothing was begun.
    Usage = 2,
    /// The data was written by a newer version: only that one can go on.
    TooOld = 3,
    /// The data directory is damaged, and nobody can repair it from within.
    Damaged = 4,
    /// The data directory belongs to another member or cluster, or its member was removed.
    Foreign = 5,
    /// It was to found a cluster and cannot: its directory has joined one, or was to found another.
    NotFounder = 6,
    /// Another process runs on the data directory.
    InUse = 7,
    /// The disk fails: a write or a read, an fsync, no space at the start.
    Disk = 8,
    /// An address cannot be listened on.
    Listen = 9,
    /// A leader has another entry in the place of a committed one: this data directory may hold acknowledged writes that the others have lost.
    Contradicted = 10,
    /// Another process runs as this member: one of the data directories is a copy of the other.
    SecondProcess = 11,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::cli::Cli;

    #[test]
    fn the_help_names_every_exit_code() {
        let help = Cli::command().render_long_help().to_string();
        let table = help.split("Exit codes:").nth(1).expect("there is a table");
        let all = [
            Exit::Failed,
            Exit::Usage,
            Exit::TooOld,
            Exit::Damaged,
            Exit::Foreign,
            Exit::NotFounder,
            Exit::InUse,
            Exit::Disk,
            Exit::Listen,
            Exit::Contradicted,
            Exit::SecondProcess,
        ];
        for (number, exit) in (1..).zip(all) {
            assert_eq!(exit as u8, number);
            assert!(
                table.lines().any(|line| line.trim_start().starts_with(&format!("{number}  "))),
                "{exit:?}"
            );
        }
    }
}
