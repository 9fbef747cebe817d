//! What compactions have given up and what is still here: memory that the quota does not see, and that has a bound of its own.
//!
//! It is removed behind what is applied, and not at all while a reader or a snapshot needs it. Where keys are written again and compacted faster than that,
//! it would grow without end. So before more is applied it is removed, down to a part of the quota; readers lose what they have pinned, and are told; and
//! where it is a snapshot that needs it, applying waits for that. How much of it there is differs from member to member, and shows nowhere.

use super::{Collected, Store};

/// The part of the quota that it may take.
const PART: u64 = 4;

/// What is to be done about it before more is applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Garbage {
    /// Nothing: there is little.
    Little,
    /// Some was removed, or can be from now on: to go on with that.
    Removing,
    /// To wait: a snapshot that is being taken needs it.
    Held,
}

impl Store {
    /// Removes, in about `steps` steps, some of what compactions have left without use, if that is too much for a state that may take `quota`
    /// bytes.
    pub fn bound_garbage(&mut self, quota: u64, steps: usize) -> Garbage {
        if !self.has_too_much_garbage(quota) {
            return Garbage::Little;
        }
        match self.collect(steps) {
            Collected::More => Garbage::Removing,
            Collected::All => Garbage::Little,
            Collected::Held if self.is_held_by_snapshot() => Garbage::Held,
            Collected::Held => {
                self.break_pins();
                Garbage::Removing
            }
        }
    }

    /// Whether only the end of the snapshot that is being taken lets garbage be removed, of which there is too much.
    pub fn waits_for_snapshot(&self, quota: u64) -> bool {
        self.has_too_much_garbage(quota) && self.is_held_by_snapshot()
    }

    fn has_too_much_garbage(&self, quota: u64) -> bool {
        // A state that is beyond the quota as it is must not be held up by that.
        self.size() > quota.max(self.size_in_use()).saturating_add(quota / PART)
    }

    fn is_held_by_snapshot(&self) -> bool {
        let lowest = self.compaction.pins.lowest().filter(|pinned| *pinned < self.compaction.revision);
        lowest.is_some() && lowest == self.snapshot.upgrade().map(|pin| pin.revision())
    }

    /// Takes from all readers but a snapshot what they have pinned of what was given up.
    fn break_pins(&mut self) {
        let spared = self.snapshot.upgrade().map(|pin| pin.revision());
        self.compaction.pins.break_below(self.compaction.revision, spared);
    }
}
