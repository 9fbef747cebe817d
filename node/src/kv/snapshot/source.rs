//! Encodes a state while it goes on changing.
//!
//! Versions never change, and while a source lives those that it needs are not removed. So all that a snapshot has to hold still for
//! is its beginning: what was current then. The rest is read in passing, some versions under one hold of the lock, and encoded
//! without it.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use parking_lot::RwLock;
use quorate_api::snapshot as wire;

use super::{lease_to_wire, state_to_wire, version_to_wire};
use crate::kv::pins::Pin;
use crate::kv::records::TooLong;
use crate::kv::revision::Revision;
use crate::kv::steps::Steps;
use crate::kv::version::Version;
use crate::kv::{Collected, Store, records};
use crate::leases::{Grant, View};
use crate::level::Level;

/// Versions that are read under one hold of the lock.
const BATCH: usize = 256;

/// Steps under one hold of the lock: some hundred microseconds at most.
const STEPS: usize = 1024;

/// Why a snapshot cannot be finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotEncoded {
    /// The state was exchanged for another one.
    #[error("the state was replaced while a snapshot of it was taken")]
    Replaced,
    /// The state holds what no member could restore.
    #[error(transparent)]
    TooLong(#[from] TooLong),
}

/// A snapshot in the making.
#[derive(Debug)]
pub struct SnapshotSource {
    pin: Arc<Pin>,
    /// What is newer is not in it.
    revision: i64,
    /// Deletions below this revision are not in it.
    deletions: i64,
    /// Some of what the compaction left without use is still there, because another reader needs it: it is told apart as it is read.
    sorts_out: bool,
    step: Step,
    /// The first record, until it is encoded.
    state: Option<wire::State>,
    leases: View,
    /// Not handed out yet.
    encoded: BytesMut,
    piece_bytes: usize,
    /// Of the state, and so of the snapshot.
    level: Level,
}

/// What is to be done next.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// The leases.
    Leases,
    /// What the compaction left without use, and is still there, has to go first: then all that is there belongs to the snapshot.
    Collect,
    /// The versions from this position on.
    Read(u64),
    /// Everything has been read.
    Done,
}

impl Store {
    /// Begins a snapshot of the state as it is now, in pieces of so many bytes. Only one at a time: `None` while another one lives. Nor
    /// can one begin in the middle of an entry.
    pub fn snapshot(&mut self, piece_bytes: usize) -> Option<SnapshotSource> {
        if self.snapshot.strong_count() > 0 || self.unfinished.is_some() {
            return None;
        }
        let state = state_to_wire(self);
        let pin = Arc::new(self.pin(self.compaction.revision));
        self.snapshot = Arc::downgrade(&pin);
        Some(SnapshotSource {
            pin,
            revision: self.revision,
            deletions: self.compaction.deletions,
            sorts_out: false,
            step: Step::Leases,
            state: Some(state),
            leases: self.leases.view(),
            encoded: BytesMut::new(),
            piece_bytes,
            level: self.level,
        })
    }
}

impl SnapshotSource {
    /// The bytes of each piece but the last.
    pub fn piece_bytes(&self) -> usize {
        self.piece_bytes
    }

    /// The level of the state: the format of the snapshot.
    pub fn level(&self) -> Level {
        self.level
    }

    /// The next piece, in order, of `store`, where the snapshot was begun; `None` when there are no more. The lock is taken several
    /// times, and never for long.
    pub fn next_piece(&mut self, store: &RwLock<Store>) -> Result<Option<Bytes>, NotEncoded> {
        while self.encoded.len() < self.piece_bytes && self.hold(store)? {}
        if self.encoded.is_empty() {
            return Ok(None);
        }
        let bytes = self.piece_bytes.min(self.encoded.len());
        Ok(Some(self.encoded.split_to(bytes).freeze()))
    }

    /// Goes on, under one hold of the lock. False at the end.
    pub(in crate::kv) fn hold(&mut self, store: &RwLock<Store>) -> Result<bool, NotEncoded> {
        if let Some(state) = self.state.take() {
            records::append(&mut self.encoded, &state)?;
        }
        match self.step {
            Step::Leases => {
                let leases = self.read_leases(&store.read())?;
                for grant in leases {
                    records::append(&mut self.encoded, &lease_to_wire(grant))?;
                }
            }
            Step::Collect => self.collect(&mut store.write())?,
            Step::Read(from) => {
                let versions = self.read(&store.read(), from)?;
                for version in &versions {
                    records::append(&mut self.encoded, version)?;
                }
            }
            Step::Done => return Ok(false),
        }
        Ok(true)
    }

    fn read_leases(&mut self, store: &Store) -> Result<Vec<Grant>, NotEncoded> {
        self.check(store)?;
        let leases = self.leases.next(&store.leases, BATCH);
        if self.leases.is_at_end() {
            self.step = Step::Collect;
        }
        Ok(leases)
    }

    fn collect(&mut self, store: &mut Store) -> Result<(), NotEncoded> {
        self.check(store)?;
        // A later compaction may have left more: that is held back by this snapshot itself.
        if store.collect(STEPS) != Collected::More {
            self.sorts_out = !store.has_collected(self.pin.revision(), self.deletions);
            self.step = Step::Read(1);
        }
        Ok(())
    }

    fn read(&mut self, store: &Store, from: u64) -> Result<Vec<wire::Version>, NotEncoded> {
        self.check(store)?;
        let mut versions = Vec::with_capacity(BATCH);
        let (mut bytes, mut steps) = (0, Steps::new(STEPS));
        self.step = Step::Done;
        for (at, version) in store.history.iter_from(from) {
            if version.modified().main > self.revision {
                break;
            }
            if versions.len() == BATCH || bytes >= self.piece_bytes || steps.are_used_up() {
                self.step = Step::Read(at.number());
                break;
            }
            steps.take(1);
            if self.sorts_out && !self.holds(store, version, &mut steps) {
                continue;
            }
            bytes += version.key().len() + version.value().len();
            versions.push(version_to_wire(version));
        }
        Ok(versions)
    }

    /// Whether `version` belongs to it: whether the last compaction before it has left it.
    fn holds(&self, store: &Store, version: &Version, steps: &mut Steps) -> bool {
        let (main, compacted) = (version.modified().main, self.pin.revision());
        if main > compacted {
            return true;
        }
        if version.is_tombstone() {
            return main >= self.deletions;
        }
        let Some(newest) = store.index.get(version.key()) else { return false };
        let kept = store.history.newest_at(newest, Revision::end_of(compacted), steps);
        kept.is_some_and(|kept| kept.modified() == version.modified())
    }

    fn check(&self, store: &Store) -> Result<(), NotEncoded> {
        if store.is_pinned_by(&self.pin) { Ok(()) } else { Err(NotEncoded::Replaced) }
    }
}
