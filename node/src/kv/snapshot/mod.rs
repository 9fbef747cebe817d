//! The state as bytes: the same ones on every member that has applied the same log.
//!
//! What is encoded is what the last compaction leaves, in the order of revisions; what of the rest is still in memory makes no
//! difference. The format stands in `snapshot.proto`. A [`SnapshotSource`] makes the pieces while the state goes on changing, a
//! [`Restore`] makes a state of them.

mod restore;
mod source;

use quorate_api::snapshot as wire;

use super::Store;
use super::history::{Position, Version};
use super::revision::Revision;

pub use restore::{Restore, RestoreError};
pub use source::{Replaced, SnapshotSource};

/// What a state is beside its versions, on the wire.
pub(super) fn state_to_wire(store: &Store) -> wire::State {
    wire::State {
        revision: store.revision,
        compacted: store.compaction.revision,
        weight: store.weight,
        kept: store.kept_at_point,
        level: store.level,
    }
}

/// A version on the wire. Key and value are shared, not copied.
pub(super) fn version_to_wire(version: &Version) -> wire::Version {
    wire::Version {
        key: version.key.clone(),
        value: version.value.clone(),
        revision: version.modified.main,
        sub: version.modified.sub,
        created: version.created,
        number: version.number,
        lease: version.lease,
    }
}

/// The same back, behind the key's version `previous`.
pub(super) fn version_from_wire(wire: wire::Version, previous: Option<Position>) -> Version {
    Version {
        key: wire.key,
        value: wire.value,
        modified: Revision { main: wire.revision, sub: wire.sub },
        created: wire.created,
        number: wire.number,
        lease: wire.lease,
        previous,
    }
}
