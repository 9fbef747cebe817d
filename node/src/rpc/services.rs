//! The client port: which service answers which path.

use std::convert::Infallible;
use std::future::ready;
use std::task::{Context, Poll};

use quorate_api::etcdserverpb::cluster_server::ClusterServer;
use quorate_api::etcdserverpb::kv_server::KvServer;
use quorate_api::etcdserverpb::maintenance_server::MaintenanceServer;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service};
use tonic_health::pb::health_server::HealthServer;

use super::cluster::ClusterService;
use super::error::unimplemented;
use super::health::HealthService;
use super::kv::KvService;
use super::maintenance::MaintenanceService;
use super::member::{Member, PeerScheme};
use crate::doors::gateway::Gateway;
use crate::doors::view::NodeView;
use crate::kv::check::MAX_REQUEST_BYTES;

/// The services that answer, by name.
pub(super) const SERVED: [&str; 4] =
    ["etcdserverpb.KV", "etcdserverpb.Maintenance", "etcdserverpb.Cluster", "grpc.health.v1.Health"];

/// Bytes of a message that is received: as in etcd, somewhat more than a request may have, so that one that is a little too
/// large gets the error that says so.
const MAX_MESSAGE_BYTES: usize = MAX_REQUEST_BYTES + 512 * 1024;

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
}

impl Services {
    /// Services that reach the replica through `gateway` and show what `view` shows.
    pub fn new(gateway: Gateway, view: NodeView, peer_scheme: PeerScheme) -> Self {
        let member = Member { gateway, view: view.clone(), peer_scheme };
        Self {
            kv: KvServer::new(KvService::new(member.clone())).max_decoding_message_size(MAX_MESSAGE_BYTES),
            maintenance: MaintenanceServer::new(MaintenanceService::new(member.clone())),
            cluster: ClusterServer::new(ClusterService::new(member)),
            health: HealthServer::new(HealthService::new(view)),
        }
    }
}

impl Service<http::Request<Body>> for Services {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let service = request.uri().path().trim_start_matches('/').split('/').next();
        match service {
            Some("etcdserverpb.KV") => self.kv.call(request),
            Some("etcdserverpb.Maintenance") => self.maintenance.call(request),
            Some("etcdserverpb.Cluster") => self.cluster.call(request),
            Some("grpc.health.v1.Health") => self.health.call(request),
            _ => Box::pin(ready(Ok(unimplemented(request.uri().path()).into_http()))),
        }
    }
}
