//! Makes a state of a snapshot's pieces.

use bytes::{Bytes, BytesMut};
use prost::Message;
use quorate_api::snapshot as wire;

use super::lease_from_wire;
use crate::kv::revision::{INITIAL, Revision};
use crate::kv::version::{MAX_NUMBER, Version};
use crate::kv::{Store, alarms, records};
use crate::level::{ALARMS, LEASES, Level, Levels};

/// Why pieces make no state. Their hashes fit, or the caller would not have come so far: what made them has a defect, or is newer than this
/// version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// Not a record.
    #[error("the snapshot holds a record that cannot be read: {0}")]
    Malformed(String),
    /// A record that cannot stand there.
    #[error("the snapshot holds what cannot be: {0}")]
    Impossible(&'static str),
    /// A newer version made it: it needs this level, or holds something that is not known here.
    #[error("the snapshot was made by a newer version")]
    Newer(Option<Level>),
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
    /// So many leases come before the first version.
    leases: u64,
    newest: Option<Revision>,
    /// Some version names a lease.
    hangs: bool,
}

impl Restore {
    /// Waits for the first piece.
    pub fn new() -> Self {
        Self::default()
    }

    /// What the state takes by now, in bytes, as it is accounted.
    pub fn size(&self) -> u64 {
        self.store.as_ref().map_or(0, Store::size)
    }

    /// Takes the next piece. After an error nothing comes of the rest.
    pub fn push(&mut self, piece: &[u8]) -> Result<(), RestoreError> {
        self.buffer.extend_from_slice(piece);
        while let Some(record) = records::take(&mut self.buffer).map_err(|error| malformed(&error))? {
            match &mut self.store {
                None => {
                    let (store, leases) = begin(record)?;
                    (self.store, self.leases) = (Some(store), leases);
                }
                Some(store) if self.leases > 0 => {
                    if !store.leases.restore(lease_from_wire(decode(record)?)) {
                        return Err(RestoreError::Impossible("a lease that cannot be"));
                    }
                    self.leases -= 1;
                }
                Some(store) => {
                    let version = decode(record)?;
                    add(store, &mut self.newest, &version)?;
                    self.hangs |= version.lease != 0;
                }
            }
        }
        Ok(())
    }

    /// The state, when all pieces were taken.
    pub fn finish(self) -> Result<Store, RestoreError> {
        let Self { buffer, store: Some(mut store), leases: 0, hangs, .. } = self else {
            return Err(RestoreError::CutShort);
        };
        if !buffer.is_empty() {
            return Err(RestoreError::CutShort);
        }
        if hangs && !store.hang_all() {
            return Err(RestoreError::Impossible("a key that hangs on no lease"));
        }
        Ok(store)
    }
}

/// A record that holds nothing but what this version knows: protobuf drops the rest without a word.
fn decode<M: Message + Default>(record: Bytes) -> Result<M, RestoreError> {
    let length = record.len();
    let message = M::decode(record).map_err(|error| malformed(&error))?;
    if message.encoded_len() == length { Ok(message) } else { Err(RestoreError::Newer(None)) }
}

fn malformed(error: &dyn std::fmt::Display) -> RestoreError {
    RestoreError::Malformed(error.to_string())
}

/// The state, and how many leases follow.
fn begin(record: Bytes) -> Result<(Store, u64), RestoreError> {
    // A newer level says so, whatever else it has beside it.
    let level = wire::State::decode(record.clone()).map_err(|error| malformed(&error))?.level;
    if level > Levels::ALL.newest {
        return Err(RestoreError::Newer(Some(level)));
    }
    let state: wire::State = decode(record)?;
    if !Levels::ALL.contains(level) {
        return Err(RestoreError::Impossible("a state without a level"));
    }
    let mut store = Store::new();
    if state.revision < INITIAL || !store.set_compacted(&state) {
        return Err(RestoreError::Impossible("revisions of no state"));
    }
    store.revision = state.revision;
    store.weight = state.weight;
    store.kept_at_point = state.kept;
    store.level = level;
    store.alarms = alarms::restored(&state.alarms)
        .filter(|alarms| level >= ALARMS || alarms.is_empty())
        .ok_or(RestoreError::Impossible("alarms of no state"))?;
    if state.leases > state.grants || (level < LEASES && state.grants > 0) {
        return Err(RestoreError::Impossible("leases of no state"));
    }
    store.leases.restore_granted(state.grants);
    Ok((store, state.leases))
}

/// Adds the next version.
fn add(store: &mut Store, newest: &mut Option<Revision>, wire: &wire::Version) -> Result<(), RestoreError> {
    let modified = Revision { main: wire.revision, sub: wire.sub };
    if *newest >= Some(modified) || modified.main <= INITIAL || modified.main > store.revision {
        return Err(RestoreError::Impossible("a version out of order"));
    }
    if !(0..=MAX_NUMBER).contains(&wire.number) || modified.sub == u32::MAX || wire.key.is_empty() {
        return Err(RestoreError::Impossible("a version of no key"));
    }
    *newest = Some(modified);
    let position = store.take_back(wire);
    let version = store.history.newest(position);
    let fits = store.can_stand(version);
    if !fits {
        return Err(RestoreError::Impossible("a version that does not follow from the one before it"));
    }
    store.restored(position, modified.main);
    Ok(())
}

impl Store {
    /// Whether `version`, which is the history's, follows from what its key held before, or can be what the compaction has left of it.
    pub(in crate::kv) fn can_stand(&self, version: &Version) -> bool {
        let (compacted, deletions) = (self.compaction.revision, self.compaction.deletions);
        let previous = version.previous.and_then(|at| self.history.get(at));
        let live = previous.filter(|previous| !previous.is_tombstone());
        if version.modified().main <= compacted {
            // A deletion may stand before it: of the same transaction, in the revision that was compacted.
            live.is_none() && stands_alone(version, deletions)
        } else {
            follows(version, live)
        }
    }
}

/// Whether a version can be what a compaction has left of a key that gives up deletions below `deletions`.
fn stands_alone(version: &Version, deletions: i64) -> bool {
    let main = version.modified().main;
    if version.is_tombstone() {
        return main >= deletions && is_empty(version);
    }
    (INITIAL + 1..=main).contains(&version.created)
}

/// Whether a deletion holds nothing.
fn is_empty(deletion: &Version) -> bool {
    deletion.value().is_empty() && deletion.created == 0 && deletion.lease == 0
}

/// Whether a version follows from what its key held before.
fn follows(version: &Version, previous: Option<&Version>) -> bool {
    if version.is_tombstone() {
        return previous.is_some() && is_empty(version);
    }
    match previous {
        Some(previous) => {
            version.created == previous.created && previous.number().checked_add(1) == Some(version.number())
        }
        None => version.number() == 1 && version.created == version.modified().main,
    }
}
