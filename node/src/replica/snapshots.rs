//! Snapshots as the replica sees them: when one is due, what the log may give up for it, and what takes the state's place.

use quorate_raft::{Index, LogId, MemberId, Snapshot};

use super::{Message, Replica, Room, Work, fetch};
use crate::kv::Store;
use crate::snapshots::{Found, Job, Manifest, Part, Report, SnapshotError};

/// How long, in ticks, until a snapshot that took the place of a damaged one, and was not taken either, is tried again.
const RENEWS_EVERY: u64 = 500;

/// So many parts of snapshots are read for one member at a time, and for all of them: a few bytes ask for a quarter of a megabyte. What is
/// asked for beyond is not answered, and asked for again.
const SERVED: (usize, usize) = (64, 256);

impl Replica {
    /// A member asks for a part of a snapshot.
    pub(super) fn read_snapshot(&mut self, to: MemberId, id: LogId, part: Part) {
        if self.is_corrupt() {
            return self.messages.push(Message::SnapshotMissing { from: self.id, to, id });
        }
        let (most, most_of_all) = SERVED;
        let of_all: usize = self.serving.values().sum();
        let of_one = self.serving.entry(to).or_default();
        if *of_one < most && of_all < most_of_all {
            *of_one += 1;
            self.jobs.push(Job::Read(to, id, part));
        } else if *of_one == 0 {
            self.serving.remove(&to);
        }
    }

    /// A part was read for a member.
    fn served(&mut self, to: MemberId) {
        if let Some(of_one) = self.serving.get_mut(&to) {
            *of_one = of_one.saturating_sub(1);
            if *of_one == 0 {
                self.serving.remove(&to);
            }
        }
    }

    /// Something has come of a job.
    pub fn reported(&mut self, report: Report) {
        match report {
            Report::Taken(manifest) => self.taken(manifest),
            Report::NotTaken(id, error) => {
                self.renews_at = self.renews_at.map(|_| self.now + RENEWS_EVERY);
                tracing::warn!(index = id.index, %error, "a snapshot was not taken; the log is kept until the next one");
            }
            Report::Written(id, _) => self.fetcher.written(id, self.now),
            Report::Received(manifest, state) => self.received(manifest, state),
            // The process starts anew.
            Report::Whole(_) => {}
            Report::NotReceived(_, SnapshotError::Unsupported(unsupported)) => self.end = Some(unsupported),
            Report::NotReceived(id, error) => {
                if self.fetcher.failed(id, self.now) {
                    fetch::complain(id, &error);
                    self.raft.install_failed(id);
                }
            }
            Report::Read(to, id, part, found) => {
                self.served(to);
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
        self.hold(&manifest);
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

    /// A snapshot has come. Unless the log has got there meanwhile, it takes the place of the state: after the entries that were handed
    /// out to be applied, which it covers, and before those behind it.
    fn received(&mut self, manifest: Manifest, state: Box<Store>) {
        let snapshot = &manifest.snapshot;
        let Snapshot { id, configuration, configuration_id } = snapshot;
        self.fetcher.ended(*id);
        self.adopted(*id);
        if !self.raft.installed(snapshot) {
            self.hold(&manifest);
            self.jobs.push(Job::Discard(state));
            return;
        }
        assert!(
            id.index > self.applied.max(self.handed),
            "a snapshot of the past takes the place of nothing"
        );
        tracing::info!(index = id.index, term = id.term, bytes = manifest.bytes(), "installed a snapshot");
        self.hold_another(&manifest);
        self.jobs.push(Job::Outdate(*id));
        self.handed = id.index;
        self.membership.committed(configuration_id.index, configuration);
        self.tail.reset();
        self.writes.overtaken(&mut self.answers);
        self.backlog.replaced(id.index);
        self.apply.push(Work::Replace(manifest.snapshot, state));
    }

    /// A member has the snapshot that is fetched, and others hold something else at that entry.
    pub(super) fn contradicted(&mut self, from: MemberId, manifest: &Manifest) {
        let id = manifest.id();
        tracing::warn!(%from, index = id.index, "a member's snapshot is not what others hold at this entry: refused");
        if self.fetcher.contradicted(from, id, self.now) {
            self.raft.install_failed(id);
        }
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
        let is_due = !self.room.takes_nothing() && self.renews_at.is_some_and(|at| at <= self.now);
        // A state from its copy may be ahead of what is known to be committed.
        if is_due && self.applied <= self.handed {
            tracing::info!("takes a snapshot in the place of a damaged one");
            // None is taken while one is being written that was due: that will do.
            self.apply.push(Work::Snapshot);
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
