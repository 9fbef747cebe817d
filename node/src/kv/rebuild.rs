//! The state read back from what a member has copied of it: version after version, in the order in which they came.
//!
//! Unlike a snapshot, such a copy holds what compactions have made useless since: it is removed here. It may also lack versions
//! between others, which were removed before they were copied.

use std::collections::{BTreeMap, BTreeSet};

use quorate_api::snapshot as wire;
use quorate_raft::LogId;

use super::keys::Keys;
use super::revision::{INITIAL, Revision};
use super::sizes::Sizes;
use super::steps::Steps;
use super::version::MAX_NUMBER;
use super::{Collected, Store, alarms};
use crate::leases::Grant;
use crate::level::Levels;

/// Why versions make no state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it holds what cannot be: {0}")]
pub struct RebuildError(&'static str);

/// The number of a deletion that was removed before it could be copied in its place: it stands anywhere behind what it deletes, and before
/// what came after it.
pub(super) const BURIED: i64 = -1;

/// The numbers of what is no version: that a lease was granted (`lease` is its ID, `created` its time to live, `revision` the number of the
/// grant), and that it has ended. The last that was said of a lease counts.
const GRANTED: i64 = -2;
const ENDED: i64 = -3;

/// A state in the making.
#[derive(Debug, Default)]
pub struct Rebuild {
    store: Store,
    leases: BTreeMap<i64, Grant>,
    /// Some version names a lease.
    hangs: bool,
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
        if matches!(wire.number, GRANTED | ENDED) {
            self.versions += 1;
            self.lease(wire);
            return Ok(());
        }
        let is_version = (0..=MAX_NUMBER).contains(&wire.number) && modified.sub < u32::MAX;
        if self.newest >= Some(modified) || modified.main <= INITIAL || wire.key.is_empty() || !is_version {
            return Err(RebuildError("a version out of order"));
        }
        self.newest = Some(modified);
        self.versions += 1;
        self.store.take_back(wire);
        self.hangs |= wire.lease != 0;
        Ok(())
    }

    fn lease(&mut self, wire: &wire::Version) {
        let (id, number) = (wire.lease, wire.revision.cast_unsigned());
        if wire.number == GRANTED {
            self.leases.insert(id, Grant { id, ttl: wire.created, number });
        } else {
            self.leases.remove(&id);
        }
    }

    /// Adds a lease that lives for `ttl` seconds, as the next one that was granted.
    pub fn grant(&mut self, id: i64, ttl: i64) {
        let number = self.leases() + 1;
        self.leases.insert(id, Grant { id, ttl, number });
    }

    /// How many leases it has taken in.
    pub fn leases(&self) -> u64 {
        self.leases.len() as u64
    }

    /// The leases that keys hang on and that it has not taken in.
    pub fn missing_leases(&self) -> BTreeSet<i64> {
        let Store { index, history, .. } = &self.store;
        let newest =
            index.range(Keys::From(&[]), None, false).map(|(_, newest)| history.newest(newest).lease);
        newest.filter(|lease| *lease != 0 && !self.leases.contains_key(lease)).collect()
    }

    /// How many versions it has taken in.
    pub fn versions(&self) -> u64 {
        self.versions
    }

    /// The state as `state` describes it, with everything up to the entry `applied`.
    pub fn finish(self, state: &wire::State, applied: LogId) -> Result<Store, RebuildError> {
        let Self { mut store, leases, hangs, newest, .. } = self;
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
        store.leases.restore_granted(state.grants);
        let are_all = leases.len() as u64 == state.leases;
        let is_restored = are_all && leases.into_values().all(|grant| store.leases.restore(grant));
        if !is_restored || (hangs && !store.hang_all()) {
            return Err(RebuildError("other leases than there were"));
        }
        Ok(store)
    }
}

impl Store {
    /// Whether every version follows from the one before it, or can be what the compaction has left: for what no member has written. A
    /// state of which that is not so could be written as a snapshot, and not be read.
    pub fn check_versions(&self) -> Result<(), RebuildError> {
        if self.history.iter_from(0).all(|(_, version)| self.can_stand(version)) {
            return Ok(());
        }
        Err(RebuildError("a change that does not follow from the one before it"))
    }

    /// The sizes, counted anew: of a state that holds nothing but what the last compaction leaves.
    pub(super) fn count(&self) -> Sizes {
        let mut sizes = Sizes::default();
        for (_, version) in self.history.iter_from(0) {
            sizes.add(version, self.history.makes_key(version.previous));
        }
        sizes
    }
}

/// What a copy is told of a lease, in the form of a version.
pub(super) fn lease_to_copy((lease, grant): (i64, Option<Grant>)) -> wire::Version {
    let number = if grant.is_some() { GRANTED } else { ENDED };
    let (created, revision) = grant.map_or((0, 0), |grant| (grant.ttl, grant.number.cast_signed()));
    wire::Version { number, lease, created, revision, ..wire::Version::default() }
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
