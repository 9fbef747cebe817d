//! What a node shows of itself to whoever answers questions about it: etcd services, admin, HTTP, metrics.
//!
//! The replica's loop publishes; everyone else reads, from any thread. Numbers that move with every request are atomics. What
//! changes seldom is one immutable [`NodeStatus`], swapped as a whole, so that a reader never sees half of a change.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use parking_lot::Mutex;
use quorate_api::{admin, log};
use quorate_raft::{Index, LogId, Progress, Term};
use tokio::sync::watch;

use crate::level::{Level, Levels};

pub use crate::level::VERSION;
pub use crate::replica::Agreement;
pub use crate::snapshots::Corrupt;
pub use admin::Role;

/// The etcd that this node behaves like: what is told as its version. Clients choose what they ask for by it (kube-apiserver wants at
/// least 3.4.31 and none of 3.5.0 to 3.5.12), so that the version of Quorate would mislead them.
pub const ETCD_VERSION: &str = "3.7.3";

/// The version of etcd's storage, and of a cluster of such nodes, that goes with it.
pub const ETCD_STORAGE_VERSION: &str = "3.7.0";

/// What changes seldom.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct NodeStatus {
    /// The cluster. Zero while the node belongs to none.
    pub cluster_id: u64,
    /// This member.
    pub member_id: u64,
    /// The name that people know it by.
    pub name: String,
    /// `host:port` where the other members reach it.
    pub peer_address: String,
    /// Where clients reach it.
    pub client_urls: Vec<String>,
    /// Its part.
    pub role: Role,
    /// The newest term that it has seen.
    pub term: Term,
    /// The leader of that term, if known.
    pub leader: Option<u64>,
    /// The level of its state. 0 while it belongs to no cluster.
    pub level: Level,
    /// The levels that it supports.
    pub levels: Levels,
    /// The newest configuration in its log. None while the log is empty.
    pub configuration: Option<ConfigurationView>,
    /// What the leader knows of every member. Empty on others. As it was when last published: at most some ten times a second.
    pub progress: Vec<Progress>,
    /// The members whose disks it knows to be full: itself, and if it leads the others.
    pub short_of_room: Vec<u64>,
    /// Those that have no descriptor for the next file of the log.
    pub short_of_descriptors: Vec<u64>,
    /// The most bytes that the state may take for this member, as they are accounted. None for no limit.
    pub quota: Option<u64>,
    /// The smallest quota of the members that it has heard of, and whose it is: a leader has heard of all.
    pub smallest_quota: Option<(u64, u64)>,
    /// Puts are refused by the quota: the alarm NOSPACE is raised, or at a level without alarms the state has reached it.
    pub over_quota: bool,
    /// The snapshot that it is fetching: pieces that have come, of how many.
    pub fetching: Option<(u32, u32)>,
    /// Parts of snapshots that were not what they should be, since the process started.
    pub refused_parts: u64,
    /// It lacks what it acknowledged, by damage or because its disk went back in time, and has no vote until a leader has repaired it.
    pub repairing: bool,
    /// How often in the life of this process it has found out that its disk went back in time.
    pub went_back: u64,
    /// A second process that runs as a member, this one or another, or two leaders of one term: what was seen in the last half minute.
    pub conflict: Option<String>,
    /// Whether its state is that of the others.
    pub agreement: Agreement,
    /// The members that are known to hold another state than a majority, and where there is no majority the voters among whom they are.
    pub suspects: Vec<u64>,
    /// Why the node cannot serve its clients; none when it can.
    pub unready: Option<Unready>,
}

/// A configuration as people and programs outside of the protocol read it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ConfigurationView {
    /// Where it stands in the log.
    pub id: LogId,
    /// Whether that entry is committed.
    pub committed: bool,
    /// Who belongs to it, with names and addresses.
    pub configuration: log::Configuration,
}

impl NodeStatus {
    /// The members of the newest configuration, voters and learners, ordered by ID.
    pub fn members(&self) -> &[log::Member] {
        self.configuration.as_ref().map_or(&[], |c| &c.configuration.members)
    }

    /// Whether `member` belongs to the newest configuration.
    pub fn has_member(&self, member: u64) -> bool {
        self.members().iter().any(|described| described.id == member)
    }

    /// Whether `member` is a learner of the newest configuration.
    pub fn is_learner(&self, member: u64) -> bool {
        self.configuration.as_ref().is_some_and(|c| c.configuration.learners.contains(&member))
    }

    /// The leader as the newest configuration describes it.
    pub fn leader_member(&self) -> Option<&log::Member> {
        self.leader.and_then(|leader| self.members().iter().find(|member| member.id == leader))
    }
}

/// Why a node cannot serve its clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unready {
    /// It belongs to no cluster yet.
    #[error("waiting to be bootstrapped or added to a cluster")]
    Waiting,
    /// No leader is known.
    #[error("no leader")]
    NoLeader,
    /// It does not hold yet what was acknowledged when it came up.
    #[error("catching up")]
    CatchingUp,
    /// Its applier makes no step, though entries wait for it.
    #[error("applies nothing")]
    AppliesNothing,
    /// It was removed from its cluster.
    #[error("removed from the cluster")]
    Removed,
    /// Its state is not that of a majority.
    #[error("the state differs from that of a majority")]
    Corrupt,
    /// Nobody can tell whose state is right.
    #[error("the members hold different states, and no majority the same")]
    Divided,
    /// It is going away.
    #[error("stopping")]
    Stopping,
}

/// The reading side, and for the replica's loop the publishing one. Cheap to clone.
#[derive(Debug, Clone)]
pub struct NodeView {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    cluster_id: AtomicU64,
    member_id: u64,
    term: AtomicU64,
    last: AtomicU64,
    last_term: AtomicU64,
    commit: AtomicU64,
    applied: AtomicU64,
    revision: AtomicI64,
    news: watch::Sender<i64>,
    state_bytes: AtomicU64,
    status: watch::Sender<Arc<NodeStatus>>,
    contacts: Mutex<BTreeMap<u64, String>>,
}

impl NodeView {
    /// A view that shows `status`, and indices of zero.
    pub fn new(status: NodeStatus) -> Self {
        let shared = Shared {
            cluster_id: AtomicU64::new(status.cluster_id),
            member_id: status.member_id,
            term: AtomicU64::new(status.term),
            last: AtomicU64::new(0),
            last_term: AtomicU64::new(0),
            commit: AtomicU64::new(0),
            applied: AtomicU64::new(0),
            revision: AtomicI64::new(0),
            news: watch::Sender::new(0),
            state_bytes: AtomicU64::new(0),
            status: watch::Sender::new(Arc::new(status)),
            contacts: Mutex::default(),
        };
        NodeView { shared: Arc::new(shared) }
    }

    /// The cluster. Zero while the node belongs to none.
    pub fn cluster_id(&self) -> u64 {
        self.shared.cluster_id.load(Ordering::Relaxed)
    }

    /// This member.
    pub fn member_id(&self) -> u64 {
        self.shared.member_id
    }

    /// The newest term that it has seen.
    pub fn term(&self) -> Term {
        self.shared.term.load(Ordering::Relaxed)
    }

    /// The end of its log.
    pub fn last_index(&self) -> Index {
        self.shared.last.load(Ordering::Relaxed)
    }

    /// The term of the last entry of its log.
    pub fn last_term(&self) -> Term {
        self.shared.last_term.load(Ordering::Relaxed)
    }

    /// What it knows to be committed.
    pub fn commit_index(&self) -> Index {
        self.shared.commit.load(Ordering::Relaxed)
    }

    /// What its state holds.
    pub fn applied_index(&self) -> Index {
        self.shared.applied.load(Ordering::Acquire)
    }

    /// The revision of its state.
    pub fn revision(&self) -> i64 {
        self.shared.revision.load(Ordering::Acquire)
    }

    /// What the state takes, as it is accounted: of what the last compaction leaves.
    pub fn state_bytes(&self) -> u64 {
        self.shared.state_bytes.load(Ordering::Relaxed)
    }

    /// What changes seldom, as it is now.
    pub fn status(&self) -> Arc<NodeStatus> {
        Arc::clone(&self.shared.status.borrow())
    }

    /// Member `member` says that it is at `address`, which is not what the configuration says.
    pub(crate) fn contact(&self, member: u64, address: &str) {
        self.shared.contacts.lock().insert(member, address.to_owned());
    }

    /// Where members say that they are, of those that the configuration names with another address.
    pub(crate) fn contacts(&self) -> Vec<(u64, String)> {
        let status = self.status();
        let mut contacts = self.shared.contacts.lock();
        contacts.retain(|id, address| {
            status.members().iter().any(|member| member.id == *id && member.peer_address != *address)
        });
        contacts.iter().map(|(id, address)| (*id, address.clone())).collect()
    }

    /// Tells of every change from now on; the newest value is seen at once.
    pub fn subscribe(&self) -> watch::Receiver<Arc<NodeStatus>> {
        self.shared.status.subscribe()
    }

    /// Tells of every revision from now on; those in between may be left out.
    pub fn news(&self) -> watch::Receiver<i64> {
        self.shared.news.subscribe()
    }

    /// How many have subscribed.
    #[cfg(test)]
    pub(crate) fn receivers(&self) -> usize {
        self.shared.status.receiver_count()
    }

    /// Replaces what tells how far the state has come.
    pub fn publish_applied(&self, applied: Index, revision: i64) {
        // The log is published less often; what is applied is committed.
        self.shared.last.fetch_max(applied, Ordering::Relaxed);
        self.shared.commit.fetch_max(applied, Ordering::Relaxed);
        self.shared.applied.store(applied, Ordering::Release);
        self.shared.revision.store(revision, Ordering::Release);
        if self.shared.news.receiver_count() > 0 {
            self.shared.news.send_if_modified(|known| std::mem::replace(known, revision) != revision);
        }
    }

    /// Replaces what tells how much the state takes.
    pub fn publish_state_bytes(&self, bytes: u64) {
        self.shared.state_bytes.store(bytes, Ordering::Relaxed);
    }

    /// Replaces what tells how far the log has come.
    pub fn publish_log(&self, last: LogId, commit: Index) {
        self.shared.last.store(last.index, Ordering::Relaxed);
        self.shared.last_term.store(last.term, Ordering::Relaxed);
        self.shared.commit.store(commit, Ordering::Relaxed);
    }

    /// Replaces the rest; wakes the subscribers if it differs.
    pub fn publish(&self, status: NodeStatus) {
        self.shared.cluster_id.store(status.cluster_id, Ordering::Relaxed);
        self.shared.term.store(status.term, Ordering::Relaxed);
        self.shared.status.send_if_modified(|current| {
            let differs = **current != status;
            if differs {
                *current = Arc::new(status);
            }
            differs
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subscribers_wake_for_changes_only() {
        let view = NodeView::new(NodeStatus { member_id: 7, ..NodeStatus::default() });
        let mut changes = view.subscribe();
        changes.mark_unchanged();
        view.publish(NodeStatus { member_id: 7, ..NodeStatus::default() });
        assert!(!changes.has_changed().expect("the view lives"));
        view.publish(NodeStatus { member_id: 7, term: 3, ..NodeStatus::default() });
        assert!(changes.has_changed().expect("the view lives"));
        assert_eq!(view.term(), 3);
    }
}
