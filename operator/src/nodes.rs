//! Talking to the nodes: the client of their admin service. The gRPC types stop here.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use parking_lot::Mutex;
use quorate_api::admin::admin_client::AdminClient;
use quorate_api::{admin, log};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity as TlsIdentity};

use crate::membership::{Configuration, ConfigurationId, Member, MemberId};
use crate::observed::{ConfigurationState, Holds, NodeStatus, Progress, Role};
use crate::trust::Identity;

/// A node that does not answer within this is unreachable for this round. It holds up nobody else.
const STATUS_DEADLINE: Duration = Duration::from_secs(3);
/// A change has to be appended, a transfer takes an election.
const ACTION_DEADLINE: Duration = Duration::from_secs(10);
/// A connection whose other side is gone is found out within this and the answer's time.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// Where a node is, and how it is known to be the right one.
#[derive(Clone, Debug)]
pub struct Target {
    /// `IP:port` of the peer listener.
    pub address: String,
    /// The DNS name of the pod, which its certificate has to carry.
    pub host: String,
    /// The operator's certificate for this cluster.
    pub identity: Arc<Identity>,
}

/// A node cannot be reached, or refuses.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AdminError {
    /// No answer in time, or no connection.
    #[error("{host} does not answer: {message}")]
    Unreachable {
        /// The node.
        host: String,
        /// Why.
        message: String,
    },
    /// It answered with an error.
    #[error("{host} refuses: {message}")]
    Refused {
        /// The node.
        host: String,
        /// Why.
        message: String,
    },
}

/// What the operator asks of nodes. A trait, so that the controller's tests have nodes of their own.
pub trait Admin: Send + Sync + 'static {
    /// What the node knows now.
    fn status<'a>(&'a self, node: &'a Target) -> BoxFuture<'a, Result<NodeStatus, AdminError>>;
    /// The status now and at every change.
    fn watch<'a>(&'a self, node: &'a Target) -> BoxFuture<'a, Result<Statuses, AdminError>>;
    /// Founds a cluster.
    fn bootstrap<'a>(&'a self, node: &'a Target, cluster_id: u64) -> BoxFuture<'a, Result<(), AdminError>>;
    /// Asks the leader for another configuration.
    fn change_membership<'a>(
        &'a self,
        node: &'a Target,
        cluster_id: u64,
        expected: ConfigurationId,
        wanted: &'a Configuration,
    ) -> BoxFuture<'a, Result<(), AdminError>>;
    /// Asks the leader to hand over.
    fn transfer<'a>(
        &'a self,
        node: &'a Target,
        cluster_id: u64,
        target: MemberId,
    ) -> BoxFuture<'a, Result<(), AdminError>>;
    /// Asks the leader to raise the level of the data.
    fn raise_level<'a>(
        &'a self,
        node: &'a Target,
        cluster_id: u64,
        to: u32,
    ) -> BoxFuture<'a, Result<(), AdminError>>;
    /// Closes the connections to nodes whose DNS names end so.
    fn forget(&self, suffix: &str);
}

/// The status of a node, at every change.
pub type Statuses = BoxStream<'static, Result<NodeStatus, AdminError>>;

/// The admin service over mutual TLS. One connection for each node is kept, by its DNS name: at most as many as there are
/// pods.
#[derive(Default)]
pub struct TlsAdmin {
    connections: Mutex<HashMap<String, Connection>>,
}

struct Connection {
    address: String,
    identity: Arc<Identity>,
    channel: Channel,
}

impl TlsAdmin {
    fn client(&self, node: &Target) -> Result<AdminClient<Channel>, AdminError> {
        let mut connections = self.connections.lock();
        if let Some(known) = connections.get(&node.host)
            && known.address == node.address
            && known.identity == node.identity
        {
            return Ok(AdminClient::new(known.channel.clone()));
        }
        let channel = connect(node).map_err(|error| unreachable(node, &error))?;
        let connection = Connection {
            address: node.address.clone(),
            identity: node.identity.clone(),
            channel: channel.clone(),
        };
        connections.insert(node.host.clone(), connection);
        Ok(AdminClient::new(channel))
    }
}

fn connect(node: &Target) -> Result<Channel, tonic::transport::Error> {
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(&node.identity.ca))
        .identity(TlsIdentity::from_pem(&node.identity.certificate, &node.identity.key))
        .domain_name(&node.host)
        .timeout(STATUS_DEADLINE);
    let endpoint = Endpoint::from_shared(format!("https://{}", node.address))?
        .tls_config(tls)?
        .connect_timeout(STATUS_DEADLINE)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE);
    Ok(endpoint.connect_lazy())
}

impl Admin for TlsAdmin {
    fn status<'a>(&'a self, node: &'a Target) -> BoxFuture<'a, Result<NodeStatus, AdminError>> {
        async move {
            let mut client = self.client(node)?;
            let answer = within(STATUS_DEADLINE, node, client.status(admin::StatusRequest {})).await?;
            Ok(node_status(answer))
        }
        .boxed()
    }

    fn watch<'a>(&'a self, node: &'a Target) -> BoxFuture<'a, Result<Statuses, AdminError>> {
        async move {
            let mut client = self.client(node)?;
            let stream = within(STATUS_DEADLINE, node, client.watch_status(admin::StatusRequest {})).await?;
            let node = node.clone();
            Ok(stream
                .map(move |item| item.map(node_status).map_err(|status| refused(&node, &status)))
                .boxed())
        }
        .boxed()
    }

    fn bootstrap<'a>(&'a self, node: &'a Target, cluster_id: u64) -> BoxFuture<'a, Result<(), AdminError>> {
        async move {
            let mut client = self.client(node)?;
            within(ACTION_DEADLINE, node, client.bootstrap(admin::BootstrapRequest { cluster_id })).await?;
            Ok(())
        }
        .boxed()
    }

    fn change_membership<'a>(
        &'a self,
        node: &'a Target,
        cluster_id: u64,
        expected: ConfigurationId,
        wanted: &'a Configuration,
    ) -> BoxFuture<'a, Result<(), AdminError>> {
        async move {
            let request = admin::ChangeMembershipRequest {
                cluster_id,
                expected: Some(admin::ConfigurationId { term: expected.term, index: expected.index }),
                wanted: Some(to_wire(wanted)),
                ..Default::default()
            };
            let mut client = self.client(node)?;
            within(ACTION_DEADLINE, node, client.change_membership(request)).await?;
            Ok(())
        }
        .boxed()
    }

    fn transfer<'a>(
        &'a self,
        node: &'a Target,
        cluster_id: u64,
        target: MemberId,
    ) -> BoxFuture<'a, Result<(), AdminError>> {
        async move {
            let mut client = self.client(node)?;
            let request = admin::TransferLeadershipRequest { cluster_id, target };
            within(ACTION_DEADLINE, node, client.transfer_leadership(request)).await?;
            Ok(())
        }
        .boxed()
    }

    fn raise_level<'a>(
        &'a self,
        node: &'a Target,
        cluster_id: u64,
        to: u32,
    ) -> BoxFuture<'a, Result<(), AdminError>> {
        async move {
            let mut client = self.client(node)?;
            let request = admin::RaiseLevelRequest { cluster_id, to };
            within(ACTION_DEADLINE, node, client.raise_level(request)).await?;
            Ok(())
        }
        .boxed()
    }

    fn forget(&self, suffix: &str) {
        self.connections.lock().retain(|host, _| !host.ends_with(suffix));
    }
}

async fn within<T>(
    deadline: Duration,
    node: &Target,
    call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
) -> Result<T, AdminError> {
    match tokio::time::timeout(deadline, call).await {
        Ok(Ok(answer)) => Ok(answer.into_inner()),
        Ok(Err(status)) => Err(refused(node, &status)),
        Err(_) => Err(AdminError::Unreachable {
            host: node.host.clone(),
            message: format!("no answer within {} s", deadline.as_secs()),
        }),
    }
}

fn refused(node: &Target, status: &tonic::Status) -> AdminError {
    let host = node.host.clone();
    let message = status.message().to_owned();
    match status.code() {
        tonic::Code::Unavailable => AdminError::Unreachable { host, message },
        code => AdminError::Refused { host, message: format!("{message} ({code:?})") },
    }
}

fn unreachable(node: &Target, error: &dyn std::error::Error) -> AdminError {
    AdminError::Unreachable { host: node.host.clone(), message: error.to_string() }
}

fn node_status(answer: admin::StatusResponse) -> NodeStatus {
    NodeStatus {
        role: role(answer.role()),
        name: answer.name,
        conflict: answer.conflict,
        cluster_id: answer.cluster_id,
        member_id: answer.member_id,
        term: answer.term,
        leader_id: answer.leader_id,
        version: answer.version,
        authorities: answer.peer_authorities,
        level: answer.level,
        newest_level: answer.newest_level,
        peer_address: answer.peer_address,
        client_urls: answer.client_urls,
        configuration: answer.configuration.and_then(configuration_state),
        holds: Holds {
            last_term: answer.last_term,
            last_index: answer.last_index,
            commit_index: answer.commit_index,
            revision: answer.revision,
        },
        matched: answer.progress.iter().map(|item| (item.member_id, item.r#match)).collect(),
        progress: answer
            .progress
            .into_iter()
            .map(|item| (item.member_id, Progress { active: item.active, caught_up: item.caught_up }))
            .collect(),
    }
}

fn role(role: admin::Role) -> Role {
    match role {
        admin::Role::Waiting => Role::Waiting,
        admin::Role::Learner => Role::Learner,
        admin::Role::Follower => Role::Follower,
        admin::Role::Candidate => Role::Candidate,
        admin::Role::Leader => Role::Leader,
        admin::Role::Removed => Role::Removed,
    }
}

fn configuration_state(status: admin::ConfigurationStatus) -> Option<ConfigurationState> {
    let id = status.id?;
    let configuration = status.configuration?;
    let members = configuration.members.into_iter().map(|member| {
        let found =
            Member { name: member.name, peer_address: member.peer_address, client_urls: member.client_urls };
        (member.id, found)
    });
    Some(ConfigurationState {
        id: ConfigurationId { term: id.term, index: id.index },
        committed: status.committed,
        configuration: Configuration {
            voters: configuration.voters.into_iter().collect(),
            outgoing: configuration.outgoing.into_iter().collect(),
            learners: configuration.learners.into_iter().collect(),
            members: members.collect(),
        },
    })
}

fn to_wire(configuration: &Configuration) -> log::Configuration {
    let member = |(id, member): (&MemberId, &Member)| log::Member {
        id: *id,
        name: member.name.clone(),
        peer_address: member.peer_address.clone(),
        client_urls: member.client_urls.clone(),
        ..log::Member::default()
    };
    log::Configuration {
        voters: configuration.voters.iter().copied().collect(),
        // The way through the joint configuration is the cluster's own business.
        outgoing: Vec::new(),
        learners: configuration.learners.iter().copied().collect(),
        members: configuration.members.iter().map(member).collect(),
    }
}
