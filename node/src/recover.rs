//! The way back from a lost quorum: what one member's data directory holds becomes a new cluster of one.
//!
//! It is an act of an operator, on a directory that no process runs on, when the other voters are gone for good. What it does:
//!
//! - **The state** is that of the newest whole snapshot with *every* entry of the log behind it applied, those too that are not known to be
//!   committed. A member learns late what is committed, and stores it with the next entries, so an acknowledged write may well stand behind
//!   its commit index: to leave it out would lose it. What was never acknowledged may come with them: its client was told nothing,
//!   or that the outcome is unknown. What only the others had is lost, and cannot be known here.
//! - **A new cluster and a new member**: the IDs are drawn anew, so volumes of the old cluster are refused by the new one, and it by them.
//! - **No number is dealt out twice.** The lost members may have acknowledged revisions that this one does not know. So the
//!   revision goes up by more than they can have used, and everything before counts as compacted: a client that watches or caches
//!   is told so instead of being shown another history under the same numbers. The term goes up by [`TERMS`] for whoever takes
//!   it for a fencing number.
//! - **It is a snapshot** with which the new log begins: nothing of the old log is in it.
//!
//! The directory is exchanged as a whole ([`crate::storage::replacement`]); what it held stays beside, until it is removed by hand.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use quorate_api::log;
use quorate_raft::{Configuration, Entry, LogId, MemberId, Payload};

use crate::codec;
use crate::command;
use crate::found::{Beginning, FoundError};
use crate::kv::Store;
use crate::level::Levels;
use crate::snapshots::{self, Corrupt, SnapshotError};
use crate::storage::disk::Disk;
use crate::storage::identity::Identity;
use crate::storage::{Inspection, LogContents, OpenError, ReadOnly, Recovered, inspect, replacement};

/// How many terms are left out: the others may have been through elections that this member has not heard of.
pub const TERMS: u64 = 1_000_000;

/// What is left out of revisions unless it is said otherwise: more than a cluster makes in a week of 1,600 writes a second.
pub const REVISIONS: i64 = 1_000_000_000;

/// Why a directory cannot be recovered. Nothing in it was changed.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// It cannot be read, or not be written.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Nor its snapshots.
    #[error(transparent)]
    Snapshots(#[from] SnapshotError),
    /// What is to take its place.
    #[error(transparent)]
    Found(#[from] FoundError),
    /// There is nothing to go on from.
    #[error("{0}")]
    Nothing(String),
    /// The log holds what this version does not know.
    #[error(
        "entry {0} of the log holds no command that this version knows: use the version that the nodes ran"
    )]
    Unknown(u64),
    /// Revisions end.
    #[error("revision {revision} cannot go up by {by}")]
    Overflow {
        /// What the directory is at.
        revision: i64,
        /// How much further it was to go.
        by: i64,
    },
}

/// What a data directory holds for a new beginning.
#[derive(Debug)]
pub struct Remains {
    /// Whose it is.
    pub identity: Identity,
    /// What the log says, as a node that starts on it finds it.
    pub log: Recovered,
    /// What the snapshot covers that the state begins with; (0, 0) without one.
    pub snapshot: LogId,
    /// The last entry that is there.
    pub last: LogId,
    /// The newest configuration, committed or not.
    pub configuration: Configuration,
    /// Where the state was found to differ from what a majority held.
    pub corrupt: Option<Corrupt>,
    /// The state after that entry.
    state: Store,
}

/// Reads data directory `dir`, and changes nothing.
pub fn read(dir: &Path) -> Result<Remains, RecoverError> {
    let newest = snapshots::newest(&ReadOnly, dir)?;
    let covered = newest.as_ref().map(|(manifest, _)| manifest.id());
    let Inspection { identity, log, .. } = inspect(dir, covered)?;
    let nothing = |what: &str| RecoverError::Nothing(format!("{} {what}", dir.display()));
    let identity = identity?.ok_or_else(|| nothing("holds no member"))?;
    if identity.cluster == 0 {
        return Err(nothing("holds a member of no cluster: a node that starts on it can found one, or join"));
    }
    let Some(log) = log else { return Err(nothing("holds no log")) };
    let LogContents { recovered: log, .. } = log?;
    let snapshot = covered.unwrap_or_default();
    if snapshot.index < log.base.index {
        return Err(OpenError::NoSnapshot { base: log.base.index, covered: snapshot.index }.into());
    }
    let (mut configuration, mut state) = match newest {
        Some((manifest, state)) => (manifest.snapshot.configuration, state),
        None => (Configuration::default(), Store::new()),
    };
    let mut last = snapshot;
    for entry in log.entries.iter().filter(|entry| entry.index > snapshot.index) {
        apply(entry, &mut state, &mut configuration)?;
        last = entry.id();
    }
    if last == LogId::default() {
        return Err(nothing("holds no entry"));
    }
    let corrupt = snapshots::read_mark(&ReadOnly, dir)?;
    Ok(Remains { identity, log, snapshot, last, configuration, corrupt, state })
}

fn apply(entry: &Entry, state: &mut Store, configuration: &mut Configuration) -> Result<(), RecoverError> {
    match &entry.payload {
        Payload::Noop => {}
        Payload::Configuration(newer) => configuration.clone_from(newer),
        Payload::Command(bytes) => {
            let unknown = || RecoverError::Unknown(entry.index);
            let command = command::read(bytes.clone(), Levels::ALL).map_err(|_| unknown())?;
            // What the state refuses it refuses here too, as it did on every member.
            let _ = state.apply(&command.operation);
        }
    }
    Ok(())
}

/// What has come of it.
#[derive(Debug)]
pub struct Founded {
    /// The new cluster of one, and its member.
    pub cluster: u64,
    /// The new member.
    pub member: MemberId,
    /// The revision that the state is at: everything before is compacted.
    pub revision: i64,
    /// What the directory held before.
    pub before: PathBuf,
}

impl Remains {
    /// The revision of the state, before it goes up.
    pub fn revision(&self) -> i64 {
        self.state.revision()
    }

    /// Entries that are there and not known to be committed.
    pub fn uncertain(&self) -> u64 {
        self.last.index.saturating_sub(self.log.hard_state.commit.max(self.snapshot.index))
    }

    /// Makes `dir`, which this was read from and whose lock the caller holds, the one member of a new cluster, `ids` being the new
    /// cluster's and the new member's, with revisions `by` higher.
    pub fn found(
        self,
        disk: &Arc<dyn Disk>,
        dir: &Path,
        (cluster, member): (u64, MemberId),
        by: i64,
    ) -> Result<Founded, RecoverError> {
        let Self { identity, configuration, mut state, last, log, .. } = self;
        let revision = state.revision();
        if !state.leap(by) {
            return Err(RecoverError::Overflow { revision, by });
        }
        let revision = state.revision();
        let term = log.hard_state.term.max(last.term) + TERMS;
        // The place of the configuration in a log that nobody has: its founding entry, so to say.
        let id = LogId { term, index: last.index + 1 };
        let address = address(&configuration, identity.member, member)?;
        let new = replacement::begin(disk.as_ref(), dir)?;
        Beginning { cluster, member, address, id, state }.write(disk, &new)?;
        let before = replacement::exchange(disk.as_ref(), dir)?;
        Ok(Founded { cluster, member, revision, before })
    }
}

/// How `member` is described alone, which is found where `old` was.
fn address(configuration: &Configuration, old: MemberId, member: MemberId) -> Result<Bytes, RecoverError> {
    let described = configuration.addresses.get(&old).map(codec::member).transpose();
    let described = described.map_err(|error| RecoverError::Nothing(error.to_string()))?;
    Ok(codec::address(&log::Member {
        id: member.0,
        registered: log::Registration::None.into(),
        volume: 0,
        ..described.unwrap_or_default()
    }))
}
