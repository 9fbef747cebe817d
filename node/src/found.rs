//! The data directory of a cluster of one, whose log begins with a snapshot: what was recovered, or restored, goes on in it.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::RwLock;
use quorate_raft::{Configuration, HardState, LogId, MemberId, Snapshot, Write, WriteId};

use crate::kv::{SnapshotPolicy, Store};
use crate::snapshots::{Archive, Job, Report, SnapshotError, Worker};
use crate::storage::disk::Disk;
use crate::storage::identity::Identity;
use crate::storage::{OpenError, Wal, WalError, WalOptions};

/// Why it cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum FoundError {
    /// The directory.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The snapshot.
    #[error(transparent)]
    Snapshots(#[from] SnapshotError),
    /// The log.
    #[error(transparent)]
    Log(#[from] WalError),
}

/// What the cluster begins with.
#[derive(Debug)]
pub struct Beginning {
    /// Its ID.
    pub cluster: u64,
    /// Its one member, whom nobody knows yet.
    pub member: MemberId,
    /// The same, as the configuration describes it; a node that starts elsewhere corrects that.
    pub address: Bytes,
    /// Where its log begins: the place of the configuration, in its term.
    pub id: LogId,
    /// The state.
    pub state: Store,
}

impl Beginning {
    /// Writes it to `dir`, which is empty, durably. The identity comes last: without it no node starts on the directory.
    pub fn write(self, disk: &Arc<dyn Disk>, dir: &Path) -> Result<(), FoundError> {
        let Self { cluster, member, address, id, mut state } = self;
        state.applied_up_to(id);
        let addresses = [(member, address)].into();
        let configuration = Configuration { voters: [member].into(), addresses, ..Configuration::default() };
        write_snapshot(disk, dir, Snapshot { id, configuration, configuration_id: id }, state)?;
        let options = WalOptions { disk: Arc::clone(disk), ..WalOptions::new(member) };
        let (mut wal, _) = Wal::open(dir, options)?;
        let hard_state = HardState { term: id.term, vote: None, commit: id.index };
        let write = Write {
            id: WriteId(0),
            hard_state: Some(hard_state),
            reset: Some(id),
            lost: None,
            entries: Vec::new(),
        };
        wal.append(&[write])?;
        drop(wal);
        // It has made no promises: nobody knows it yet.
        Ok(Identity::of(member, cluster).save(disk.as_ref(), dir)?)
    }
}

/// Writes the state as a snapshot, durably.
fn write_snapshot(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    snapshot: Snapshot,
    mut state: Store,
) -> Result<(), SnapshotError> {
    let archive = Archive::open(Arc::clone(disk), dir)?;
    let piece_bytes = SnapshotPolicy::default().piece_bytes as usize;
    let source = state.snapshot(piece_bytes).expect("nobody else takes one");
    let mut worker = Worker::new(archive, Arc::new(RwLock::new(state)));
    worker.push(Job::Take(snapshot, source));
    loop {
        match worker.step() {
            Some(Report::NotTaken(_, error)) => return Err(error),
            Some(_) => return Ok(()),
            None => {}
        }
    }
}
