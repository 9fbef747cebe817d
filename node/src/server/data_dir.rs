//! The data directory, as the node that lives in it sees it: whose it is.

use std::path::PathBuf;
use std::time::Duration;

use quorate_raft::{Entry, Index, MemberId, Payload, Restored};

use crate::doors::event::ClusterError;
use crate::snapshots::{Corrupt, write_mark};
use crate::storage::disk::OsDisk;
use crate::storage::identity::Identity;
use crate::storage::{OpenError, starts};

/// How soon an identity is tried again that could not be stored for want of a descriptor.
const RETRY: Duration = Duration::from_millis(100);

/// A node's identity and where it is kept.
#[derive(Debug)]
pub(crate) struct DataDir {
    dir: PathBuf,
    identity: Identity,
    founder: bool,
    /// The log was begun to found a cluster, and that was cut short: such a log must never be taken into another one.
    half_founded: bool,
}

impl DataDir {
    /// The identity found in `dir`, beside what was restored from there.
    pub(crate) fn new(dir: PathBuf, identity: Identity, restored: &Restored) -> Self {
        let first = restored.entries.first().filter(|entry| entry.index == 1);
        // A log that was compacted does not tell any more; to found its cluster again changes nothing.
        let founder = identity.cluster != 0
            && first.map_or(restored.snapshot.is_some(), |entry| founds(entry, identity.member));
        let half_founded = identity.cluster == 0 && first.is_some();
        DataDir { dir, identity, founder, half_founded }
    }

    /// The cluster; zero while there is none.
    pub(crate) fn cluster(&self) -> u64 {
        self.identity.cluster
    }

    /// Whether this member founded its cluster.
    pub(crate) fn is_founder(&self) -> bool {
        self.founder
    }

    /// The log of a cluster is about to begin. From here on this directory is that cluster's, or nobody's.
    pub(crate) fn begins(&mut self) {
        self.half_founded = true;
    }

    /// Makes the node the founder of `cluster`, whose log has begun.
    pub(crate) fn found(&mut self, cluster: u64) -> Result<(), ClusterError> {
        self.store(cluster)?;
        self.founder = true;
        self.half_founded = false;
        Ok(())
    }

    /// Makes the node belong to `cluster`, which has sent for it.
    pub(crate) fn join(&mut self, cluster: u64) -> Result<(), ClusterError> {
        if self.half_founded {
            return Err(ClusterError::HalfFounded);
        }
        self.store(cluster)
    }

    /// Whether the node may become another member: it has promised nothing under the ID that it has, for it belongs to no cluster.
    pub(crate) fn may_take_id(&self) -> Result<(), ClusterError> {
        match self.identity.cluster {
            0 if self.half_founded => Err(ClusterError::HalfFounded),
            0 => Ok(()),
            mine => Err(ClusterError::NotFounder(mine)),
        }
    }

    /// Counts a start after number `start`, durably: that of a process that was heard, and that this directory has forgotten. Returns its
    /// number. Waits for the disk: nothing that this member says is taken before.
    ///
    /// Without room, or a descriptor, it is counted in memory. The next process is told of it once more then.
    pub(crate) fn count_start(&mut self, start: u64) -> Result<u64, ClusterError> {
        let least = start.saturating_add(1);
        match starts::count(&OsDisk, &self.dir, least) {
            Err(error) if error.is_full() || error.lacks_descriptors() => {
                tracing::debug!(%error, "the start of this process could not be counted");
                Ok(least)
            }
            counted => counted.map_err(|error| ClusterError::Storage(error.to_string())),
        }
    }

    /// Marks the member as one whose state is not to be served, durably and for good. Where that cannot be stored it holds for this process,
    /// and the next one finds out anew.
    pub(crate) fn set_corrupt(&self, corrupt: &Corrupt) {
        if let Err(error) = write_mark(&OsDisk, &self.dir, corrupt) {
            tracing::warn!(%error, "that this member is corrupt could not be noted");
        }
    }

    /// Remembers the entry by which the cluster has removed this member; 0 for none. Such a node has nothing else to do either.
    pub(crate) fn set_removed(&mut self, removed: Index) -> Result<(), ClusterError> {
        let Self { dir, identity, .. } = self;
        persist(|| identity.set_removed(&OsDisk, dir, removed))
    }

    /// Stores the cluster's ID. Waits for the disk: a node that belongs to no cluster has nothing else to do.
    fn store(&mut self, cluster: u64) -> Result<(), ClusterError> {
        if cluster == 0 {
            return Err(ClusterError::NoId);
        }
        let mine = self.identity.cluster;
        if mine != 0 && mine != cluster {
            return Err(ClusterError::Other { mine, asked: cluster });
        }
        let Self { dir, identity, .. } = self;
        persist(|| identity.join(&OsDisk, dir, cluster))
    }
}

/// Stores an identity. While there is no descriptor for its file it waits for one: nothing is in doubt, and whoever has to store an
/// identity must do nothing else before.
fn persist(mut store: impl FnMut() -> Result<(), OpenError>) -> Result<(), ClusterError> {
    let mut told = false;
    loop {
        match store() {
            Err(error) if error.lacks_descriptors() => {
                if !std::mem::replace(&mut told, true) {
                    tracing::warn!(%error, "waits for a descriptor to store the identity: raise the limit (ulimit -n)");
                }
                std::thread::sleep(RETRY);
            }
            stored => return stored.map_err(|error| ClusterError::Storage(error.to_string())),
        }
    }
}

/// Whether a log that begins with this entry was begun by `member` alone.
fn founds(first: &Entry, member: MemberId) -> bool {
    match &first.payload {
        Payload::Configuration(c) => c.voters.len() == 1 && c.voters.contains(&member),
        Payload::Noop | Payload::Command(_) => false,
    }
}
