//! What all services share: the member that they speak for.

use quorate_api::etcdserverpb as pb;
use tonic::{Request, Status};

use super::arrival::Budget;
use super::error::not_for_learners;
use crate::doors::gateway::{Gateway, RequestError};
use crate::doors::members::Members;
use crate::doors::view::{Agreement, NodeView, Role};
use crate::kv::Collected;

/// Steps of removal under one hold of the lock: a fraction of a millisecond.
const REMOVED_AT_ONCE: usize = 1024;

/// How members reach one another; part of the peer URLs in the list of members.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerScheme {
    /// In the clear.
    Http,
    /// Over TLS.
    Https,
}

impl PeerScheme {
    /// The URL of a peer listener at `host:port`.
    pub(super) fn url(self, address: &str) -> String {
        match self {
            Self::Http => format!("http://{address}"),
            Self::Https => format!("https://{address}"),
        }
    }
}

/// The member behind the services of one client runtime.
#[derive(Debug, Clone)]
pub(super) struct Member {
    pub(super) gateway: Gateway,
    pub(super) view: NodeView,
    pub(super) peer_scheme: PeerScheme,
    /// Changes of the membership.
    pub(super) members: Members,
    /// Bytes that answers hold.
    pub(super) answers: Budget,
}

impl Member {
    /// Whether a request may be answered at all: a learner answers only what does not need the cluster, and a client can
    /// ask not to be kept waiting where there is no leader.
    pub(super) fn admit<T>(&self, request: &Request<T>, learners_too: bool) -> Result<(), Status> {
        if !learners_too && self.is_learner() {
            return Err(not_for_learners());
        }
        if Self::requires_leader(request) && self.view.status().leader.is_none() {
            return Err(RequestError::NoLeader.into());
        }
        Ok(())
    }

    /// Whether a client would rather be refused than be kept waiting where there is no leader.
    pub(super) fn requires_leader<T>(request: &Request<T>) -> bool {
        request.metadata().get("hasleader").is_some_and(|value| value == "true")
    }

    /// Whether this node's state is that of a cluster: what was removed, never belonged to one, or holds something else than the others, tells
    /// nobody anything.
    pub(super) fn has_state(&self) -> Result<(), Status> {
        let status = self.view.status();
        match (status.role, status.agreement) {
            (Role::Waiting | Role::Removed, _) => Err(RequestError::NotAMember.into()),
            (_, Agreement::Corrupt(_)) => Err(RequestError::Corrupt.into()),
            _ => Ok(()),
        }
    }

    /// Waits until this member has removed what compactions have given up, and lends a hand with it. What a reader still needs is not
    /// waited for.
    pub(super) async fn remove_compacted(&self) {
        while self.gateway.store().write().collect(REMOVED_AT_ONCE) == Collected::More {
            tokio::task::yield_now().await;
        }
    }

    /// Whether this member is a learner of the newest configuration.
    pub(super) fn is_learner(&self) -> bool {
        self.view.status().is_learner(self.view.member_id())
    }

    /// A header with the revision that was read or written.
    pub(super) fn header(&self, revision: i64) -> pb::ResponseHeader {
        pb::ResponseHeader {
            cluster_id: self.view.cluster_id(),
            member_id: self.view.member_id(),
            revision,
            raft_term: self.view.term(),
        }
    }

    /// Completes a header that the state made.
    pub(super) fn complete(&self, header: &mut Option<pb::ResponseHeader>) {
        *header = Some(self.header(header.map_or(0, |header| header.revision)));
    }
}
