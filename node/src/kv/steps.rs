//! What work on the state costs: steps, so that no hold of its lock takes long.
//!
//! A step is a version or a key that is looked at, or a place that is moved: some 20 to 200 nanoseconds each, by whether it is in the
//! processor's cache. Bytes that are copied or compared are steps too: 512 of them take about as long. Keys do not tell what a piece of work costs: one key may have a million versions, and a million deleted keys may
//! lie in a range that holds nothing.

/// The most steps that any piece of work takes under one hold of the state's lock: two milliseconds at worst, which is less than what a
/// write waits for its disk. Pieces are chosen smaller; the rest is for what ends a piece.
pub const MAX_STEPS: usize = 10_000;

/// So many bytes that are copied or compared are a step.
pub const BYTES_OF_A_STEP: usize = 512;

/// How many steps a piece of work may still take.
#[derive(Debug)]
pub(super) struct Steps {
    left: usize,
}

impl Steps {
    /// So many.
    pub(super) fn new(steps: usize) -> Self {
        Self { left: steps }
    }

    /// Some were taken. What cannot be cut into pieces may take a few more than there are.
    pub(super) fn take(&mut self, steps: usize) {
        self.left = self.left.saturating_sub(steps);
    }

    /// So many bytes were copied or compared.
    pub(super) fn take_bytes(&mut self, bytes: usize) {
        self.take(bytes / BYTES_OF_A_STEP);
    }

    /// Whether the piece ends here.
    pub(super) fn are_used_up(&self) -> bool {
        self.left == 0
    }

    /// How many are left.
    pub(super) fn left(&self) -> usize {
        self.left
    }
}

/// Counts what is really looked at and copied, whatever was accounted: for tests.
#[cfg(test)]
pub(crate) mod looks {
    use std::cell::Cell;

    thread_local! {
        static LOOKS: Cell<usize> = const { Cell::new(0) };
        static COPIED: Cell<usize> = const { Cell::new(0) };
    }

    /// This thread has looked at so many versions, keys or places.
    pub(in crate::kv) fn add(looks: usize) {
        LOOKS.set(LOOKS.get() + looks);
    }

    /// This thread has copied so many bytes.
    pub(in crate::kv) fn copy(bytes: usize) {
        COPIED.set(COPIED.get() + bytes);
    }

    /// How many looks they were since this was asked last.
    pub(crate) fn taken() -> usize {
        LOOKS.replace(0)
    }

    /// How many bytes.
    pub(crate) fn copied() -> usize {
        COPIED.replace(0)
    }

    /// What a hold of the state's lock looks at, and copies, must be bounded.
    pub(crate) fn hold<T>(work: impl FnOnce() -> T) -> T {
        taken();
        copied();
        let result = work();
        let (looks, bytes) = (taken(), copied());
        assert!(looks <= super::MAX_STEPS, "{looks} steps under one hold");
        assert!(bytes <= super::MAX_STEPS * super::BYTES_OF_A_STEP, "{bytes} bytes under one hold");
        result
    }
}

/// The same where nothing counts.
#[cfg(not(test))]
pub(super) mod looks {
    #[inline]
    pub(in crate::kv) fn add(_: usize) {}
    #[inline]
    pub(in crate::kv) fn copy(_: usize) {}
}
