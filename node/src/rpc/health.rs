//! `grpc.health.v1.Health`: whether this member can serve its clients, as its readiness says.

use std::pin::Pin;
use std::sync::Arc;

use futures::Stream;
use tokio::sync::watch;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::Health;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use super::services::SERVED;
use crate::doors::view::{NodeStatus, NodeView, Unready};

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
        let watch = Watch { changes: self.view.subscribe(), known, told: None, ended: false };
        let statuses = futures::stream::unfold(watch, |mut watch| async move {
            let status = watch.next().await?;
            Some((Ok(answer(status)), watch))
        });
        Ok(Response::new(Box::pin(statuses)))
    }
}

/// One stream of statuses.
struct Watch {
    changes: watch::Receiver<Arc<NodeStatus>>,
    known: bool,
    told: Option<ServingStatus>,
    ended: bool,
}

impl Watch {
    /// The next status that differs. The last is that the node stops: a stream that stayed open would hold that up.
    async fn next(&mut self) -> Option<ServingStatus> {
        while !self.ended {
            let (status, stopping) = {
                let node = self.changes.borrow_and_update();
                let status = if self.known { serving(&node) } else { ServingStatus::ServiceUnknown };
                (status, node.unready == Some(Unready::Stopping))
            };
            self.ended = stopping;
            if self.told.replace(status) != Some(status) {
                return Some(status);
            }
            if !stopping {
                self.changes.changed().await.ok()?;
            }
        }
        None
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
