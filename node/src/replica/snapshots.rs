//! Snapshots as the replica sees them: when one is due, what the log may give up for it, and what takes the state's place.

use quorate_raft::{Index, LogId, Raft, Snapshot};

use super::{Replica, Room, fetch};
use crate::kv::Store;
use crate::snapshots::{Found, Job, Manifest, Report, SnapshotError};

/// How long, in ticks, until a snapshot that took the place of a damaged one, and was not taken either, is tried again.
const RENEWS_EVERY: u64 = 500;

/// Begins the snapshot that is due at `applied`, which `store` is at: none if the one before is still being written.
pub(super) fn begin(raft: &Raft, applied: Index, store: &mut Store, piece_bytes: u32) -> Option<Job> {
    let source = store.snapshot(piece_bytes as usize)?;
    let snapshot =
        raft.snapshot_at(applied).expect("what is applied is committed, and newer than the last snapshot");
    Some(Job::Take(snapshot, source))
}

impl Replica {
    /// Something has come of a job.
    pub fn reported(&mut self, report: Report) {
        match report {
            Report::Taken(manifest) => self.taken(manifest),
            Report::NotTaken(id, error) => {
                self.renews_at = self.renews_at.map(|_| self.now + RENEWS_EVERY);
                tracing::warn!(index = id.index, %error, "a snapshot was not taken; the log is kept until the next one");
            }
            Report::Written(id, _) => self.fetcher.written(id, self.now),
            Report::Received(manifest, store) => self.received(&manifest, store),
            Report::NotReceived(_, SnapshotError::Unsupported(unsupported)) => self.end = Some(unsupported),
            Report::NotReceived(id, error) => {
                if self.fetcher.failed(id, self.now) {
                    fetch::complain(id, &error);
                    self.raft.install_failed(id);
                }
            }
            Report::Read(to, id, part, found) => {
                if matches!(found, Some(Found::Damaged)) && self.raft.newest_snapshot() == Some(id) {
                    // The log does not go back to it either.
                    self.newest_snapshot = 0;
                    self.renews_at = Some(self.now);
                }
                self.messages.push(fetch::answer(self.id, to, id, part, found));
            }
        }
    }

    /// The snapshot that is being fetched: pieces that have come, of how many. None while it is not known, or there is none.
    pub fn fetching(&self) -> Option<(u32, u32)> {
        self.fetcher.progress()
    }

    /// Whether others count on what this member writes to its log: not without a vote, nor while it fetches what its log needs before.
    pub fn is_waited_for(&self) -> bool {
        let status = &self.status;
        status.configuration.is_voter(status.id) && self.fetcher.id().is_none()
    }

    /// How many parts of snapshots were refused since the start: they were not what they should be.
    pub fn refused_parts(&self) -> u64 {
        self.fetcher.refused
    }

    /// A snapshot of the state is durable: the log up to it may go, but for what members may need that are a little behind.
    fn taken(&mut self, manifest: Manifest) {
        self.tail.snapshot_bytes(manifest.bytes());
        let keep_after = self.tail.before(manifest.id().index, self.fetched_from_here());
        tracing::debug!(index = manifest.id().index, bytes = manifest.bytes(), keep_after, "took a snapshot");
        // On disk the log goes back to the snapshot before: it is what is left if this one turns out to be damaged.
        let older = self.newest_snapshot;
        self.adopted(manifest.id());
        self.raft.compact(manifest.snapshot, keep_after);
        self.release = self.release.max(Some(keep_after.min(older) + 1));
    }

    /// The oldest snapshot that a member may be fetching of what this one, who leads, has offered; none if there is no room for more.
    fn fetched_from_here(&self) -> Option<Index> {
        let members = self.raft.progress().into_iter().filter(|member| member.active);
        let oldest = members.filter_map(|member| member.offered).map(|id| id.index).min();
        oldest.filter(|_| self.room == Room::Enough)
    }

    /// The snapshot `id` is here, whole.
    fn adopted(&mut self, id: LogId) {
        if id.index >= self.newest_snapshot {
            self.newest_snapshot = id.index;
            self.renews_at = None;
        }
    }

    /// A snapshot has come. Unless the log has got there meanwhile, it takes the place of the state.
    fn received(&mut self, manifest: &Manifest, store: Box<Store>) {
        let Snapshot { id, configuration, .. } = &manifest.snapshot;
        self.fetcher.ended(*id);
        self.adopted(*id);
        let mut unused = store;
        if self.raft.installed(&manifest.snapshot) {
            assert!(id.index > self.applied, "a snapshot of the past takes the place of nothing");
            tracing::info!(
                index = id.index,
                term = id.term,
                bytes = manifest.bytes(),
                "installed a snapshot"
            );
            std::mem::swap(&mut *self.store.write(), &mut *unused);
            (self.handed, self.applied) = (id.index, id.index);
            (self.revision, self.level) = {
                let store = self.store.read();
                (store.revision(), store.level())
            };
            self.membership.committed(manifest.snapshot.configuration_id.index, configuration);
            self.tail.reset();
            self.writes.overtaken(id.term, &mut self.answers);
            self.reads.applied(id.index, &mut self.answers);
        }
        self.jobs.push(Job::Discard(unused));
    }

    pub(super) fn tick_snapshots(&mut self) {
        self.renew();
        if let Some(id) = self.fetcher.tick(self.now) {
            tracing::warn!(
                index = id.index,
                "no member has the snapshot that is wanted; the leader will offer another"
            );
            self.fetcher.ended(id);
            self.jobs.push(Job::Abandon);
            self.raft.install_failed(id);
        }
    }

    /// What is offered to others cannot be read any more: takes another one, where the log would not have called for it. It may be
    /// long until that does, and nobody else may have the old one.
    fn renew(&mut self) {
        let is_due = self.room != Room::Out && self.renews_at.is_some_and(|at| at <= self.now);
        // A state from its copy may be ahead of what is known to be committed.
        if !is_due || self.applied > self.handed {
            return;
        }
        let mut store = self.store.write();
        // None while one is being written that was due: that will do.
        if let Some(job) = begin(&self.raft, self.applied, &mut store, self.policy.piece_bytes) {
            tracing::info!(index = self.applied, "takes a snapshot in the place of a damaged one");
            self.jobs.push(job);
            self.renews_at = Some(self.now + RENEWS_EVERY);
        }
    }

    /// Fetches what the protocol wants.
    pub(super) fn fetch(&mut self, wanted: Option<Snapshot>) {
        if wanted.as_ref().map(|snapshot| snapshot.id) != self.fetcher.id() {
            let status = self.raft.status();
            self.fetcher.follow(wanted, &status, self.now);
        }
        self.jobs.append(&mut self.fetcher.jobs);
        self.messages.append(&mut self.fetcher.messages);
    }
}
