//! Everything that a state holds at one point, in the order of revisions: for those that copy or hash all of it.
//!
//! What is read is what the last compaction before that point leaves, whatever of the rest is still in memory; so it is the same on every
//! member that was at this point.

use std::sync::Arc;

use quorate_api::snapshot as wire;

use super::pins::Pin;
use super::revision::Revision;
use super::snapshot::version_to_wire;
use super::steps::Steps;
use super::version::Version;
use super::{KvError, Store};

/// Versions that are read under one hold of the lock.
const BATCH: usize = 256;

/// Steps under one hold of the lock: some hundred microseconds at most.
const STEPS: usize = 1024;

/// A reader of all that a state holds, from the first to the last.
#[derive(Debug)]
pub struct Contents {
    pin: Arc<Pin>,
    /// What is newer is not in it.
    revision: i64,
    /// Deletions below this revision are not in it.
    deletions: i64,
    /// Of what was compacted, only what its key still held at this revision is in it.
    held_at: i64,
    /// Some of what it does not hold is still there: it is told apart as it is read.
    sorts_out: bool,
    /// The number of the version that is next; none at the end.
    next: Option<u64>,
}

impl Store {
    /// All that the state holds now.
    pub fn contents(&self) -> Contents {
        let pin = Arc::new(self.pin(self.compaction.revision));
        let (revision, deletions, held_at) = (self.revision, self.compaction.deletions, pin.revision());
        let mut contents = Contents { pin, revision, deletions, held_at, sorts_out: false, next: Some(1) };
        contents.look_again(self);
        contents
    }
}

impl Contents {
    /// Has it read up to `revision` only, and with `held`, of what was compacted only what its key still held there.
    pub(super) fn limit(&mut self, revision: i64, held: bool) {
        self.revision = revision;
        if held {
            (self.held_at, self.sorts_out) = (revision.max(self.held_at), true);
        }
    }

    /// Begins anew, and reads the same again.
    pub fn rewind(&mut self) {
        self.next = Some(1);
    }

    /// The current revision at the point at which it reads.
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// What was compacted then; negative for nothing.
    pub fn compacted(&self) -> i64 {
        self.pin.revision()
    }

    pub(super) fn pin(&self) -> &Arc<Pin> {
        &self.pin
    }

    /// Looks whether anything has to be told apart. Once all that is not in it was removed nothing has to: it keeps what is.
    pub(super) fn look_again(&mut self, store: &Store) {
        self.sorts_out = !store.has_collected(self.pin.revision(), self.deletions);
    }

    /// Whether `store` still has all of it: fails as [`Self::read`] does.
    pub fn check(&self, store: &Store) -> Result<(), KvError> {
        if store.is_pinned_by(&self.pin) { Ok(()) } else { Err(KvError::Compacted) }
    }

    /// Whether there is nothing more.
    pub fn is_read(&self) -> bool {
        self.next.is_none()
    }

    /// Reads on, under one hold of the lock: some versions, of about so many bytes. There may be none though there are more: see
    /// [`Self::is_read`].
    ///
    /// Fails with [`KvError::Compacted`] if what it reads is gone: another state has taken the place of the one that it was begun in, or
    /// memory is short ([`super::garbage`]).
    pub fn read(&mut self, store: &Store, most_bytes: usize) -> Result<Vec<wire::Version>, KvError> {
        self.check(store)?;
        let Some(from) = self.next.take() else { return Ok(Vec::new()) };
        let mut versions = Vec::with_capacity(BATCH);
        let (mut bytes, mut steps) = (0, Steps::new(STEPS));
        for (at, version) in store.history.iter_from(from) {
            if version.modified().main > self.revision {
                break;
            }
            if versions.len() == BATCH || bytes >= most_bytes || steps.are_used_up() {
                self.next = Some(at.number());
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

    /// Whether `version` belongs to it.
    fn holds(&self, store: &Store, version: &Version, steps: &mut Steps) -> bool {
        let (main, compacted) = (version.modified().main, self.pin.revision());
        if main > compacted {
            return true;
        }
        if version.is_tombstone() {
            return main >= self.deletions;
        }
        let Some(newest) = store.index.get(version.key()) else { return false };
        let held = store.history.newest_at(newest, Revision::end_of(self.held_at), steps);
        held.is_some_and(|held| held.modified() == version.modified())
    }
}
