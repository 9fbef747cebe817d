//! `etcdserverpb.Cluster`.

use quorate_api::etcdserverpb as pb;
use quorate_api::etcdserverpb::cluster_server::Cluster;
use tonic::{Request, Response, Status};

use super::error::unimplemented;
use super::member::Member;

/// The cluster service of one client runtime.
#[derive(Debug, Clone)]
pub(super) struct ClusterService {
    member: Member,
}

impl ClusterService {
    pub(super) fn new(member: Member) -> Self {
        Self { member }
    }
}

#[tonic::async_trait]
impl Cluster for ClusterService {
    /// The members of the newest configuration in this member's log, ordered by ID. Headers of this service carry no revision.
    async fn member_list(
        &self,
        request: Request<pb::MemberListRequest>,
    ) -> Result<Response<pb::MemberListResponse>, Status> {
        self.member.admit(&request, false)?;
        if request.get_ref().linearizable {
            self.member.gateway.read_barrier().await?;
        }
        let status = self.member.view.status();
        let members = status.members().iter().map(|member| pb::Member {
            id: member.id,
            name: member.name.clone(),
            peer_ur_ls: vec![self.member.peer_scheme.url(&member.peer_address)],
            client_ur_ls: member.client_urls.clone(),
            is_learner: status.is_learner(member.id),
        });
        Ok(Response::new(pb::MemberListResponse {
            header: Some(self.member.header(0)),
            members: members.collect(),
        }))
    }

    async fn member_add(
        &self,
        _: Request<pb::MemberAddRequest>,
    ) -> Result<Response<pb::MemberAddResponse>, Status> {
        Err(unimplemented("/etcdserverpb.Cluster/MemberAdd"))
    }

    async fn member_remove(
        &self,
        _: Request<pb::MemberRemoveRequest>,
    ) -> Result<Response<pb::MemberRemoveResponse>, Status> {
        Err(unimplemented("/etcdserverpb.Cluster/MemberRemove"))
    }

    async fn member_update(
        &self,
        _: Request<pb::MemberUpdateRequest>,
    ) -> Result<Response<pb::MemberUpdateResponse>, Status> {
        Err(unimplemented("/etcdserverpb.Cluster/MemberUpdate"))
    }

    async fn member_promote(
        &self,
        _: Request<pb::MemberPromoteRequest>,
    ) -> Result<Response<pb::MemberPromoteResponse>, Status> {
        Err(unimplemented("/etcdserverpb.Cluster/MemberPromote"))
    }
}
