//! The client of the admin service, against a server over mutual TLS with certificates that the operator makes.

// Whole files of tests may panic, and take values as `json!` makes them.
#![allow(clippy::panic, clippy::needless_pass_by_value, clippy::similar_names)]

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::{Stream, StreamExt};
use quorate_api::admin as pb;
use quorate_api::admin::admin_server::{Admin as Service, AdminServer};
use quorate_api::log;
use quorate_crds::{RaftCluster, RaftClusterSpec};
use quorate_operator::membership::{Configuration, ConfigurationId, Member};
use quorate_operator::nodes::{Admin, AdminError, Target, TlsAdmin};
use quorate_operator::observed::Role;
use quorate_operator::trust::{Identity, LEAF_LIFE, leaves, x509};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Certificate, Identity as TlsIdentity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status};

const HOST: &str = "demo-0.demo-peers.ns.svc";

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970")
}

fn cluster() -> RaftCluster {
    let mut cluster = RaftCluster::new("demo", RaftClusterSpec::default());
    cluster.metadata.namespace = Some("ns".to_owned());
    cluster
}

fn authority() -> x509::Pair {
    x509::authority("demo peer authority 1", now(), LEAF_LIFE).expect("an authority")
}

fn identity(request: &x509::Request, by: &x509::Pair) -> Identity {
    let made = x509::leaf(request, by, now(), LEAF_LIFE).expect("a certificate");
    Identity {
        ca: by.certificate.clone().into_bytes(),
        certificate: made.certificate.into_bytes(),
        key: made.key.into_bytes(),
    }
}

/// A node that leads a cluster of one.
struct Node;

type Statuses = Pin<Box<dyn Stream<Item = Result<pb::StatusResponse, Status>> + Send>>;

fn status() -> pb::StatusResponse {
    let member = log::Member { id: 7, name: "demo-0".to_owned(), ..log::Member::default() };
    let configuration = log::Configuration { voters: vec![7], members: vec![member], ..Default::default() };
    pb::StatusResponse {
        cluster_id: 1,
        member_id: 7,
        role: pb::Role::Leader.into(),
        term: 3,
        configuration: Some(pb::ConfigurationStatus {
            id: Some(pb::ConfigurationId { term: 1, index: 4 }),
            configuration: Some(configuration),
            committed: true,
        }),
        progress: vec![pb::Progress { member_id: 7, r#match: 9, active: true, caught_up: true, lost: false }],
        ..pb::StatusResponse::default()
    }
}

#[tonic::async_trait]
impl Service for Node {
    type WatchStatusStream = Statuses;

    async fn status(&self, _: Request<pb::StatusRequest>) -> Result<Response<pb::StatusResponse>, Status> {
        Ok(Response::new(status()))
    }

    async fn watch_status(&self, _: Request<pb::StatusRequest>) -> Result<Response<Statuses>, Status> {
        let later = pb::StatusResponse { term: 4, ..status() };
        Ok(Response::new(futures::stream::iter([Ok(status()), Ok(later)]).boxed()))
    }

    async fn bootstrap(
        &self,
        _: Request<pb::BootstrapRequest>,
    ) -> Result<Response<pb::BootstrapResponse>, Status> {
        Err(Status::failed_precondition("this node belongs to another cluster"))
    }

    async fn change_membership(
        &self,
        request: Request<pb::ChangeMembershipRequest>,
    ) -> Result<Response<pb::ChangeMembershipResponse>, Status> {
        let request = request.into_inner();
        let wanted = request.wanted.ok_or_else(|| Status::invalid_argument("no configuration"))?;
        if (request.cluster_id, request.expected) != (1, Some(pb::ConfigurationId { term: 1, index: 4 })) {
            return Err(Status::aborted("not the newest"));
        }
        if wanted.voters != [7]
            || wanted.learners != [8]
            || wanted.members.len() != 2
            || !wanted.outgoing.is_empty()
        {
            return Err(Status::invalid_argument(format!("{wanted:?}")));
        }
        Ok(Response::new(pb::ChangeMembershipResponse::default()))
    }

    async fn transfer_leadership(
        &self,
        _: Request<pb::TransferLeadershipRequest>,
    ) -> Result<Response<pb::TransferLeadershipResponse>, Status> {
        Ok(Response::new(pb::TransferLeadershipResponse::default()))
    }

    async fn raise_level(
        &self,
        _: Request<pb::RaiseLevelRequest>,
    ) -> Result<Response<pb::RaiseLevelResponse>, Status> {
        Err(Status::unimplemented("not asked for by the operator"))
    }
}

/// A running node, and its operator's target.
async fn start() -> Target {
    let by = authority();
    let nodes = identity(&leaves::nodes(&cluster(), "cluster.local"), &by);
    let own = identity(&leaves::admin(&cluster()), &by);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    let tls = ServerTlsConfig::new()
        .identity(TlsIdentity::from_pem(&nodes.certificate, &nodes.key))
        .client_ca_root(Certificate::from_pem(&nodes.ca));
    let server =
        Server::builder().tls_config(tls).expect("good certificates").add_service(AdminServer::new(Node));
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    Target { address, host: HOST.to_owned(), identity: Arc::new(own) }
}

/// On a busy machine the first answer may be too late for the operator, who would ask again.
async fn ask(admin: &TlsAdmin, node: &Target) -> quorate_operator::observed::NodeStatus {
    let mut last = None;
    for _ in 0..30 {
        match admin.status(node).await {
            Ok(status) => return status,
            Err(error) => last = Some(error),
        }
    }
    panic!("no answer: {last:?}")
}

async fn watch(admin: &TlsAdmin, node: &Target) -> quorate_operator::nodes::Statuses {
    let mut last = None;
    for _ in 0..30 {
        match admin.watch(node).await {
            Ok(statuses) => return statuses,
            Err(error) => last = Some(error),
        }
    }
    panic!("no stream: {last:?}")
}

#[tokio::test]
async fn a_node_is_asked_over_mutual_tls() {
    let node = start().await;
    let admin = TlsAdmin::default();
    let found = ask(&admin, &node).await;
    assert_eq!((found.cluster_id, found.member_id, found.role, found.term), (1, 7, Role::Leader, 3));
    let state = found.configuration.expect("a configuration");
    assert_eq!((state.id, state.committed), (ConfigurationId { term: 1, index: 4 }, true));
    assert!(found.progress[&7].active && found.progress[&7].caught_up);

    let statuses = watch(&admin, &node).await;
    let terms: Vec<_> = statuses.map(|status| status.expect("a status").term).collect().await;
    assert_eq!(terms, [3, 4]);

    let member =
        |name: &str| Member { name: name.to_owned(), peer_address: "a:1".to_owned(), client_urls: vec![] };
    let wanted = Configuration {
        voters: [7].into(),
        learners: [8].into(),
        members: [(7, member("demo-0")), (8, member("demo-1"))].into(),
        ..Configuration::default()
    };
    admin.change_membership(&node, 1, state.id, &wanted).await.expect("the change is appended");
    let stale = admin.change_membership(&node, 1, ConfigurationId::default(), &wanted).await;
    assert!(matches!(stale, Err(AdminError::Refused { .. })), "{stale:?}");
    let refused = admin.bootstrap(&node, 2).await.expect_err("it belongs to another cluster");
    assert!(refused.to_string().contains("belongs to another cluster"), "{refused}");
}

#[tokio::test]
async fn a_node_with_another_name_or_of_another_ca_is_not_believed() {
    let node = start().await;
    let elsewhere = Target { host: "demo-0.other-peers.ns.svc".to_owned(), ..node.clone() };
    assert!(matches!(TlsAdmin::default().status(&elsewhere).await, Err(AdminError::Unreachable { .. })));
    let other = start().await;
    let stranger = Target { identity: other.identity, ..node };
    assert!(matches!(TlsAdmin::default().status(&stranger).await, Err(AdminError::Unreachable { .. })));
}

#[tokio::test]
async fn a_node_that_says_nothing_is_unreachable_and_holds_up_nobody() {
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let node = start().await;
    let address = silent.local_addr().expect("an address").to_string();
    let target = Target { address, host: "demo-1.demo-peers.ns.svc".to_owned(), ..node.clone() };
    let admin = TlsAdmin::default();
    let (nothing, answer) = futures::join!(admin.status(&target), ask(&admin, &node));
    assert!(matches!(nothing, Err(AdminError::Unreachable { .. })), "{nothing:?}");
    assert_eq!(answer.member_id, 7);
}

#[test]
fn certificates_are_renewed_in_time_and_when_their_names_change() {
    let day = Duration::from_hours(24);
    let by = authority();
    let request = leaves::nodes(&cluster(), "cluster.local");
    let leaf = x509::first(&identity(&request, &by).certificate).expect("a certificate");
    let at = |when: Duration| i64::try_from(when.as_secs()).expect("a time");
    let serves = |request: &x509::Request, when: Duration| leaves::serves(&leaf, request, at(when));
    assert!(leaf.is_signed_by(&x509::first(by.certificate.as_bytes()).expect("an authority")));
    assert!(serves(&request, now()));
    assert!(serves(&request, now() + 240 * day));
    assert!(!serves(&request, now() + 250 * day), "a third of its time is left");
    let mut moved = cluster();
    moved.metadata.namespace = Some("other".to_owned());
    assert!(!serves(&leaves::nodes(&moved, "cluster.local"), now()));
    assert!(!serves(&leaves::nodes(&cluster(), "other.domain"), now()));
    assert!(!serves(&leaves::admin(&cluster()), now()), "it names servers");
    let short = x509::authority("short", now(), 2 * day).expect("an authority");
    let leaf = x509::first(&identity(&request, &short).certificate).expect("a certificate");
    assert!(leaf.not_after <= at(now() + 2 * day), "it does not outlive its authority");
}
