//! The admin service: what operators and raftctl ask of a node.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use quorate_api::admin::admin_server::{Admin, AdminServer};
use quorate_api::admin::{self as pb, StatusResponse};
use quorate_api::log;
use quorate_raft::{ChangeError, Configuration, LogId, MemberId, ProposeError, TransferError};
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;
use tonic::{Request, Response, Status};

use crate::codec;
use crate::doors::event::{ClusterError, Event};
use crate::doors::mailbox::Mailbox;
use crate::doors::view::{Corrupt, NodeStatus, NodeView, VERSION};
use crate::level::Levels;
use crate::net::{AllowedNames, Caller};
use crate::replica::{Agreement, RaiseError};
use crate::tls::Tls;

/// The least time between two statuses of one watch that differ only in how far the members have come.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);

/// How long a transfer may take: it is given up by the leader after an election timeout.
const TRANSFER_TIMEOUT: Duration = Duration::from_secs(3);

/// How long a raise of the level may take: the time of a commit, and of an election that comes between.
const RAISE_TIMEOUT: Duration = Duration::from_secs(5);

/// The admin service of a node.
#[derive(Debug)]
pub(crate) struct AdminService {
    view: NodeView,
    mailbox: Mailbox,
    /// Of the peer port.
    tls: Option<Tls>,
    /// Who may change something.
    allowed: AllowedNames,
}

impl AdminService {
    /// A service that shows `view` and what `tls` trusts, and hands requests of those who are `allowed` to change something to `mailbox`.
    pub(crate) fn server(
        view: NodeView,
        mailbox: Mailbox,
        tls: Option<Tls>,
        allowed: AllowedNames,
    ) -> AdminServer<Self> {
        AdminServer::new(AdminService { view, mailbox, tls, allowed })
    }

    /// Lets a change through if its caller may ask for one, and says in the log who `asks`.
    fn admit<T>(&self, request: &Request<T>, asks: &str) -> Result<(), Status> {
        let caller = request.extensions().get::<Caller>();
        let allowed = self.allowed.check(caller);
        if let Some(caller) = caller {
            match &allowed {
                Ok(()) => tracing::info!(%caller, "{asks}"),
                Err(error) => tracing::warn!(%caller, %error, "{asks}; refused"),
            }
        }
        allowed.map_err(|error| Status::permission_denied(error.to_string()))
    }

    /// Leaves an event that has a reply, and waits for that.
    async fn ask<T>(&self, event: impl FnOnce(oneshot::Sender<T>) -> Event) -> Result<T, Status> {
        let (reply, answer) = oneshot::channel();
        self.mailbox
            .send(event(reply))
            .map_err(|_| Status::unavailable("the node is too busy, or stopping"))?;
        answer.await.map_err(|_| Status::unavailable("the node is stopping"))
    }

    /// A request that names another cluster has come to the wrong node.
    fn check_cluster(&self, cluster_id: u64) -> Result<(), Status> {
        let mine = self.view.cluster_id();
        if mine == cluster_id && mine != 0 {
            return Ok(());
        }
        let what = format!("this node belongs to cluster {mine:016x}, not to {cluster_id:016x}");
        Err(Status::failed_precondition(what))
    }

    /// Whether all that are new in `wanted` support the cluster's level, as whoever asks has heard from them.
    fn check_levels(&self, wanted: &Configuration, told: &[pb::MemberLevels]) -> Result<(), Status> {
        let level = self.view.status().level;
        for told in told.iter().filter(|told| wanted.members().contains(&MemberId(told.member_id))) {
            let supported = Levels { oldest: told.oldest_level, newest: told.newest_level };
            if level != 0 && !supported.contains(level) {
                let id = MemberId(told.member_id);
                let what =
                    format!("the cluster has level {level}, and {id} supports {supported}: upgrade it");
                return Err(Status::failed_precondition(what));
            }
        }
        Ok(())
    }

    fn describe_leader(&self, leader: Option<MemberId>) -> String {
        let status = self.view.status();
        let member = leader.and_then(|id| status.members().iter().find(|member| member.id == id.0));
        match (leader, member) {
            (None, _) => "no leader is known".into(),
            (Some(id), None) => format!("{id} leads"),
            (Some(id), Some(member)) => format!("{} ({id}) leads, at {}", member.name, member.peer_address),
        }
    }

    fn not_now(&self, error: &ProposeError) -> Status {
        match error {
            ProposeError::NotLeader { leader } => {
                let leader = self.describe_leader(*leader);
                Status::failed_precondition(format!("this member does not lead: {leader}"))
            }
            ProposeError::Transferring { .. } => Status::unavailable(error.to_string()),
        }
    }
}

type Watch = Pin<Box<dyn Stream<Item = Result<StatusResponse, Status>> + Send>>;

#[tonic::async_trait]
impl Admin for AdminService {
    async fn status(&self, _: Request<pb::StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        Ok(Response::new(response(&self.view, self.tls.as_ref())))
    }

    type WatchStatusStream = Watch;

    async fn watch_status(&self, _: Request<pb::StatusRequest>) -> Result<Response<Watch>, Status> {
        let mut changes = self.view.subscribe();
        changes.mark_changed();
        let watcher = Watcher { view: self.view.clone(), tls: self.tls.clone(), changes, shown: None };
        let statuses = futures::stream::unfold(watcher, |mut watcher| async move {
            let response = watcher.next().await?;
            Some((Ok(response), watcher))
        });
        Ok(Response::new(Box::pin(statuses)))
    }

    async fn bootstrap(
        &self,
        request: Request<pb::BootstrapRequest>,
    ) -> Result<Response<pb::BootstrapResponse>, Status> {
        self.admit(&request, "asks to found a cluster")?;
        let cluster_id = request.into_inner().cluster_id;
        self.ask(|reply| Event::Bootstrap { cluster_id, reply }).await?.map_err(|error| match error {
            ClusterError::NoId => Status::invalid_argument(error.to_string()),
            ClusterError::Other { .. } | ClusterError::NotFounder(_) | ClusterError::HalfFounded => {
                Status::failed_precondition(error.to_string())
            }
            ClusterError::InProgress => Status::unavailable(error.to_string()),
            ClusterError::Storage(_) => Status::internal(error.to_string()),
        })?;
        Ok(Response::new(pb::BootstrapResponse { status: Some(response(&self.view, self.tls.as_ref())) }))
    }

    async fn change_membership(
        &self,
        request: Request<pb::ChangeMembershipRequest>,
    ) -> Result<Response<pb::ChangeMembershipResponse>, Status> {
        self.admit(&request, "asks for a change of membership")?;
        let pb::ChangeMembershipRequest { cluster_id, expected, wanted, levels } = request.into_inner();
        self.check_cluster(cluster_id)?;
        let missing = |what| move || Status::invalid_argument(format!("the request has no {what}"));
        let expected = expected.ok_or_else(missing("expected configuration"))?;
        let mut wanted = wanted.ok_or_else(missing("wanted configuration"))?;
        keep_registrations(&mut wanted, self.view.status().members());
        let wanted = codec::configuration_from_wire(wanted)
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        self.check_levels(&wanted, &levels)?;
        let expected = LogId { term: expected.term, index: expected.index };
        let id = self.ask(|reply| Event::ChangeMembership { expected, wanted, reply }).await?;
        let id = id.map_err(|error| match &error {
            ChangeError::NotNow(reason) => self.not_now(reason),
            ChangeError::Stale { .. } => Status::aborted(error.to_string()),
            ChangeError::InProgress | ChangeError::Lagging(_) | ChangeError::TooFewAnswer => {
                Status::unavailable(error.to_string())
            }
            ChangeError::Invalid(_) => Status::invalid_argument(error.to_string()),
        })?;
        Ok(Response::new(pb::ChangeMembershipResponse { id: Some(configuration_id(id)) }))
    }

    async fn raise_level(
        &self,
        request: Request<pb::RaiseLevelRequest>,
    ) -> Result<Response<pb::RaiseLevelResponse>, Status> {
        self.admit(&request, "asks to raise the level")?;
        let pb::RaiseLevelRequest { cluster_id, to } = request.into_inner();
        self.check_cluster(cluster_id)?;
        let to = (to != 0).then_some(to);
        let mut changes = self.view.subscribe();
        let to = self.ask(|reply| Event::RaiseLevel { to, reply }).await?;
        let to = to.map_err(|error| match &error {
            RaiseError::NotNow(reason) => self.not_now(reason),
            RaiseError::Unsupported { .. } => Status::failed_precondition(error.to_string()),
        })?;
        let raised = changes.wait_for(|status| status.level >= to);
        match tokio::time::timeout(RAISE_TIMEOUT, raised).await {
            Ok(Ok(status)) => Ok(Response::new(pb::RaiseLevelResponse { level: status.level })),
            Ok(Err(_)) => Err(Status::unavailable("the node is stopping")),
            Err(_) => {
                Err(Status::aborted(format!("level {to} was proposed, and is not committed yet: look again")))
            }
        }
    }

    async fn transfer_leadership(
        &self,
        request: Request<pb::TransferLeadershipRequest>,
    ) -> Result<Response<pb::TransferLeadershipResponse>, Status> {
        self.admit(&request, "asks to transfer leadership")?;
        let pb::TransferLeadershipRequest { cluster_id, target } = request.into_inner();
        self.check_cluster(cluster_id)?;
        let target = (target != 0).then_some(MemberId(target));
        let mut changes = self.view.subscribe();
        let target = self.ask(|reply| Event::Transfer { target, reply }).await?;
        let target = target.map_err(|error| match &error {
            TransferError::NotNow(reason) => self.not_now(reason),
            TransferError::NotAVoter(_) => Status::failed_precondition(error.to_string()),
        })?;
        let leads = changes.wait_for(|status| status.leader == Some(target.0));
        match tokio::time::timeout(TRANSFER_TIMEOUT, leads).await {
            Ok(Ok(status)) => {
                Ok(Response::new(pb::TransferLeadershipResponse { leader_id: target.0, term: status.term }))
            }
            Ok(Err(_)) => Err(Status::unavailable("the node is stopping")),
            Err(_) => {
                let leader = self.describe_leader(self.view.status().leader.map(MemberId));
                Err(Status::aborted(format!("{target} did not take over in time; {leader}")))
            }
        }
    }
}

/// Where a member was found to be corrupt, for people.
fn corrupt(agreement: Agreement) -> Option<pb::Corrupt> {
    let Agreement::Corrupt(Corrupt { id, own, majority }) = agreement else { return None };
    Some(pb::Corrupt { index: id.index, own: own.to_string(), majority: majority.to_string() })
}

/// One watch of the status.
struct Watcher {
    view: NodeView,
    tls: Option<Tls>,
    changes: watch::Receiver<Arc<NodeStatus>>,
    shown: Option<Shown>,
}

/// What a watch has shown last.
struct Shown {
    status: Arc<NodeStatus>,
    at: Instant,
}

impl Watcher {
    /// The next status worth showing. None at the end of the node. A change of the progress alone is shown once the last thing that was
    /// shown is old enough, whether or not anything follows.
    async fn next(&mut self) -> Option<StatusResponse> {
        let mut held_back = false;
        loop {
            match self.shown.as_ref().filter(|_| held_back) {
                None => self.changes.changed().await.ok()?,
                Some(shown) => {
                    let due = shown.at + PROGRESS_INTERVAL;
                    let changed = tokio::time::timeout_at(due, self.changes.changed()).await;
                    changed.unwrap_or(Ok(())).ok()?;
                }
            }
            let status = Arc::clone(&self.changes.borrow_and_update());
            let worthwhile = self.shown.as_ref().is_none_or(|shown| {
                shown.at.elapsed() >= PROGRESS_INTERVAL || !differs_in_progress_only(&shown.status, &status)
            });
            if worthwhile {
                self.shown = Some(Shown { status, at: Instant::now() });
                return Some(response(&self.view, self.tls.as_ref()));
            }
            held_back = true;
        }
    }
}

/// Whether nothing has changed but how far the members have come.
fn differs_in_progress_only(before: &NodeStatus, after: &NodeStatus) -> bool {
    let health = |status: &NodeStatus| -> Vec<_> {
        status.progress.iter().map(|member| (member.id, member.active, member.caught_up)).collect()
    };
    let same_rest = |a: &NodeStatus, b: &NodeStatus| {
        NodeStatus { progress: Vec::new(), ..a.clone() } == NodeStatus { progress: Vec::new(), ..b.clone() }
    };
    health(before) == health(after) && same_rest(before, after)
}

/// The status as admin clients read it.
pub(crate) fn response(view: &NodeView, tls: Option<&Tls>) -> StatusResponse {
    let status = view.status();
    let configuration = status.configuration.as_ref().map(|c| pb::ConfigurationStatus {
        id: Some(configuration_id(c.id)),
        configuration: Some(c.configuration.clone()),
        committed: c.committed,
    });
    let progress = status.progress.iter().map(|member| pb::Progress {
        member_id: member.id.0,
        r#match: member.matched,
        active: member.active,
        caught_up: member.caught_up,
        lost: member.lost,
    });
    let contacts = view.contacts().into_iter();
    StatusResponse {
        cluster_id: status.cluster_id,
        member_id: status.member_id,
        name: status.name.clone(),
        role: status.role.into(),
        term: status.term,
        leader_id: status.leader.unwrap_or(0),
        last_index: view.last_index(),
        last_term: view.last_term(),
        commit_index: view.commit_index(),
        applied_index: view.applied_index(),
        revision: view.revision(),
        version: VERSION.to_owned(),
        configuration,
        progress: progress.collect(),
        peer_address: status.peer_address.clone(),
        client_urls: status.client_urls.clone(),
        peer_authorities: tls.map(Tls::authorities).unwrap_or_default(),
        level: status.level,
        oldest_level: status.levels.oldest,
        newest_level: status.levels.newest,
        state_bytes: view.state_bytes(),
        quota_bytes: status.quota,
        over_quota: status.over_quota,
        repairing: status.repairing,
        conflict: status.conflict.clone().unwrap_or_default(),
        corrupt: corrupt(status.agreement),
        divided_at: match status.agreement {
            Agreement::Divided(index) => index,
            Agreement::Whole | Agreement::Corrupt(_) => 0,
        },
        suspects: status.suspects.clone(),
        contacts: contacts.map(|(member_id, peer_address)| pb::Contact { member_id, peer_address }).collect(),
    }
}

fn configuration_id(id: LogId) -> pb::ConfigurationId {
    pb::ConfigurationId { term: id.term, index: id.index }
}

/// What was said of members when they were registered stays with those that stay, also where whoever asks does not know of such a thing.
fn keep_registrations(wanted: &mut log::Configuration, members: &[log::Member]) {
    for member in &mut wanted.members {
        let before = members.iter().find(|before| before.id == member.id);
        if let Some(before) = before.filter(|_| member.registered == 0 && member.volume == 0) {
            (member.registered, member.volume) = (before.registered, before.volume);
        }
    }
}

#[cfg(test)]
mod tests {
    use quorate_raft::Progress;

    use super::*;

    fn status(matched: u64) -> NodeStatus {
        let progress =
            Progress { id: MemberId(1), matched, active: true, caught_up: true, offered: None, lost: false };
        NodeStatus { member_id: 1, progress: vec![progress], ..NodeStatus::default() }
    }

    /// Review L13: the last change of a cluster that comes to rest was shown never.
    #[tokio::test]
    async fn the_last_progress_is_shown_though_nothing_follows() {
        let view = NodeView::new(status(0));
        let mut changes = view.subscribe();
        changes.mark_changed();
        let mut watcher = Watcher { view: view.clone(), tls: None, changes, shown: None };
        let shown = |response: StatusResponse| response.progress[0].r#match;
        assert_eq!(watcher.next().await.map(shown), Some(0));
        view.publish(status(1));
        view.publish(status(2));
        assert_eq!(watcher.next().await.map(shown), Some(2));
    }

    /// An operator of before writes back what it knows of a configuration.
    #[test]
    fn what_was_registered_of_a_member_stays_whoever_writes_the_configuration() {
        let member = |id| log::Member { id, ..log::Member::default() };
        let mut registered = log::Member { volume: 7, ..member(2) };
        registered.set_registered(log::Registration::Learner);
        let mut wanted =
            log::Configuration { members: vec![member(1), member(2), member(3)], ..Default::default() };
        keep_registrations(&mut wanted, &[member(1), registered.clone(), member(9)]);
        assert_eq!(wanted.members, [member(1), registered.clone(), member(3)]);
        // A volume that has come since is told of by whoever knows of it.
        let come = log::Member { volume: 8, ..registered.clone() };
        wanted.members = vec![come.clone()];
        keep_registrations(&mut wanted, &[registered]);
        assert_eq!(wanted.members, [come]);
    }
}
