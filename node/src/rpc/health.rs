//! `grpc.health.v1.Health`: whether this member can serve its clients, as its readiness says.

use std::pin::Pin;
use std::sync::Arc;

use tokio_stream::wrappers::WatchStream;
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::Health;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use super::services::SERVED;
use crate::doors::view::{NodeStatus, NodeView};

/// The health service of one client runtime. All services are healthy together.
#[derive(Debug, Clone)]
pub(super) struct HealthService {
    view: NodeView,
}

impl HealthService {
    pub(super) fn new(view: NodeView) -> Self {
        Self { view }
    }
}

#[tonic::async_trait]
impl Health for HealthService {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        if !is_known(&request.get_ref().service) {
            return Err(Status::not_found("unknown service"));
        }
        Ok(Response::new(answer(serving(&self.view.status()))))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    /// Tells the status at once and whenever it changes. A service that is unknown may yet come: the stream stays open.
    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let known = is_known(&request.get_ref().service);
        let mut told = None;
        let statuses = WatchStream::new(self.view.subscribe())
            .map(
                move |status: Arc<NodeStatus>| {
                    if known { serving(&status) } else { ServingStatus::ServiceUnknown }
                },
            )
            .filter(move |status| told.replace(*status) != Some(*status))
            .map(|status| Ok(answer(status)));
        Ok(Response::new(Box::pin(statuses)))
    }
}

fn is_known(service: &str) -> bool {
    service.is_empty() || SERVED.contains(&service)
}

fn serving(status: &NodeStatus) -> ServingStatus {
    if status.unready.is_none() { ServingStatus::Serving } else { ServingStatus::NotServing }
}

fn answer(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status as i32 }
}
