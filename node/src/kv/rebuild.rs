//! The state read back from what a member has copied of it: version after version, in the order in which they came.
//!
//! Unlike a snapshot, such a copy holds what compactions have made useless since: it is removed here. It may also lack versions
//! between others, which were removed before they were copied.

use quorate_api::snapshot as wire;
use quorate_raft::LogId;

use super::revision::{INITIAL, Revision};
use super::sizes::Sizes;
use super::steps::Steps;
use super::version::MAX_NUMBER;
use super::{Collected, Store, alarms};
use crate::level::Levels;

/// Why versions make no state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it holds what cannot be: {0}")]
pub struct RebuildError(&'static str);

/// The number of a deletion that was removed before it could be copied in its place: it stands anywhere behind what it deletes, and before
/// what came after it.
pub(super) const BURIED: i64 = -1;

/// A state in the making.
#[derive(Debug, Default)]
pub struct Rebuild {
    store: Store,
    newest: Option<Revision>,
    versions: u64,
}

impl Rebuild {
    /// Adds the next version.
    pub fn push(&mut self, wire: &wire::Version) -> Result<(), RebuildError> {
        let modified = Revision { main: wire.revision, sub: wire.sub };
        if wire.number == BURIED {
            self.versions += 1;
            bury(&mut self.store, &wire.key);
            return Ok(());
        }
        let is_version = (0..=MAX_NUMBER).contains(&wire.number) && modified.sub < u32::MAX;
        if self.newest >= Some(modified) || modified.main <= INITIAL || wire.key.is_empty() || !is_version {
            return Err(RebuildError("a version out of order"));
        }
        self.newest = Some(modified);
        self.versions += 1;
        self.store.take_back(wire);
        Ok(())
    }

    /// How many versions it has taken in.
    pub fn versions(&self) -> u64 {
        self.versions
    }

    /// The state as `state` describes it, with everything up to the entry `applied`.
    pub fn finish(self, state: &wire::State, applied: LogId) -> Result<Store, RebuildError> {
        let Self { mut store, newest, .. } = self;
        let fits = newest.is_none_or(|newest| newest.main <= state.revision)
            && Levels::ALL.contains(state.level)
            && state.revision >= INITIAL
            && store.set_compacted(state);
        if !fits {
            return Err(RebuildError("revisions of no state, or another level's"));
        }
        store.revision = state.revision;
        store.weight = state.weight;
        store.kept_at_point = state.kept;
        store.level = state.level;
        store.alarms = alarms::restored(&state.alarms).ok_or(RebuildError("alarms out of order"))?;
        store.applied = applied;
        store.count_given_up(&mut Steps::new(usize::MAX));
        while store.collect(1 << 16) == Collected::More {}
        // Nothing is left that the last compaction does not leave.
        store.sizes = store.count();
        Ok(store)
    }
}

impl Store {
    /// The sizes, counted anew: of a state that holds nothing but what the last compaction leaves.
    pub(super) fn count(&self) -> Sizes {
        let mut sizes = Sizes::default();
        for (_, version) in self.history.iter_from(0) {
            sizes.add(version, self.history.makes_key(version.previous));
        }
        sizes
    }
}

/// Removes what `key` held before it was deleted. What came after the deletion comes later: it was copied later as well.
fn bury(store: &mut Store, key: &[u8]) {
    let Store { index, history, sizes, .. } = store;
    let mut older = index.get(key);
    index.remove(key);
    while let Some(removed) = older.and_then(|at| history.remove(at)) {
        sizes.remove(&removed);
        older = removed.previous;
    }
}
