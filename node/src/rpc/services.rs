//! The client port: which service answers which path.

use std::convert::Infallible;
use std::future::ready;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::FutureExt as _;
use hyper::body::{Body as HttpBody, Bytes};
use quorate_api::etcdserverpb::cluster_server::ClusterServer;
use quorate_api::etcdserverpb::maintenance_server::MaintenanceServer;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service, StdError};
use tonic_health::pb::health_server::HealthServer;

use super::arrival::{self, Arrival, Budget};
use super::cluster::ClusterService;
use super::error::{deadline_exceeded, unimplemented};
use super::health::HealthService;
use super::keep_alive::KeepAlive;
use super::kv::KvService;
use super::lease::LeaseService;
use super::maintenance::MaintenanceService;
use super::member::{Member, PeerScheme};
use super::streams::Streams;
use super::unary;
use super::watch::WatchService;
use crate::doors::gateway::Gateway;
use crate::doors::members::Members;
use crate::doors::view::NodeView;
use crate::doors::watches::Watches;
use crate::kv::check::MAX_REQUEST_BYTES;

/// The services that answer, by name.
pub(super) const SERVED: [&str; 6] = [
    "etcdserverpb.KV",
    "etcdserverpb.Watch",
    "etcdserverpb.Lease",
    "etcdserverpb.Maintenance",
    "etcdserverpb.Cluster",
    "grpc.health.v1.Health",
];

/// The most streams of renewals of one client runtime: each takes some KB for as long as its client likes.
const MOST_KEEP_ALIVES: usize = 1 << 16;

/// Bytes of a message that is received: as in etcd, somewhat more than a request may have, so that one that is a little too
/// large gets the error that says so.
pub(super) const MAX_MESSAGE_BYTES: usize = MAX_REQUEST_BYTES + 512 * 1024;

/// What requests and answers may hold of the memory at one client runtime, in bytes. Beyond that they are refused, as etcd refuses what is
/// too much.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Requests that are on their way in.
    pub arriving: usize,
    /// Answers, from the first key that is read for one until its last byte is sent.
    pub answering: usize,
}

impl Bounds {
    /// Both are this much at least.
    pub const LEAST: Self = Self { arriving: 64 << 20, answering: 64 << 20 };
}

/// Whether the answer to this path is a stream, whose reader may be as slow as it likes: it holds a place in a history, and no answer
/// that waits for it.
pub fn is_stream(path: &str) -> bool {
    matches!(
        path,
        "/grpc.health.v1.Health/Watch"
            | "/etcdserverpb.Watch/Watch"
            | "/etcdserverpb.Lease/LeaseKeepAlive"
            | "/etcdserverpb.Maintenance/Snapshot"
            | "/v3electionpb.Election/Observe"
    )
}

/// All services of one client runtime, as one `tower` service that tonic's server can serve. Cheap to clone.
///
/// What is not served answers Unimplemented and names the method.
#[derive(Debug, Clone)]
pub struct Services {
    kv: Arc<KvService>,
    watch: Arc<WatchService>,
    lease: Arc<LeaseService>,
    keep_alive: Arc<KeepAlive>,
    maintenance: MaintenanceServer<MaintenanceService>,
    cluster: ClusterServer<ClusterService>,
    health: HealthServer<HealthService>,
    /// Bytes of requests that are on their way in.
    arriving: Budget,
    /// Of whom the key-value service speaks.
    member: Member,
}

impl Services {
    /// Services that reach the replica through `gateway`, change the membership through `members`, and show what `view` shows, within `bounds`. Watches that ask for it are told how far they
    /// are about every `progress`.
    pub fn new(
        gateway: Gateway,
        view: NodeView,
        members: Members,
        peer_scheme: PeerScheme,
        bounds: Bounds,
        progress: Duration,
    ) -> Self {
        let answering = bounds.answering.max(Bounds::LEAST.answering);
        let answers = Budget::new(answering);
        let arriving = Budget::new(bounds.arriving.max(Bounds::LEAST.arriving));
        let watches = Watches::new(gateway.clone(), view.clone(), progress, answering / 4);
        let member = Member { gateway, view: view.clone(), peer_scheme, members, answers };
        let (held, arrives) = (Budget::new(answering), arriving.clone());
        let watch = WatchService { member: member.clone(), watches, held, arriving: arrives.clone() };
        let streams = Streams::new(view.clone(), MOST_KEEP_ALIVES);
        let keep_alive = KeepAlive { member: member.clone(), streams, arriving: arrives };
        Self {
            kv: Arc::new(KvService::new(member.clone())),
            watch: Arc::new(watch),
            lease: Arc::new(LeaseService { member: member.clone() }),
            keep_alive: Arc::new(keep_alive),
            maintenance: MaintenanceServer::new(MaintenanceService::new(member.clone())),
            cluster: ClusterServer::new(ClusterService::new(member.clone())),
            health: HealthServer::new(HealthService::new(view)),
            arriving,
            member,
        }
    }

    /// The same for one more connection, which has a part of its own of what requests and answers may hold.
    #[must_use]
    pub fn of_connection(&self) -> Self {
        let member = Member { answers: self.member.answers.of_connection(), ..self.member.clone() };
        let arriving = self.arriving.of_connection();
        let (watches, held) = (self.watch.watches.clone(), self.watch.held.of_connection());
        let watch = WatchService { member: member.clone(), watches, held, arriving: arriving.clone() };
        let keep_alive = KeepAlive {
            member: member.clone(),
            streams: self.keep_alive.streams.of_connection(),
            arriving: arriving.clone(),
        };
        Self {
            kv: Arc::new(self.kv.of_connection(member.clone())),
            watch: Arc::new(watch),
            lease: Arc::new(LeaseService { member: member.clone() }),
            keep_alive: Arc::new(keep_alive),
            arriving,
            member,
            ..self.clone()
        }
    }

    /// The state has changed.
    #[cfg(test)]
    pub(super) fn news(&self) {
        let view = &self.member.view;
        view.publish_applied(view.applied_index() + 1, self.member.gateway.store().read().revision());
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
        let Some(service) = Served::of(path) else {
            return Box::pin(ready(Ok(unimplemented(path).into_http())));
        };
        let share = self.arriving.share();
        let one = |request: http::Request<B>| request.map(|body| Arrival::new(body, share));
        match service {
            Served::Kv(method) => method.call(Arc::clone(&self.kv), timeout, one(request)),
            Served::Lease(method) => method.call(Arc::clone(&self.lease), timeout, one(request)),
            Served::KeepAlive => Box::pin(ready(Ok(self.keep_alive.call(request)))),
            Served::Watch => Box::pin(ready(Ok(self.watch.call(request)))),
            Served::Maintenance => within(timeout, self.maintenance.call(one(request)).map(always)),
            Served::Cluster => within(timeout, self.cluster.call(one(request)).map(always)),
            Served::Health => within(timeout, self.health.call(one(request)).map(always)),
        }
    }
}

/// The answer, if it comes within the time that the client gives it.
fn within(
    timeout: Option<Duration>,
    answer: impl Future<Output = http::Response<Body>> + Send + 'static,
) -> BoxFuture<http::Response<Body>, Infallible> {
    let Some(timeout) = timeout else { return Box::pin(answer.map(Ok)) };
    // Whether a write was done is not known: the client gave it too little time to be told.
    let late = |_| deadline_exceeded().into_http();
    Box::pin(tokio::time::timeout(timeout, answer).map(move |answered| Ok(answered.unwrap_or_else(late))))
}

/// An error is an answer, too.
fn always<T>(answered: Result<T, Infallible>) -> T {
    let Ok(answer) = answered;
    answer
}

/// A service that answers.
#[derive(Debug, Clone, Copy)]
enum Served {
    Kv(KvMethod),
    Watch,
    Lease(LeaseMethod),
    KeepAlive,
    Maintenance,
    Cluster,
    Health,
}

impl Served {
    /// The service of the path `/service/method`.
    fn of(path: &str) -> Option<Self> {
        let (service, method) = path.strip_prefix('/')?.split_once('/')?;
        match service {
            "etcdserverpb.KV" => KvMethod::of(method).map(Served::Kv),
            "etcdserverpb.Watch" if method == "Watch" => Some(Served::Watch),
            "etcdserverpb.Lease" if method == "LeaseKeepAlive" => Some(Served::KeepAlive),
            "etcdserverpb.Lease" => LeaseMethod::of(method).map(Served::Lease),
            "etcdserverpb.Maintenance" => Some(Served::Maintenance),
            "etcdserverpb.Cluster" => Some(Served::Cluster),
            "grpc.health.v1.Health" => Some(Served::Health),
            _ => None,
        }
    }
}

/// A call of `etcdserverpb.KV`.
#[derive(Debug, Clone, Copy)]
enum KvMethod {
    Range,
    RangeStream,
    Put,
    DeleteRange,
    Txn,
    Compact,
}

impl KvMethod {
    fn of(name: &str) -> Option<Self> {
        Some(match name {
            "Range" => Self::Range,
            "RangeStream" => Self::RangeStream,
            "Put" => Self::Put,
            "DeleteRange" => Self::DeleteRange,
            "Txn" => Self::Txn,
            "Compact" => Self::Compact,
            _ => return None,
        })
    }

    fn call<B>(
        self,
        kv: Arc<KvService>,
        timeout: Option<Duration>,
        request: http::Request<B>,
    ) -> BoxFuture<http::Response<Body>, Infallible>
    where
        B: HttpBody<Data = Bytes, Error = Status> + Send + 'static,
    {
        match self {
            Self::Range => {
                within(timeout, unary::call(request, move |asked| async move { kv.range(asked).await }))
            }
            Self::RangeStream => within(
                timeout,
                unary::stream(request, move |asked| async move { kv.range_stream(asked).await }),
            ),
            Self::Put => {
                within(timeout, unary::call(request, move |asked| async move { kv.put(asked).await }))
            }
            Self::DeleteRange => within(
                timeout,
                unary::call(request, move |asked| async move { kv.delete_range(asked).await }),
            ),
            Self::Txn => {
                within(timeout, unary::call(request, move |asked| async move { kv.txn(asked).await }))
            }
            Self::Compact => {
                within(timeout, unary::call(request, move |asked| async move { kv.compact(asked).await }))
            }
        }
    }
}

/// A unary call of `etcdserverpb.Lease`.
#[derive(Debug, Clone, Copy)]
enum LeaseMethod {
    Grant,
    Revoke,
    TimeToLive,
    Leases,
}

impl LeaseMethod {
    fn of(name: &str) -> Option<Self> {
        Some(match name {
            "LeaseGrant" => Self::Grant,
            "LeaseRevoke" => Self::Revoke,
            "LeaseTimeToLive" => Self::TimeToLive,
            "LeaseLeases" => Self::Leases,
            _ => return None,
        })
    }

    fn call<B>(
        self,
        lease: Arc<LeaseService>,
        timeout: Option<Duration>,
        request: http::Request<B>,
    ) -> BoxFuture<http::Response<Body>, Infallible>
    where
        B: HttpBody<Data = Bytes, Error = Status> + Send + 'static,
    {
        match self {
            Self::Grant => {
                within(timeout, unary::call(request, move |asked| async move { lease.grant(asked).await }))
            }
            Self::Revoke => {
                within(timeout, unary::call(request, move |asked| async move { lease.revoke(asked).await }))
            }
            Self::TimeToLive => within(
                timeout,
                unary::call(request, move |asked| async move { lease.time_to_live(asked).await }),
            ),
            Self::Leases => {
                within(timeout, unary::call(request, move |asked| async move { lease.leases(asked).await }))
            }
        }
    }
}
