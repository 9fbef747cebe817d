//! `Maintenance.Snapshot`: the state as a database of etcd's, as fast as its client reads it.
//!
//! All of it is read twice, from one point of the history: once to count, and once to send. What is sent next is made when the client has taken what
//! came before; so a slow one holds a place in the history, and some pages.

use futures::Stream;
use quorate_api::etcdserverpb as pb;
use ring::digest::{Context, SHA256};
use tonic::Status;

use super::arrival::Share;
use super::error;
use super::member::Member;
use crate::backup::{Backup, Cluster, STORAGE_VERSION};

/// Bytes of the database in an answer, as etcd sends them.
const BLOB: usize = 32 << 10;

/// What one call holds of the memory: what is read at a time, a page of each level, and the largest value once more.
const HELD: usize = 2 << 20;

/// The answers of a call.
pub(super) struct Snapshot {
    member: Member,
    backup: Backup,
    hash: Context,
    sent: u64,
    is_ended: bool,
    _share: Share,
}

impl Snapshot {
    /// Begins a snapshot of the state as it is now.
    pub(super) fn new(member: &Member) -> Result<Self, Status> {
        let mut share = member.answers.share();
        share.reach(HELD)?;
        let backup = Backup::new(&mut member.gateway.store().write(), &cluster(member));
        let (hash, member) = (Context::new(&SHA256), member.clone());
        Ok(Self { member, backup, hash, sent: 0, is_ended: false, _share: share })
    }

    /// The answers, one after the other.
    pub(super) fn answers(self) -> impl Stream<Item = Result<pb::SnapshotResponse, Status>> + Send {
        futures::stream::try_unfold(self, |mut snapshot| async move {
            let answer = snapshot.next().await?;
            Ok(answer.map(|answer| (answer, snapshot)))
        })
    }

    async fn next(&mut self) -> Result<Option<pb::SnapshotResponse>, Status> {
        while self.backup.written() < BLOB || self.backup.bytes().is_none() {
            if !self.backup.advance(self.member.gateway.store()).map_err(error::state_gone)? {
                break;
            }
            tokio::task::yield_now().await;
        }
        let bytes = self.backup.bytes().unwrap_or(0);
        let blob = self.backup.take(BLOB);
        self.hash.update(&blob);
        self.sent += blob.len() as u64;
        let (remaining_bytes, version) = (bytes.saturating_sub(self.sent), STORAGE_VERSION.to_owned());
        if !blob.is_empty() {
            return Ok(Some(pb::SnapshotResponse { header: None, remaining_bytes, blob, version }));
        }
        if std::mem::replace(&mut self.is_ended, true) {
            return Ok(None);
        }
        let hash = self.hash.clone().finish();
        let blob = bytes::Bytes::copy_from_slice(hash.as_ref());
        Ok(Some(pb::SnapshotResponse { header: None, remaining_bytes, blob, version }))
    }
}

/// The cluster as this member knows it.
pub(super) fn cluster(member: &Member) -> Cluster {
    let status = member.view.status();
    let Some(known) = status.configuration.as_ref().map(|known| &known.configuration) else {
        return Cluster::default();
    };
    let members = known.members.iter().map(|described| crate::backup::Member {
        id: described.id,
        name: described.name.clone(),
        peer_urls: vec![member.peer_scheme.url(&described.peer_address)],
        client_urls: described.client_urls.clone(),
        is_learner: status.is_learner(described.id),
    });
    Cluster {
        members: members.collect(),
        voters: known.voters.clone(),
        outgoing: known.outgoing.clone(),
        learners: known.learners.clone(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures::StreamExt as _;
    use parking_lot::RwLock;
    use quorate_api::log::command::Operation;
    use tonic::Code;

    use super::*;
    use crate::doors::gateway::Gateway;
    use crate::doors::members::members;
    use crate::doors::view::{NodeStatus, NodeView};
    use crate::kv::Store;
    use crate::rpc::PeerScheme;
    use crate::rpc::arrival::Budget;

    fn put(store: &RwLock<Store>, key: u32) {
        let key = key.to_be_bytes().to_vec().into();
        let put = pb::PutRequest { key, value: vec![7; 1000].into(), ..pb::PutRequest::default() };
        store.write().apply(&Operation::Put(put)).unwrap();
    }

    fn member(most: usize) -> (Member, Arc<RwLock<Store>>) {
        let store = Arc::new(RwLock::new(Store::new()));
        for key in 0..200 {
            put(&store, key);
        }
        let (gateway, view) = (Gateway::local(Arc::clone(&store)), NodeView::new(NodeStatus::default()));
        let answers = Budget::new(most);
        (Member { gateway, view, peer_scheme: PeerScheme::Http, members: members().0, answers }, store)
    }

    /// What is written meanwhile is not in it, and nothing of it is made before it is read.
    #[tokio::test]
    async fn a_snapshot_is_of_one_revision_however_slowly_it_is_read() {
        let (member, store) = member(64 << 20);
        let mut answers = Box::pin(Snapshot::new(&member).unwrap().answers());
        let first = answers.next().await.unwrap().unwrap();
        assert_eq!(first.blob.len(), BLOB);
        for key in 200..400 {
            put(&store, key);
        }
        let mut bytes = first.blob.len() as u64;
        let mut left = first.remaining_bytes;
        while left > 0 {
            let answer = answers.next().await.unwrap().unwrap();
            bytes += answer.blob.len() as u64;
            assert_eq!(answer.remaining_bytes, left - answer.blob.len() as u64);
            left = answer.remaining_bytes;
        }
        assert!((200 * 1000..300 * 1000).contains(&bytes), "{bytes} bytes");
        assert_eq!(answers.next().await.unwrap().unwrap().blob.len(), 32, "the hash");
        assert!(answers.next().await.is_none());
    }

    #[tokio::test]
    async fn a_snapshot_ends_with_an_error_when_its_state_is_gone() {
        let (member, store) = member(64 << 20);
        // More than is read at a time.
        for key in 200..2000 {
            put(&store, key);
        }
        let mut answers = Box::pin(Snapshot::new(&member).unwrap().answers());
        assert!(answers.next().await.unwrap().is_ok());
        *store.write() = Store::new();
        let mut last = None;
        while let Some(answer) = answers.next().await {
            last = answer.err();
        }
        assert_eq!(last.map(|status| status.code()), Some(Code::Unavailable));
    }

    /// Each holds some memory, and more of them than there is are refused.
    #[tokio::test]
    async fn more_snapshots_than_there_is_memory_for_are_refused() {
        let (member, _) = member(3 * HELD);
        let held: Vec<_> = (0..3).map(|_| Snapshot::new(&member).unwrap()).collect();
        let refused = Snapshot::new(&member).err().unwrap();
        assert_eq!(refused.message(), "etcdserver: too many requests");
        drop(held);
        assert!(Snapshot::new(&member).is_ok());
    }
}
