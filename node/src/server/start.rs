//! What a data directory gives a process to start from: the log, the newest snapshot, and the state from its copy or from that.
//!
//! The node and the simulator start by the same code: what is decided here decides what a member remembers.

use std::path::Path;
use std::sync::Arc;

use parking_lot::RwLock;
use quorate_raft::{Entry, LogId, MemberId, Restored, Snapshot};

use crate::copy::{Engine, Keeper};
use crate::kv::Store;
use crate::level::Unsupported;
use crate::replica::{Applier, Held, Options, Replica};
use crate::snapshots::{Archive, Manifest, SnapshotError};
use crate::storage::{OpenError, Recovered, Wal, WalOptions};

/// What there is to start from.
#[derive(Debug)]
pub struct Found {
    /// The log.
    pub wal: Wal,
    /// The snapshots.
    pub archive: Archive,
    /// What the log holds, and the newest snapshot's identity.
    pub restored: Restored,
    /// The state: that of the snapshot, or a later one from its copy.
    pub state: Store,
    /// The copy of the state, if one is asked for and there is an engine for it.
    pub copy: Option<CopyFound>,
    /// The log ended in a write that was not finished; it was cut off.
    pub uncertain_tail: bool,
}

/// Why there is nothing to start from.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The log.
    #[error(transparent)]
    Log(#[from] OpenError),
    /// The snapshots.
    #[error(transparent)]
    Snapshots(#[from] SnapshotError),
    /// A level that is not supported.
    #[error(transparent)]
    Unsupported(#[from] Unsupported),
}

/// A copy of the state, open.
#[derive(Debug)]
pub struct CopyFound {
    /// Where it is.
    pub engine: Box<dyn Engine>,
    /// The state came from it.
    pub is_used: bool,
}

impl CopyFound {
    /// Whoever keeps it up to date with `state`, which is what the process started from. To be called before that changes.
    pub fn keeper(self, member: MemberId, state: Arc<RwLock<Store>>) -> Keeper {
        if self.is_used {
            Keeper::resume(self.engine, member, state)
        } else {
            Keeper::new(self.engine, member, state)
        }
    }
}

/// A replica and its applier on what was found, which have applied what is known to be committed. What the log tells of a removal, the
/// process before may not have stored: that is to be done before they act. An error if something of it needs a level that is not
/// supported.
pub fn member(
    options: Options,
    restored: Restored,
    store: Arc<RwLock<Store>>,
) -> Result<(Replica, Applier), Unsupported> {
    let committed = restored.hard_state.commit;
    let held = Held::of(&store.read());
    let mut applier = Applier::new(&options, restored.snapshot.as_ref(), store);
    let mut replica = Replica::new(options, restored, held);
    replica.replay(committed, &mut applier)?;
    Ok((replica, applier))
}

/// Reads the data directory `dir`, whose log is opened by `log`.
///
/// `open_copy` gives the copy of the state, and what is in it if that can be trusted. It is asked with whether the state after some entry
/// is one to start from; it gives none where none is asked for, or there is no engine to be had.
pub fn read(
    dir: &Path,
    log: &WalOptions,
    open_copy: impl FnOnce(&dyn Fn(LogId) -> bool) -> Option<(Box<dyn Engine>, Option<Store>)>,
) -> Result<Found, StartError> {
    let mut archive = Archive::open(Arc::clone(&log.disk), dir)?;
    let (wal, recovered) = open_log(dir, log, &mut archive)?;
    let newest = archive.newest().map(|manifest| manifest.snapshot.clone());
    // What cannot be started from is not touched.
    recovered.check(log.member, newest.as_ref())?;
    let (copy, copied) = match open_copy(&|id| follows(id, newest.as_ref(), &recovered)) {
        Some((engine, state)) => (Some(CopyFound { engine, is_used: state.is_some() }), state),
        None => (None, None),
    };
    let (snapshot, state) = match copied {
        Some(state) => (newest, state),
        None => match archive.restore()? {
            Some((manifest, state)) => (Some(manifest.snapshot), state),
            None => (None, Store::new()),
        },
    };
    let uncertain_tail = recovered.uncertain_tail;
    let restored = recovered.restore(log.member, snapshot)?;
    Ok(Found { wal, archive, restored, state, copy, uncertain_tail })
}

/// Opens the log above the newest snapshot.
fn open_log(dir: &Path, options: &WalOptions, archive: &mut Archive) -> Result<(Wal, Recovered), StartError> {
    let open = |archive: &Archive| {
        let covered = archive.newest().map(Manifest::id);
        Wal::open(dir, WalOptions { covered, ..options.clone() })
    };
    let (wal, recovered) = open(archive)?;
    if recovered.damage.is_empty() {
        return Ok((wal, recovered));
    }
    // What a snapshot covers is not missed, so the snapshot has to be whole to its last piece.
    drop(archive.restore()?);
    drop(wal);
    Ok(open(archive)?)
}

/// Whether a state that ends with entry `id` is of this log, and no older than the newest snapshot.
fn follows(id: LogId, newest: Option<&Snapshot>, recovered: &Recovered) -> bool {
    let covered = newest.map_or_else(LogId::default, |snapshot| snapshot.id);
    let mut newest_first = recovered.entries.iter().rev();
    id == covered
        || (id.index > covered.index && newest_first.find(|e| e.index == id.index).map(Entry::id) == Some(id))
}
