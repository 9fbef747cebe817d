//! A linearizable read sees everything that was acknowledged, anywhere, before it began.

use quorate_raft::MemberId;

#[derive(Debug, Default)]
pub(crate) struct Reads {
    newest: i64,
}

impl Reads {
    /// A write was acknowledged at this revision.
    pub(crate) fn acknowledged(&mut self, revision: i64) {
        self.newest = self.newest.max(revision);
    }

    /// The newest revision that was acknowledged.
    pub(crate) fn newest(&self) -> i64 {
        self.newest
    }

    /// A read that began when `began` was the newest is served at `revision`.
    pub(crate) fn served(&mut self, id: MemberId, began: i64, revision: i64) {
        assert!(
            revision >= began,
            "READS: stale at {id}: it shows revision {revision}, {began} was acknowledged before"
        );
        // A read acknowledges what it shows.
        self.acknowledged(revision);
    }
}
