//! The peer port: other members' streams on the thread of the protocol, and everything that leads to them elsewhere.
//!
//! Connections are accepted, and agree on TLS, on the `ports` runtime: nobody who has shown no certificate takes time from the thread that
//! owes heartbeats. Then they move to that thread, where a message goes from the socket to the replica without waking another one. What
//! operators ask on the same port is answered on `ports`.

use std::convert::Infallible;
use std::net::IpAddr;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use quorate_api::admin::admin_server::AdminServer;
use quorate_api::peer::peer_server::PeerServer;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service};

use crate::admin::AdminService;
use crate::cli::Cli;
use crate::doors::mailbox::Mailbox;
use crate::doors::view::NodeView;
use crate::net::handshake::Handshakes;
use crate::net::http2::{self, Http2};
use crate::net::{
    self, Accepted, AllowedNames, Connection, Connections, Limits, Listeners, Slot, descriptors,
};
use crate::peer::{PeerService, Peers};
use crate::tls::{Tls, WINDOW_BYTES};

/// How often a silent connection from another member is asked whether it lives, and how long the answer may take.
const KEEPALIVE: Duration = Duration::from_secs(5);

/// How long a connection may take to speak HTTP/2, its TLS handshake included.
const SILENCE: Duration = Duration::from_secs(10);

/// How long an answer may wait until it is read on.
const UNREAD: Duration = Duration::from_mins(1);

/// How long an idle connection may take to go after GOAWAY, before it is cut off.
const GRACE: Duration = Duration::from_secs(1);

/// The most requests of one connection at a time: a member has one, an operator a few.
const STREAMS: u32 = 64;

/// How many of the port's places are kept for members: one for each of the others of a large cluster, and one for its process before, of which
/// nobody has heard that it has ended.
const MEMBERS: usize = 24;

/// Connections that have agreed on TLS and wait for the thread of the protocol.
const READY: usize = 64;

const PEER: &str = "/quorate.peer.v1.Peer/";
const ADMIN: &str = "/quorate.admin.v1.Admin/";
const WATCH: &str = "/quorate.admin.v1.Admin/WatchStatus";

/// The limits of the port.
pub(super) fn limits() -> Limits {
    Limits {
        port: "peer",
        flag: None,
        most: descriptors::PEERS,
        members: MEMBERS,
        requests: descriptors::PEERS * STREAMS as usize,
        silence: SILENCE,
        unread: UNREAD,
        unread_when_full: UNREAD,
        grace: GRACE,
        life: None,
    }
}

/// Whoever reaches a peer port in the clear can speak as any member, and change the cluster.
pub(super) fn warn_if_open(cli: &Cli) {
    let host = cli.listen_peer.host();
    let is_loopback =
        host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    if cli.peer_cert.is_none() && !is_loopback {
        tracing::warn!(
            listen_peer = %cli.listen_peer,
            "members talk in the clear, and not on this machine alone: whoever reaches this port can act as a member and change the \
             cluster. Give --peer-cert, --peer-key and --peer-ca, or keep everybody else away from the port"
        );
    }
}

/// What is served on the port, to those whom the flags allow it.
pub(super) fn services(
    cli: &Cli,
    view: &NodeView,
    mailbox: &Mailbox,
    peers: &Peers,
    tls: Option<&Tls>,
) -> (PeerServer<PeerService>, AdminServer<AdminService>) {
    let members = AllowedNames::of("--peer-allowed-names", &cli.peer_allowed_names);
    let admins = AllowedNames::of("--admin-allowed-names", &cli.admin_allowed_names).or(&members);
    let peer = PeerService::server(view.clone(), mailbox.clone(), peers.clone(), members);
    (peer, AdminService::server(view.clone(), mailbox.clone(), tls.cloned(), admins))
}

/// Serves `listeners`: connections come in on `ports`, and are served on the runtime of now.
pub(super) fn serve(
    listeners: Listeners,
    connections: Connections,
    tls: Option<Tls>,
    (peer, admin): (PeerServer<PeerService>, AdminServer<AdminService>),
    ports: &Handle,
) {
    let (lane, accepted) = net::lane();
    ports.spawn(connections.clone().sweep());
    ports.spawn(async move {
        if let Err(error) = net::accept(listeners, connections, vec![lane]).await {
            tracing::error!(%error, "the peer port is closed");
        }
    });
    let (ready, opened) = mpsc::channel(READY);
    ports.spawn(open(accepted, Handshakes::new("peer", tls), ready));
    tokio::spawn(take(opened, PeerPort { peer, admin, ports: ports.clone() }));
}

/// Shakes hands, each connection by itself, and passes on those that have agreed.
async fn open(
    mut accepted: mpsc::Receiver<Accepted>,
    handshakes: Handshakes,
    ready: mpsc::Sender<(Connection, Slot)>,
) {
    while let Some(accepted) = accepted.recv().await {
        let (handshakes, ready) = (handshakes.clone(), ready.clone());
        tokio::spawn(async move {
            let Some((mut connection, slot)) = handshakes.open(accepted).await else { return };
            if connection.leave().is_ok() {
                let _ = ready.send((connection, slot)).await;
            }
        });
    }
}

/// Serves what comes from [`open`] on the runtime of now.
async fn take(mut opened: mpsc::Receiver<(Connection, Slot)>, port: PeerPort) {
    let settings = Http2 {
        streams: STREAMS,
        window: WINDOW_BYTES,
        keepalive: KEEPALIVE,
        keepalive_timeout: KEEPALIVE,
        // What a member sends keeps its connection busy: for others no place is made at its cost.
        is_stream: |path| path == WATCH,
    };
    while let Some((mut connection, slot)) = opened.recv().await {
        let (port, settings) = (port.clone(), settings.clone());
        if connection.arrive().is_ok() {
            tokio::spawn(async move { http2::serve(connection, slot, &settings, port).await });
        }
    }
}

/// The services of the peer port.
#[derive(Debug, Clone)]
struct PeerPort {
    peer: PeerServer<PeerService>,
    admin: AdminServer<AdminService>,
    ports: Handle,
}

impl Service<Request<Incoming>> for PeerPort {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Incoming>) -> Self::Future {
        let path = request.uri().path();
        if path.starts_with(PEER) {
            return self.peer.call(request);
        }
        if !path.starts_with(ADMIN) {
            let what = format!("{path} is not served on the peer port");
            return Box::pin(std::future::ready(Ok(Status::unimplemented(what).into_http())));
        }
        let is_watch = path == WATCH;
        let answer = self.admin.call(request);
        let task = self.ports.spawn(async move {
            let response = answer.await?;
            if is_watch {
                return Ok(response);
            }
            // Encoded here, too: only bytes are left to be sent.
            let (parts, body) = response.into_parts();
            Ok(match body.collect().await {
                Ok(collected) => Response::from_parts(parts, Body::new(collected)),
                Err(status) => status.into_http(),
            })
        });
        Box::pin(async move {
            task.await.unwrap_or_else(|_| Ok(Status::unavailable("the node is stopping").into_http()))
        })
    }
}
