//! `etcdserverpb.Cluster`.

use quorate_api::etcdserverpb as pb;
use quorate_api::etcdserverpb::cluster_server::Cluster;
use quorate_api::log;
use tonic::{Request, Response, Status};

use super::error::bad_member_urls;
use super::member::Member;
use crate::doors::members::{Change, Changed, is_shown_as_voter};

/// The cluster service of one client runtime. Headers of this service carry no revision.
#[derive(Debug, Clone)]
pub(super) struct ClusterService {
    member: Member,
}

impl ClusterService {
    pub(super) fn new(member: Member) -> Self {
        Self { member }
    }

    /// The members of a configuration, ordered by ID.
    fn list(&self, configuration: &log::Configuration) -> Vec<pb::Member> {
        let mut members: Vec<_> =
            configuration.members.iter().map(|member| self.show(configuration, member)).collect();
        members.sort_unstable_by_key(|member| member.id);
        members
    }

    /// A member as clients see it. One that has only been registered has neither a name nor client URLs.
    fn show(&self, configuration: &log::Configuration, member: &log::Member) -> pb::Member {
        pb::Member {
            id: member.id,
            name: member.name.clone(),
            peer_ur_ls: vec![self.member.peer_scheme.url(&member.peer_address)],
            client_ur_ls: member.client_urls.clone(),
            is_learner: !is_shown_as_voter(configuration, member),
        }
    }

    /// Whether a change may be asked for here.
    fn admit<T>(&self, request: &Request<T>) -> Result<(), Status> {
        self.member.admit(request, false)?;
        self.member.has_state()
    }

    async fn change(&self, change: Change) -> Result<Changed, Status> {
        Ok(self.member.members.ask(change).await?)
    }
}

#[tonic::async_trait]
impl Cluster for ClusterService {
    /// The members of the newest configuration in this member's log.
    async fn member_list(
        &self,
        request: Request<pb::MemberListRequest>,
    ) -> Result<Response<pb::MemberListResponse>, Status> {
        self.member.admit(&request, false)?;
        if request.get_ref().linearizable {
            self.member.gateway.read_barrier().await?;
        }
        let status = self.member.view.status();
        let configuration = status.configuration.as_ref().map(|known| &known.configuration);
        let members = configuration.map(|known| self.list(known)).unwrap_or_default();
        Ok(Response::new(pb::MemberListResponse { header: Some(self.member.header(0)), members }))
    }

    async fn member_add(
        &self,
        request: Request<pb::MemberAddRequest>,
    ) -> Result<Response<pb::MemberAddResponse>, Status> {
        self.admit(&request)?;
        let pb::MemberAddRequest { peer_ur_ls, is_learner: learner } = request.get_ref();
        let peer_address = peer_address(peer_ur_ls)?;
        let made = self.change(Change::Add { peer_address, learner: *learner }).await?;
        let members = self.list(&made.configuration);
        Ok(Response::new(pb::MemberAddResponse {
            header: Some(self.member.header(0)),
            member: members.iter().find(|member| member.id == made.member).cloned(),
            members,
        }))
    }

    async fn member_remove(
        &self,
        request: Request<pb::MemberRemoveRequest>,
    ) -> Result<Response<pb::MemberRemoveResponse>, Status> {
        self.admit(&request)?;
        let made = self.change(Change::Remove(request.get_ref().id)).await?;
        let members = self.list(&made.configuration);
        Ok(Response::new(pb::MemberRemoveResponse { header: Some(self.member.header(0)), members }))
    }

    /// Until the member itself says where it is, with its next start.
    async fn member_update(
        &self,
        request: Request<pb::MemberUpdateRequest>,
    ) -> Result<Response<pb::MemberUpdateResponse>, Status> {
        self.admit(&request)?;
        let pb::MemberUpdateRequest { id, peer_ur_ls } = request.get_ref();
        let made = self.change(Change::Update(*id, peer_address(peer_ur_ls)?)).await?;
        let members = self.list(&made.configuration);
        Ok(Response::new(pb::MemberUpdateResponse { header: Some(self.member.header(0)), members }))
    }

    async fn member_promote(
        &self,
        request: Request<pb::MemberPromoteRequest>,
    ) -> Result<Response<pb::MemberPromoteResponse>, Status> {
        self.admit(&request)?;
        let made = self.change(Change::Promote(request.get_ref().id)).await?;
        let members = self.list(&made.configuration);
        Ok(Response::new(pb::MemberPromoteResponse { header: Some(self.member.header(0)), members }))
    }
}

/// `host:port` of a member's peer URLs. A member has one here; etcd takes several.
fn peer_address(urls: &[String]) -> Result<String, Status> {
    let [url] = urls else { return Err(bad_member_urls()) };
    let address = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
    let is_port = |port: &str| !port.is_empty() && port.parse::<u16>().is_ok();
    let is_host = |host: &str| {
        !host.is_empty() && host.chars().all(|c| c.is_ascii_alphanumeric() || "-._:[]%".contains(c))
    };
    match address.and_then(|address| Some((address, address.rsplit_once(':')?))) {
        Some((address, (host, port))) if is_host(host) && is_port(port) => Ok(address.to_owned()),
        _ => Err(bad_member_urls()),
    }
}
