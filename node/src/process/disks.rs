//! What a node finds in its data directory when it starts.

use std::io;
use std::path::{Path, PathBuf};

use quorate_api::log;
use quorate_raft::{LogId, Restored};

use super::RunError;
use crate::copy::{self, Engine};
use crate::doors::event::ClusterError;
use crate::kv::Store;
use crate::level::Levels;
use crate::server::driver;
use crate::server::start::{self, CopyFound, Found};
use crate::snapshots::{Archive, Corrupt, read_mark};
use crate::storage::disk::OsDisk;
use crate::storage::identity::{Identity, random_member};
use crate::storage::{self, DirLock, Wal, WalOptions, replacement, starts};

/// What the data directory holds.
#[derive(Debug)]
pub(super) struct Disks {
    pub(super) lock: DirLock,
    pub(super) dir: PathBuf,
    pub(super) identity: Identity,
    pub(super) wal: Wal,
    pub(super) archive: Archive,
    /// What the log holds, and the newest snapshot's identity.
    pub(super) found: Restored,
    /// The volume is marked: its state is not that of a majority.
    pub(super) corrupt: Option<Corrupt>,
    /// The state: that of the snapshot, or a later one from its copy.
    pub(super) state: Store,
    pub(super) copy: Option<CopyFound>,
}

impl Disks {
    pub(super) fn open(dir: &Path, with_copy: bool) -> Result<Self, RunError> {
        let lock = storage::lock(dir)?;
        if let Some(before) = replacement::finish(&OsDisk, dir)? {
            tracing::info!(before = %before.display(), "ended the exchange of the data directory that raftctl recover had begun");
        }
        let identity = Identity::open(&OsDisk, dir, random_member()?)?;
        let found = start::read(dir, &WalOptions::new(identity.member), |is_known| {
            with_copy.then(|| open_copy(dir, &identity, is_known)).flatten()
        })?;
        if !with_copy {
            discard_copy(dir);
        }
        let corrupt = read_mark(&OsDisk, dir)?;
        if let Some(corrupt) = &corrupt {
            tracing::error!("{corrupt}");
        }
        if found.uncertain_tail {
            tracing::warn!("the log ended in a write that was not finished; it was cut off");
        }
        let Found { wal, archive, restored, state, copy, .. } = found;
        Ok(Disks { lock, dir: dir.to_owned(), identity, wal, archive, found: restored, corrupt, state, copy })
    }

    /// Notes, durably, that this process promises not to elect another leader for a while, as leases ask for. Without room for the note
    /// it must not promise anything: then it reads as it does without leases, and so it can be started on a full disk.
    pub(super) fn allow_leases(&mut self) -> Result<bool, RunError> {
        match self.identity.set_leases(&OsDisk, &self.dir) {
            Ok(()) => Ok(true),
            Err(error) if error.is_full() => {
                tracing::warn!(
                    %error,
                    "--lease-reads has no effect until the next start: there is no room to note that this member gives leases"
                );
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Counts this start, durably, so that others tell this process from earlier ones. Returns its number. Without room for that it is counted
    /// in memory: the next process that starts without room has the same number then, and is told from this one by what it has drawn.
    pub(super) fn count_start(&self) -> Result<u64, RunError> {
        match starts::count(&OsDisk, &self.dir, 0) {
            Err(error) if error.is_full() => {
                tracing::debug!(%error, "there is no room to count this start");
                Ok(starts::read(&OsDisk, &self.dir)?.saturating_add(1))
            }
            counted => Ok(counted?),
        }
    }

    /// Founds a cluster, unless there is one already.
    pub(super) fn bootstrap(&mut self, me: &log::Member, levels: Levels) -> Result<(), RunError> {
        match self.identity.cluster {
            0 => {}
            cluster if self.found.entries.is_empty() && self.found.snapshot.is_none() => {
                return Err(ClusterError::NotFounder(cluster).into());
            }
            _ => return Ok(()),
        }
        let (log, write) = driver::founding_log(me, levels);
        self.wal.append(&[write])?;
        let cluster = getrandom::u64().map_err(io::Error::other)?.max(1);
        self.identity.join(&OsDisk, &self.dir, cluster)?;
        self.found = log;
        tracing::info!(cluster = format_args!("{cluster:016x}"), "founded a cluster");
        Ok(())
    }
}

/// Opens the copy of the state. A node does without it where it cannot be had.
fn open_copy(
    dir: &Path,
    identity: &Identity,
    is_known: &dyn Fn(LogId) -> bool,
) -> Option<(Box<dyn Engine>, Option<Store>)> {
    let opened = copy::guarded(|| copy::open(dir, identity.member, is_known));
    let reason = match opened {
        Ok(Ok((engine, state))) => {
            if let Some(state) = &state {
                tracing::info!(index = state.applied().index, "starts from the copy of the state");
            }
            return Some((engine, state));
        }
        Ok(Err(error)) => error.to_string(),
        Err(panicked) => panicked.to_string(),
    };
    tracing::warn!(reason, "goes on without a copy of the state");
    None
}

/// What an earlier process copied takes room, and is of no use once there is something else to start from.
fn discard_copy(dir: &Path) {
    if let Err(error) = copy::discard(dir) {
        tracing::warn!(%error, "the copy of the state that an earlier process has made stays where it is");
    }
}
