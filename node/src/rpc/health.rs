//! `grpc.health.v1.Health`: whether this member can serve its clients, as its readiness says.

use std::pin::Pin;

use futures::Stream;
use tokio::sync::watch;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::Health;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use super::arrival::Share;
use super::services::SERVED;
use super::streams::{Standing, Streams};
use crate::doors::view::NodeView;

/// The most streams of one client runtime: each takes some KB for as long as its client likes.
const MOST_STREAMS: usize = 4096;

/// The health service of one client runtime. All services are healthy together.
#[derive(Debug, Clone)]
pub(super) struct HealthService {
    streams: Streams,
}

impl HealthService {
    pub(super) fn new(view: NodeView) -> Self {
        Self { streams: Streams::new(view, MOST_STREAMS) }
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
        Ok(Response::new(answer(serving(self.streams.now().serves))))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    /// Tells the status at once and whenever it changes. A service that is unknown may yet come: the stream stays open.
    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let place = self.streams.place()?;
        let known = is_known(&request.get_ref().service);
        let watch = Watch { changes: self.streams.listen(), known, told: None, ended: false, _place: place };
        let statuses = futures::stream::unfold(watch, |mut watch| async move {
            let status = watch.next().await?;
            Some((Ok(answer(status)), watch))
        });
        Ok(Response::new(Box::pin(statuses)))
    }
}

/// One stream of statuses.
struct Watch {
    changes: watch::Receiver<Standing>,
    known: bool,
    told: Option<ServingStatus>,
    ended: bool,
    _place: Share,
}

impl Watch {
    /// The next status that differs. The last is that the node stops: a stream that stayed open would hold that up.
    async fn next(&mut self) -> Option<ServingStatus> {
        while !self.ended {
            let Standing { serves, stops, .. } = *self.changes.borrow_and_update();
            let status = if self.known { serving(serves) } else { ServingStatus::ServiceUnknown };
            self.ended = stops;
            if self.told.replace(status) != Some(status) {
                return Some(status);
            }
            if !stops {
                self.changes.changed().await.ok()?;
            }
        }
        None
    }
}

fn is_known(service: &str) -> bool {
    service.is_empty() || SERVED.contains(&service)
}

fn serving(serves: bool) -> ServingStatus {
    if serves { ServingStatus::Serving } else { ServingStatus::NotServing }
}

fn answer(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status as i32 }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt as _;

    use super::*;
    use crate::doors::view::{NodeStatus, Unready};

    #[tokio::test]
    async fn many_streams_listen_to_the_loop_as_one_and_have_a_bound() {
        let view = NodeView::new(NodeStatus { unready: Some(Unready::NoLeader), ..NodeStatus::default() });
        let before = view.receivers();
        let service = HealthService::new(view.clone());
        let watch = || service.watch(Request::new(HealthCheckRequest { service: String::new() }));
        let mut streams = Vec::new();
        for _ in 0..MOST_STREAMS {
            streams.push(watch().await.unwrap().into_inner());
        }
        assert_eq!(view.receivers(), before + 1);
        let refused = watch().await.map(drop).unwrap_err();
        assert_eq!(refused.message(), "etcdserver: too many requests");
        for status in [ServingStatus::NotServing, ServingStatus::Serving] {
            for stream in &mut streams {
                assert_eq!(stream.next().await.unwrap().unwrap(), answer(status));
            }
            view.publish(NodeStatus::default());
        }
        streams.pop();
        watch().await.unwrap();
    }
}
