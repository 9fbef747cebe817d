//! The state as bytes: the same ones on every member that has applied the same log.
//!
//! What is encoded is the leases, and what the last compaction leaves, in the order of revisions; what of the rest is still in memory makes no
//! difference. The format stands in `snapshot.proto`. A [`SnapshotSource`] makes the pieces while the state goes on changing, a
//! [`Restore`] makes a state of them.

mod restore;
mod source;

use quorate_api::snapshot as wire;

use super::Store;
use super::revision::Revision;
use super::version::{Record, Version};
use crate::leases::Grant;

pub use restore::{Restore, RestoreError};
pub use source::{NotEncoded, SnapshotSource};

/// What a state is beside its versions, on the wire.
pub(super) fn state_to_wire(store: &Store) -> wire::State {
    wire::State {
        revision: store.revision,
        compacted: store.compaction.revision,
        weight: store.weight,
        kept: store.kept_at_point,
        level: store.level,
        deletions: store.kept_deletions(),
        alarms: store.alarms(),
        grants: store.leases.granted(),
        leases: store.leases.len() as u64,
    }
}

/// A lease on the wire.
pub(super) fn lease_to_wire(grant: Grant) -> wire::Lease {
    let Grant { id, ttl, number: grant } = grant;
    wire::Lease { id, ttl, grant }
}

/// The same back.
pub(super) fn lease_from_wire(wire: wire::Lease) -> Grant {
    let wire::Lease { id, ttl, grant: number } = wire;
    Grant { id, ttl, number }
}

/// A version on the wire. Key and value are shared, not copied.
pub(super) fn version_to_wire(version: &Version) -> wire::Version {
    let modified = version.modified();
    wire::Version {
        key: version.shared_key(),
        value: version.shared_value(),
        revision: modified.main,
        sub: modified.sub,
        created: version.created,
        number: version.number(),
        lease: version.lease,
    }
}

/// The same back: with the buffer of its key's version before it, if that has the same value, and else one of its own. So versions that keep
/// a value share it again after a restart.
pub(super) fn version_from_wire(wire: &wire::Version, previous: Option<&Version>) -> Version {
    let record = Record {
        modified: Revision { main: wire.revision, sub: wire.sub },
        created: wire.created,
        number: wire.number,
        lease: wire.lease,
    };
    match previous.filter(|previous| previous.value() == wire.value) {
        Some(previous) => Version::keeping(previous, record),
        None => Version::new(&wire.key, &wire.value, record),
    }
}
