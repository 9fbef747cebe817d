//! Makes a state of a snapshot's pieces.

use bytes::{Bytes, BytesMut};
use prost::Message;
use quorate_api::snapshot as wire;

use crate::kv::history::Version;
use crate::kv::revision::{INITIAL, Revision};
use crate::kv::{Store, records};

/// Why pieces make no state. Their hashes fit, or the caller would not have come so far: who made them has a defect, or a format that
/// this version does not know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// Not a record.
    #[error("the snapshot holds a record that cannot be read: {0}")]
    Malformed(String),
    /// A record that cannot stand there.
    #[error("the snapshot holds what cannot be: {0}")]
    Impossible(&'static str),
    /// It ends within a record, or before the first.
    #[error("the snapshot is cut short")]
    CutShort,
}

/// A state in the making. Holds no more than a piece beside it.
#[derive(Debug, Default)]
pub struct Restore {
    /// What has come and is not a whole record yet.
    buffer: BytesMut,
    store: Option<Store>,
    newest: Option<Revision>,
}

impl Restore {
    /// Waits for the first piece.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next piece. After an error nothing comes of the rest.
    pub fn push(&mut self, piece: &[u8]) -> Result<(), RestoreError> {
        self.buffer.extend_from_slice(piece);
        while let Some(record) = records::take(&mut self.buffer).map_err(|error| malformed(&error))? {
            match &mut self.store {
                None => self.store = Some(begin(decode(record)?)?),
                Some(store) => add(store, &mut self.newest, decode(record)?)?,
            }
        }
        Ok(())
    }

    /// The state, when all pieces were taken.
    pub fn finish(self) -> Result<Store, RestoreError> {
        if self.buffer.is_empty() {
            self.store.ok_or(RestoreError::CutShort)
        } else {
            Err(RestoreError::CutShort)
        }
    }
}

fn decode<M: Message + Default>(record: Bytes) -> Result<M, RestoreError> {
    M::decode(record).map_err(|error| malformed(&error))
}

fn malformed(error: &dyn std::fmt::Display) -> RestoreError {
    RestoreError::Malformed(error.to_string())
}

fn begin(state: wire::State) -> Result<Store, RestoreError> {
    if state.revision < INITIAL || state.compacted > state.revision || state.compacted < -1 {
        return Err(RestoreError::Impossible("revisions of no state"));
    }
    let mut store = Store::new();
    store.revision = state.revision;
    store.compaction.revision = state.compacted;
    store.weight = state.weight;
    store.kept_at_point = state.kept;
    Ok(store)
}

/// Adds the next version.
fn add(store: &mut Store, newest: &mut Option<Revision>, wire: wire::Version) -> Result<(), RestoreError> {
    let modified = Revision { main: wire.revision, sub: wire.sub };
    if *newest >= Some(modified) || modified.main <= INITIAL || modified.main > store.revision {
        return Err(RestoreError::Impossible("a version out of order"));
    }
    *newest = Some(modified);
    let position = store.take_back(wire);
    let version = store.history.newest(position);
    let previous = version.previous.and_then(|at| store.history.get(at));
    let fits = if modified.main <= store.compaction.revision {
        previous.is_none() && stands_alone(version)
    } else {
        follows(version, previous.filter(|previous| !previous.is_tombstone()))
    };
    if !fits || version.key.is_empty() {
        return Err(RestoreError::Impossible("a version that does not follow from the one before it"));
    }
    if modified.main <= store.compaction.revision {
        store.compaction.next = position.number() + 1;
    }
    Ok(())
}

/// Whether a version can be what a compaction has left of a key.
fn stands_alone(version: &Version) -> bool {
    version.number > 0 && version.created > INITIAL && version.created <= version.modified.main
}

/// Whether a version follows from what its key held before.
fn follows(version: &Version, previous: Option<&Version>) -> bool {
    if version.is_tombstone() {
        return previous.is_some() && version.value.is_empty() && version.created == 0 && version.lease == 0;
    }
    match previous {
        Some(previous) => {
            version.created == previous.created && previous.number.checked_add(1) == Some(version.number)
        }
        None => version.number == 1 && version.created == version.modified.main,
    }
}
