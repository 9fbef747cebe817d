//! The store's logical clock.

/// The revision of a store that nothing was written to. The first write makes 2.
pub const INITIAL: i64 = 1;

/// A point in the history of the store: a transaction's revision, and the place of one change in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Revision {
    /// The transaction. Every transaction that changes something makes the next one.
    pub main: i64,
    /// The change's place among the transaction's changes, from 0.
    pub sub: u32,
}

impl Revision {
    /// Before every change.
    pub(super) const START: Self = Self { main: 0, sub: 0 };

    /// Behind every change of the transaction `main`.
    pub(super) fn end_of(main: i64) -> Self {
        Self { main, sub: u32::MAX }
    }

    /// The newest transaction all of whose changes lie at this point or before it.
    pub(super) fn whole(self) -> i64 {
        if self.sub == u32::MAX { self.main } else { self.main - 1 }
    }
}
