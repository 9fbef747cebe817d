//! Points of the history that readers still need.
//!
//! A reader that takes several holds of the lock pins the revision that it reads: a compaction takes effect all the same, for those that
//! come later, but what is read at that revision is not removed before the reader is done. Readers come and go while others only
//! read the state, so the set of pins has a lock of its own, which is held for a look-up.
//!
//! What is held up by pins is memory. When it is too much ([`super::garbage`]) they are broken: a reader finds that before it reads on, as it does when another state
//! has taken the place of the one that it began in.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

/// The revisions that are pinned in one state.
#[derive(Debug, Clone, Default)]
pub(super) struct Pins {
    points: Arc<Mutex<Points>>,
}

#[derive(Debug, Default)]
struct Points {
    /// Each with how many times. Bounded by the readers under way.
    revisions: BTreeMap<i64, usize>,
    /// Pins of revisions below this one are broken, but for those of one revision.
    broken: Option<i64>,
    spared: Option<i64>,
}

impl Points {
    fn is_broken(&self, revision: i64) -> bool {
        self.broken.is_some_and(|broken| revision < broken) && self.spared != Some(revision)
    }
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
        *self.points.lock().revisions.entry(revision).or_default() += 1;
        Pin { revision, pins: self.clone() }
    }

    /// The lowest revision that is pinned.
    pub(super) fn lowest(&self) -> Option<i64> {
        let points = self.points.lock();
        points.revisions.keys().copied().find(|revision| !points.is_broken(*revision))
    }

    /// Whether `pin` is one of these, and not broken.
    pub(super) fn hold(&self, pin: &Pin) -> bool {
        Arc::ptr_eq(&self.points, &pin.pins.points) && !self.points.lock().is_broken(pin.revision)
    }

    /// Breaks the pins of revisions below this one, which no reader can pin any more, but for those of revision `spared`.
    pub(super) fn break_below(&self, revision: i64, spared: Option<i64>) {
        let mut points = self.points.lock();
        (points.broken, points.spared) = (Some(revision), spared);
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
        let revisions = &mut self.pins.points.lock().revisions;
        if let Some(count) = revisions.get_mut(&self.revision) {
            *count -= 1;
            if *count == 0 {
                revisions.remove(&self.revision);
            }
        }
    }
}
