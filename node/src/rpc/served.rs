//! Requests as they come from the network, whole and not: what [`Services`] answers to bytes.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body as HttpBody, Frame};
use parking_lot::RwLock;
use proptest::prelude::*;
use prost::Message as _;
use quorate_api::etcdserverpb as pb;
use tonic::codegen::Service as _;
use tonic::{Code, Status};

use super::{PeerScheme, Services};
use crate::doors::gateway::Gateway;
use crate::doors::view::{NodeStatus, NodeView, Role};
use crate::kv::Store;

fn services() -> Services {
    let status = NodeStatus { member_id: 1, role: Role::Leader, leader: Some(1), ..NodeStatus::default() };
    let gateway = Gateway::local(Arc::new(RwLock::new(Store::new())));
    Services::new(gateway, NodeView::new(status), PeerScheme::Http, 0)
}

/// A message with gRPC's header: not compressed, and so long.
fn framed(message: &[u8]) -> Vec<u8> {
    [&[0][..], &(message.len() as u32).to_be_bytes(), message].concat()
}

async fn call<B>(services: &mut Services, path: &str, timeout: Option<&str>, body: B) -> Status
where
    B: HttpBody<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<tonic::codegen::StdError>,
{
    let mut request = http::Request::post(path).header("content-type", "application/grpc");
    if let Some(timeout) = timeout {
        request = request.header("grpc-timeout", timeout);
    }
    let response = services.call(request.body(body).unwrap()).await.unwrap();
    if let Some(status) = Status::from_header_map(response.headers()) {
        return status;
    }
    let trailers = response.into_body().collect().await.unwrap().trailers().cloned().unwrap_or_default();
    Status::from_header_map(&trailers).expect("every answer ends with a status")
}

const PUT: &str = "/etcdserverpb.KV/Put";

#[tokio::test]
async fn a_time_that_is_over_is_deadline_exceeded() {
    let put = pb::PutRequest { key: "k".into(), ..pb::PutRequest::default() };
    let body = || Full::new(Bytes::from(framed(&put.encode_to_vec())));
    let begun = Unfinished(Some(Bytes::from_static(&[0])));
    let status = call(&mut services(), PUT, Some("1m"), begun).await;
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert_eq!(call(&mut services(), PUT, Some("90S"), body()).await.code(), Code::Ok);
}

#[tokio::test]
async fn a_message_that_is_too_large_is_resource_exhausted() {
    let bytes = framed(&vec![0; (2 << 20) + 1]);
    let status = call(&mut services(), PUT, None, Full::new(Bytes::from(bytes))).await;
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert_eq!(status.message(), "grpc: received message larger than max (2097153 vs. 2097152)");
}

/// The beginning of a message, and then nothing more.
struct Unfinished(Option<Bytes>);

impl HttpBody for Unfinished {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        match self.0.take() {
            Some(bytes) => Poll::Ready(Some(Ok(Frame::data(bytes)))),
            None => Poll::Pending,
        }
    }
}

#[tokio::test]
async fn messages_that_are_not_finished_count_and_others_are_refused() {
    let put = pb::PutRequest { key: "k".into(), value: vec![0; 1024].into(), ..pb::PutRequest::default() };
    let put = Bytes::from(framed(&put.encode_to_vec()));
    let begun = Bytes::from([&[0][..], &(2_u32 << 20).to_be_bytes(), &vec![0; (2 << 20) - 5]].concat());
    // The answer of the last one is a stream: its request is not.
    for path in PATHS[..SERVED].iter().chain(&["/grpc.health.v1.Health/Watch"]) {
        let mut services = services();
        let mut waiting = Vec::new();
        for _ in 0..32 {
            let request = http::Request::post(*path).header("content-type", "application/grpc");
            let mut answer = services.call(request.body(Unfinished(Some(begun.clone()))).unwrap());
            assert!(futures::poll!(&mut answer).is_pending(), "{path} is answered");
            waiting.push(answer);
        }
        let status = call(&mut services, PUT, None, Full::new(put.clone())).await;
        let expected = (Code::ResourceExhausted, "etcdserver: too many requests");
        assert_eq!((status.code(), status.message()), expected, "behind those of {path}");
        drop(waiting);
        assert_eq!(call(&mut services, PUT, None, Full::new(put.clone())).await.code(), Code::Ok);
    }
}

/// How many of [`PATHS`] are served.
const SERVED: usize = 9;

/// Every path that is served, and some that are not.
const PATHS: [&str; 12] = [
    "/etcdserverpb.KV/Range",
    PUT,
    "/etcdserverpb.KV/DeleteRange",
    "/etcdserverpb.KV/Txn",
    "/etcdserverpb.KV/Compact",
    "/etcdserverpb.Maintenance/Status",
    "/etcdserverpb.Maintenance/Alarm",
    "/etcdserverpb.Cluster/MemberList",
    "/grpc.health.v1.Health/Check",
    "/etcdserverpb.KV/Nothing",
    "/etcdserverpb.Lock/Lock",
    "",
];

/// Bytes, and transactions, ranges and deletions whose fields are anything.
fn message() -> impl Strategy<Value = Vec<u8>> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..24);
    let range = (bytes(), bytes(), any::<[i64; 4]>(), any::<[i32; 2]>(), any::<[bool; 3]>()).prop_map(
        |(key, range_end, [limit, revision, min, max], [sort_order, sort_target], [s, k, c])| {
            pb::RangeRequest {
                key: key.into(),
                range_end: range_end.into(),
                limit,
                revision,
                sort_order,
                sort_target,
                serializable: s,
                keys_only: k,
                count_only: c,
                min_mod_revision: min,
                max_create_revision: max,
                ..pb::RangeRequest::default()
            }
        },
    );
    let nested = range.clone().prop_map(|range| {
        let op = pb::RequestOp { request: Some(pb::request_op::Request::RequestRange(range)) };
        pb::TxnRequest { success: vec![op.clone()], failure: vec![op], ..pb::TxnRequest::default() }
            .encode_to_vec()
    });
    prop_oneof![
        bytes(),
        range.prop_map(|range| range.encode_to_vec()),
        nested,
        prop::collection::vec(any::<u8>(), 0..512)
    ]
}

proptest! {
    /// A defect in a handler is a panic, and a panic ends the node: nothing that a client can send may be one.
    #[test]
    fn any_bytes_are_answered(
        requests in prop::collection::vec((0..PATHS.len(), message(), any::<bool>(), "[0-9]{0,9}[HMSmunx]?"), 1..8),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut services = services();
            for (path, message, is_framed, timeout) in requests {
                let body = if is_framed { framed(&message) } else { message };
                let path = PATHS[path];
                let path = if path.is_empty() { "/" } else { path };
                call(&mut services, path, Some(&timeout), Full::new(Bytes::from(body))).await;
            }
        });
    }
}
