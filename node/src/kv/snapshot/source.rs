//! Encodes a state while it goes on changing.
//!
//! Versions never change, and while a source lives those that it needs are not removed. So all that a snapshot has to hold still for
//! is its beginning: what was current then. The rest is read in passing, some versions under one hold of the lock, and encoded
//! without it.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use parking_lot::RwLock;
use quorate_api::snapshot as wire;

use super::{lease_to_wire, state_to_wire};
use crate::kv::contents::Contents;
use crate::kv::records::TooLong;
use crate::kv::{Collected, Store, records};
use crate::leases::{Grant, View};
use crate::level::Level;

/// Leases that are read under one hold of the lock.
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
    contents: Contents,
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
    /// The versions.
    Read,
}

impl Store {
    /// Begins a snapshot of the state as it is now, in pieces of so many bytes. Only one at a time: `None` while another one lives. Nor
    /// can one begin in the middle of an entry.
    pub fn snapshot(&mut self, piece_bytes: usize) -> Option<SnapshotSource> {
        if self.snapshot.strong_count() > 0 || self.unfinished.is_some() {
            return None;
        }
        let (state, contents) = (state_to_wire(self), self.contents());
        self.snapshot = Arc::downgrade(contents.pin());
        Some(SnapshotSource {
            contents,
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
            Step::Read if self.contents.is_read() => return Ok(false),
            Step::Read => {
                let versions = self.contents.read(&store.read(), self.piece_bytes);
                for version in &versions.map_err(|_| NotEncoded::Replaced)? {
                    records::append(&mut self.encoded, version)?;
                }
            }
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
            self.contents.look_again(store);
            self.step = Step::Read;
        }
        Ok(())
    }

    fn check(&self, store: &Store) -> Result<(), NotEncoded> {
        self.contents.check(store).map_err(|_| NotEncoded::Replaced)
    }
}
