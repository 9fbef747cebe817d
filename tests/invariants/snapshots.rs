//! A snapshot covers what is committed, and is the same bytes with the same configuration whoever took it.

use std::collections::BTreeMap;

use quorate_node::snapshots::Manifest;
use quorate_raft::{Index, MemberId, Snapshot};

use super::committed::Committed;

#[derive(Debug, Default)]
pub(crate) struct Snapshots {
    taken: BTreeMap<Index, Manifest>,
}

impl Snapshots {
    /// A member has this snapshot, taken or received, durably. Whether nobody had it before.
    pub(crate) fn durable(&mut self, id: MemberId, manifest: &Manifest, committed: &Committed) -> bool {
        let at = manifest.id();
        assert!(committed.holds(at), "SNAPSHOTS: {id} has one at {at:?}, which is not committed");
        let mut new = false;
        let known = self.taken.entry(at.index).or_insert_with(|| {
            new = true;
            manifest.clone()
        });
        assert_eq!(known, manifest, "SNAPSHOTS: {id} has another one at {at:?} than the others");
        new
    }

    /// A member has found this one on its disk.
    pub(crate) fn found(&self, snapshot: &Snapshot, committed: &Committed) {
        assert!(
            committed.holds(snapshot.id),
            "SNAPSHOTS: one was found at {:?}, which is not committed",
            snapshot.id
        );
        if let Some(known) = self.taken.get(&snapshot.id.index) {
            assert_eq!(&known.snapshot, snapshot, "SNAPSHOTS: one was found that nobody has taken");
        }
    }
}
