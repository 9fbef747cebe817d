//! The client port: which service answers which path.

use std::convert::Infallible;
use std::future::ready;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::task::{Context, Poll};

use hyper::body::{Body as HttpBody, Bytes};
use quorate_api::etcdserverpb::cluster_server::ClusterServer;
use quorate_api::etcdserverpb::kv_server::KvServer;
use quorate_api::etcdserverpb::maintenance_server::MaintenanceServer;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service, StdError};
use tonic_health::pb::health_server::HealthServer;

use super::arrival::{self, Arrival, Budget};
use super::cluster::ClusterService;
use super::error::{deadline_exceeded, mismatched, unimplemented};
use super::health::HealthService;
use super::kv::KvService;
use super::maintenance::MaintenanceService;
use super::member::{Member, PeerScheme};
use super::pieces;
use crate::doors::gateway::Gateway;
use crate::doors::view::NodeView;
use crate::kv::check::MAX_REQUEST_BYTES;

/// The services that answer, by name.
pub(super) const SERVED: [&str; 4] =
    ["etcdserverpb.KV", "etcdserverpb.Maintenance", "etcdserverpb.Cluster", "grpc.health.v1.Health"];

/// Bytes of a message that is received: as in etcd, somewhat more than a request may have, so that one that is a little too
/// large gets the error that says so.
pub(super) const MAX_MESSAGE_BYTES: usize = MAX_REQUEST_BYTES + 512 * 1024;

/// The most bytes of requests that are on their way in at one client runtime. Beyond that they are refused, as etcd refuses what is too much.
const MAX_ARRIVING_BYTES: usize = 64 << 20;

/// What answers may take at one client runtime at least, from the first key that is read for one until its last byte is sent.
const LEAST_ANSWERING_BYTES: usize = 64 << 20;

/// Whether the answer to this path is a stream, whose reader may be as slow as it likes: it holds a place in a history, and no answer
/// that waits for it.
pub fn is_stream(path: &str) -> bool {
    matches!(
        path,
        "/grpc.health.v1.Health/Watch"
            | "/etcdserverpb.Watch/Watch"
            | "/etcdserverpb.Lease/LeaseKeepAlive"
            | "/etcdserverpb.KV/RangeStream"
            | "/etcdserverpb.Maintenance/Snapshot"
            | "/v3electionpb.Election/Observe"
    )
}

/// All services of one client runtime, as one `tower` service that tonic's server can serve. Cheap to clone.
///
/// What is not served answers Unimplemented and names the method.
#[derive(Debug, Clone)]
pub struct Services {
    kv: KvServer<KvService>,
    maintenance: MaintenanceServer<MaintenanceService>,
    cluster: ClusterServer<ClusterService>,
    health: HealthServer<HealthService>,
    /// Bytes of requests that are on their way in.
    arriving: Budget,
    /// Of whom the key-value service speaks.
    member: Member,
}

impl Services {
    /// Services that reach the replica through `gateway` and show what `view` shows. What answers hold of the memory is bounded by
    /// `answering` bytes, or 64 MiB.
    pub fn new(gateway: Gateway, view: NodeView, peer_scheme: PeerScheme, answering: usize) -> Self {
        let answers = Budget::new(answering.max(LEAST_ANSWERING_BYTES));
        let member = Member { gateway, view: view.clone(), peer_scheme, answers };
        Self {
            kv: KvServer::new(KvService::new(member.clone())).max_decoding_message_size(MAX_MESSAGE_BYTES),
            maintenance: MaintenanceServer::new(MaintenanceService::new(member.clone())),
            cluster: ClusterServer::new(ClusterService::new(member.clone())),
            health: HealthServer::new(HealthService::new(view)),
            arriving: Budget::new(MAX_ARRIVING_BYTES),
            member,
        }
    }

    /// The same for one more connection, which has a part of its own of what requests and answers may hold.
    #[must_use]
    pub fn of_connection(&self) -> Self {
        let member = Member { answers: self.member.answers.of_connection(), ..self.member.clone() };
        Self {
            kv: KvServer::new(KvService::new(member.clone())).max_decoding_message_size(MAX_MESSAGE_BYTES),
            arriving: self.arriving.of_connection(),
            member,
            ..self.clone()
        }
    }

    /// Counts how often an answer was refused because others hold too much.
    pub fn refused_answers(&self) -> &Arc<AtomicU64> {
        self.member.answers.refused()
    }
}

impl<B> Service<http::Request<B>> for Services
where
    B: HttpBody<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<StdError>,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let path = request.uri().path();
        let timeout = arrival::timeout(request.headers());
        let service = Served::of(path);
        let unknown = service.is_none().then(|| unimplemented(path));
        let share = self.arriving.share();
        let request = request.map(|body| Arrival::new(body, share));
        let answer = match service {
            Some(Served::Kv) => self.kv.call(request),
            Some(Served::Maintenance) => self.maintenance.call(request),
            Some(Served::Cluster) => self.cluster.call(request),
            Some(Served::Health) => self.health.call(request),
            None => Box::pin(ready(Ok(unknown.unwrap_or_else(mismatched).into_http()))),
        };
        Box::pin(async move {
            let answered = match timeout {
                None => answer.await,
                Some(timeout) => match tokio::time::timeout(timeout, answer).await {
                    Ok(answered) => answered,
                    // Whether a write was done is not known: the client gave it too little time to be told.
                    Err(_) => Ok(deadline_exceeded().into_http()),
                },
            };
            answered.map(pieces::send)
        })
    }
}

/// A service that answers.
#[derive(Debug, Clone, Copy)]
enum Served {
    Kv,
    Maintenance,
    Cluster,
    Health,
}

impl Served {
    /// The service of the path `/service/method`.
    fn of(path: &str) -> Option<Self> {
        match path.trim_start_matches('/').split('/').next()? {
            "etcdserverpb.KV" => Some(Served::Kv),
            "etcdserverpb.Maintenance" => Some(Served::Maintenance),
            "etcdserverpb.Cluster" => Some(Served::Cluster),
            "grpc.health.v1.Health" => Some(Served::Health),
            _ => None,
        }
    }
}
