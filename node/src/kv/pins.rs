//! Points of the history that readers still need.
//!
//! A reader that takes several holds of the lock pins the revision that it reads: a compaction takes effect all the same, for those that
//! come later, but what is read at that revision is not removed before the reader is done. Readers come and go while others only
//! read the state, so the set of pins has a lock of its own, which is held for a look-up.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

/// The revisions that are pinned in one state, each with how many times. Bounded by the readers under way.
#[derive(Debug, Clone, Default)]
pub(super) struct Pins {
    revisions: Arc<Mutex<BTreeMap<i64, usize>>>,
}

/// Keeps what can be read at one revision, and at later ones, for as long as it lives.
#[derive(Debug)]
pub(super) struct Pin {
    revision: i64,
    pins: Pins,
}

impl Pins {
    /// Pins `revision`. The caller holds the state's lock, so that nothing is removed meanwhile.
    pub(super) fn pin(&self, revision: i64) -> Pin {
        *self.revisions.lock().entry(revision).or_default() += 1;
        Pin { revision, pins: self.clone() }
    }

    /// The lowest revision that is pinned.
    pub(super) fn lowest(&self) -> Option<i64> {
        self.revisions.lock().keys().next().copied()
    }

    /// Whether `pin` is one of these.
    pub(super) fn hold(&self, pin: &Pin) -> bool {
        Arc::ptr_eq(&self.revisions, &pin.pins.revisions)
    }
}

impl Pin {
    /// The revision.
    pub(super) fn revision(&self) -> i64 {
        self.revision
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut revisions = self.pins.revisions.lock();
        if let Some(count) = revisions.get_mut(&self.revision) {
            *count -= 1;
            if *count == 0 {
                revisions.remove(&self.revision);
            }
        }
    }
}
