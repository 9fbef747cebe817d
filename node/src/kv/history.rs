//! Every version of every key, in the order of their revisions.
//!
//! Versions are appended and never change, so a position stays valid, and a read at an old revision needs no copy of the
//! state. They lie in segments: growing copies nothing. What happened in a revision lies side by side; compaction and
//! watches will read it from here.

use std::num::NonZeroU64;

use bytes::Bytes;
use quorate_api::mvccpb::KeyValue;

use super::revision::Revision;

/// Versions in one segment.
const SEGMENT: usize = 1024;

/// Where a version lies in the history, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Position(NonZeroU64);

/// One change of one key.
#[derive(Debug)]
pub(super) struct Version {
    pub(super) key: Bytes,
    /// Empty in a tombstone.
    pub(super) value: Bytes,
    pub(super) modified: Revision,
    /// The main revision that made the key; 0 in a tombstone.
    pub(super) created: i64,
    /// Changes of the key since it was made, from 1; 0 in a tombstone.
    pub(super) number: i64,
    /// The lease that the key hangs on; 0 for none.
    pub(super) lease: i64,
    /// The key's version before this one.
    pub(super) previous: Option<Position>,
}

impl Version {
    /// Whether this version is the key's deletion.
    pub(super) fn is_tombstone(&self) -> bool {
        self.number == 0
    }

    /// As clients see it. Key and value are shared, not copied.
    pub(super) fn key_value(&self) -> KeyValue {
        KeyValue {
            key: self.key.clone(),
            create_revision: self.created,
            mod_revision: self.modified.main,
            version: self.number,
            value: self.value.clone(),
            lease: self.lease,
        }
    }

    /// As clients see it who ask for keys only: without value and without lease, as in etcd from 3.7 on.
    pub(super) fn key_only(&self) -> KeyValue {
        KeyValue {
            key: self.key.clone(),
            create_revision: self.created,
            mod_revision: self.modified.main,
            version: self.number,
            value: Bytes::new(),
            lease: 0,
        }
    }
}

/// All versions. Invariants: revisions ascend with positions; `previous` leads to an older version of the same key.
#[derive(Debug, Default)]
pub(super) struct History {
    segments: Vec<Vec<Version>>,
}

impl History {
    /// Appends `version`, which must be newer than all others.
    pub(super) fn push(&mut self, version: Version) -> Position {
        if self.segments.last().is_none_or(|segment| segment.len() == SEGMENT) {
            self.segments.push(Vec::with_capacity(SEGMENT));
        }
        let before = (self.segments.len() - 1) * SEGMENT;
        let segment = self.segments.last_mut().expect("a segment was just made sure of");
        debug_assert!(segment.last().is_none_or(|newest| newest.modified < version.modified));
        segment.push(version);
        let count = (before + segment.len()) as u64;
        Position(NonZeroU64::new(count).expect("a version was just added"))
    }

    /// The version at `position`, which this history gave out.
    pub(super) fn get(&self, position: Position) -> &Version {
        let at = usize::try_from(position.0.get() - 1).expect("positions count what is in memory");
        &self.segments[at / SEGMENT][at % SEGMENT]
    }

    /// What a key held at `revision`, given its newest version: nothing if it did not exist.
    pub(super) fn at(&self, newest: Position, revision: i64) -> Option<&Version> {
        let mut version = self.get(newest);
        while version.modified.main > revision {
            version = self.get(version.previous?);
        }
        (!version.is_tombstone()).then_some(version)
    }
}
