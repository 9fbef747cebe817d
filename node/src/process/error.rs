//! Why a node does not start, or ends.

use std::io;

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
    #[error("{0}")]
    Enrol(String),
    /// The system denies threads, randomness or signals.
    #[error("cannot start: {0}")]
    System(#[from] io::Error),
    /// The log cannot be written any more.
    #[error("the log cannot be written, so this node cannot go on: {0}")]
    DiskFailed(String),
    /// A level that this process does not support.
    #[error(transparent)]
    Unsupported(#[from] Unsupported),
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
    /// What the process exits with: 3 where only another version can go on.
    pub fn code(&self) -> u8 {
        match self {
            RunError::Usage(_) => 2,
            RunError::Unsupported(_) => 3,
            _ => 1,
        }
    }
}
