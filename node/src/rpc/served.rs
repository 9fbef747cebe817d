//! Requests as they come from the network, whole and not: what [`Services`] answers to bytes.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body as HttpBody, Frame};
use parking_lot::RwLock;
use proptest::prelude::*;
use prost::Message as _;
use quorate_api::etcdserverpb as pb;
use tonic::body::Body;
use tonic::codegen::Service as _;
use tonic::{Code, Status};

use super::{Bounds, PeerScheme, Services};
use crate::doors::gateway::Gateway;
use crate::doors::members::members;
use crate::doors::view::{NodeStatus, NodeView, Role};
use crate::kv::Store;

fn services() -> Services {
    let status = NodeStatus { member_id: 1, role: Role::Leader, leader: Some(1), ..NodeStatus::default() };
    let gateway = Gateway::local(Arc::new(RwLock::new(Store::new())));
    Services::new(
        gateway,
        NodeView::new(status),
        members().0,
        PeerScheme::Http,
        Bounds::LEAST,
        Duration::from_mins(10),
    )
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
    if path == WATCH {
        return watched(response.into_body()).await;
    }
    let trailers = response.into_body().collect().await.unwrap().trailers().cloned().unwrap_or_default();
    Status::from_header_map(&trailers).expect("every answer ends with a status")
}

/// What a call tells that goes on: some of it. Its status, if it ends.
async fn watched(mut body: Body) -> Status {
    for _ in 0..20 {
        if let Poll::Ready(Some(frame)) = futures::poll!(body.frame())
            && let Ok(trailers) = frame.unwrap().into_trailers()
        {
            return Status::from_header_map(&trailers).expect("every answer ends with a status");
        }
        tokio::task::yield_now().await;
    }
    Status::ok("it goes on")
}

const WATCH: &str = "/etcdserverpb.Watch/Watch";
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
async fn changes_that_are_not_read_count_and_more_are_refused() {
    let mut services = services();
    let create = pb::WatchCreateRequest { key: "k".into(), ..pb::WatchCreateRequest::default() };
    let create =
        pb::WatchRequest { request_union: Some(pb::watch_request::RequestUnion::CreateRequest(create)) };
    let mut streams = Vec::new();
    for _ in 0..80 {
        let body = Unfinished(Some(Bytes::from(framed(&create.encode_to_vec()))));
        let request = http::Request::post(WATCH).body(body).unwrap();
        let mut body = services.call(request).await.unwrap().into_body();
        assert!(body.frame().await.is_some(), "it begins");
        streams.push(body);
    }
    let put = pb::PutRequest { key: "k".into(), value: vec![0; 1 << 20].into(), ..pb::PutRequest::default() };
    let put = Full::new(Bytes::from(framed(&put.encode_to_vec())));
    assert_eq!(call(&mut services, PUT, None, put).await.code(), Code::Ok);
    // No applier tells of it here.
    services.news();
    let (mut held, mut refused) = (Vec::new(), 0);
    for body in &mut streams {
        loop {
            let frame = body.frame().await.unwrap().unwrap();
            match frame.into_data() {
                Ok(data) if data.len() < 1 << 20 => {}
                Ok(data) => break held.push(data),
                Err(frame) => {
                    let status = Status::from_header_map(&frame.into_trailers().unwrap()).unwrap();
                    assert_eq!(status.message(), "etcdserver: too many requests");
                    break refused += 1;
                }
            }
        }
    }
    assert!((60..64).contains(&held.len()) && refused > 0, "{} of 64 MiB, {refused} refused", held.len());
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
const PATHS: [&str; 19] = [
    "/etcdserverpb.KV/Range",
    PUT,
    "/etcdserverpb.KV/DeleteRange",
    "/etcdserverpb.KV/Txn",
    "/etcdserverpb.KV/Compact",
    "/etcdserverpb.Maintenance/Status",
    "/etcdserverpb.Maintenance/Alarm",
    "/etcdserverpb.Cluster/MemberList",
    "/grpc.health.v1.Health/Check",
    "/etcdserverpb.Maintenance/Defragment",
    "/etcdserverpb.Maintenance/Hash",
    "/etcdserverpb.Maintenance/HashKV",
    "/etcdserverpb.Maintenance/MoveLeader",
    "/etcdserverpb.Maintenance/Snapshot",
    "/etcdserverpb.Maintenance/Downgrade",
    "/etcdserverpb.Cluster/MemberAdd",
    WATCH,
    "/etcdserverpb.KV/Nothing",
    "",
];

fn bytes() -> impl Strategy<Value = Bytes> {
    // Few keys, so that requests meet what others have left.
    prop_oneof![
        prop::collection::vec(0..3_u8, 0..3).prop_map(Bytes::from),
        prop::collection::vec(any::<u8>(), 0..24).prop_map(Bytes::from)
    ]
}

/// A revision or a number: any, or one that may be there.
fn number() -> impl Strategy<Value = i64> {
    prop_oneof![any::<i64>(), -1..12_i64]
}

/// A range whose fields are anything.
fn range() -> impl Strategy<Value = pb::RangeRequest> {
    let fields =
        (bytes(), bytes(), number(), number(), any::<[i64; 4]>(), any::<[i32; 2]>(), any::<[bool; 3]>());
    fields.prop_map(
        |(key, range_end, limit, revision, [a, b, c, d], [sort_order, sort_target], [s, k, o])| {
            pb::RangeRequest {
                key,
                range_end,
                limit,
                revision,
                // Seldom: almost nothing passes these.
                min_mod_revision: if a > 0 { 0 } else { b },
                max_create_revision: if c > 0 { 0 } else { d },
                sort_order: sort_order % 4,
                sort_target: sort_target % 6,
                serializable: s,
                keys_only: k,
                count_only: o,
                ..pb::RangeRequest::default()
            }
        },
    )
}

fn put() -> impl Strategy<Value = pb::PutRequest> {
    (bytes(), bytes(), number(), any::<[bool; 3]>()).prop_map(
        |(key, value, lease, [prev_kv, ignore_value, ignore_lease])| pb::PutRequest {
            key,
            value,
            lease: if lease > 0 { 0 } else { lease },
            prev_kv,
            ignore_value,
            ignore_lease,
        },
    )
}

fn deletion() -> impl Strategy<Value = pb::DeleteRangeRequest> {
    (bytes(), bytes(), any::<bool>()).prop_map(|(key, range_end, prev_kv)| pb::DeleteRangeRequest {
        key,
        range_end,
        prev_kv,
    })
}

fn compare() -> impl Strategy<Value = pb::Compare> {
    use pb::compare::TargetUnion;
    let operand = prop_oneof![
        number().prop_map(TargetUnion::Version),
        number().prop_map(TargetUnion::CreateRevision),
        number().prop_map(TargetUnion::ModRevision),
        bytes().prop_map(TargetUnion::Value),
        number().prop_map(TargetUnion::Lease)
    ];
    (bytes(), bytes(), any::<[i32; 2]>(), prop::option::of(operand)).prop_map(
        |(key, range_end, [result, target], target_union)| pb::Compare {
            key,
            range_end,
            result: result % 5,
            target: target % 6,
            target_union,
        },
    )
}

/// Transactions within transactions, with and without operations.
fn txn() -> impl Strategy<Value = pb::TxnRequest> {
    use pb::request_op::Request;
    let leaf = prop_oneof![
        range().prop_map(Request::RequestRange),
        put().prop_map(Request::RequestPut),
        deletion().prop_map(Request::RequestDeleteRange)
    ];
    let operation = leaf.prop_recursive(3, 12, 3, |inner| {
        let branch = || {
            let request = prop::option::weighted(0.9, inner.clone());
            prop::collection::vec(request.prop_map(|request| pb::RequestOp { request }), 0..3)
        };
        (prop::collection::vec(compare(), 0..3), branch(), branch()).prop_map(
            |(compare, success, failure)| Request::RequestTxn(pb::TxnRequest { compare, success, failure }),
        )
    });
    let branch = move || {
        prop::collection::vec(
            operation.clone().prop_map(|request| pb::RequestOp { request: Some(request) }),
            0..4,
        )
    };
    (prop::collection::vec(compare(), 0..3), branch(), branch())
        .prop_map(|(compare, success, failure)| pb::TxnRequest { compare, success, failure })
}

/// A request to begin a watch, or to end one.
fn watches() -> impl Strategy<Value = pb::WatchRequest> {
    use pb::watch_request::RequestUnion;
    let create =
        (bytes(), bytes(), number(), number(), any::<[bool; 3]>(), prop::collection::vec(0..3, 0..3));
    let create = create.prop_map(
        |(key, range_end, start_revision, watch_id, [progress_notify, prev_kv, fragment], filters)| {
            let create = pb::WatchCreateRequest {
                key,
                range_end,
                start_revision,
                progress_notify,
                filters,
                prev_kv,
                watch_id,
                fragment,
            };
            RequestUnion::CreateRequest(create)
        },
    );
    let cancel =
        number().prop_map(|watch_id| RequestUnion::CancelRequest(pb::WatchCancelRequest { watch_id }));
    let progress = Just(RequestUnion::ProgressRequest(pb::WatchProgressRequest {}));
    let request = prop::option::weighted(0.9, prop_oneof![4 => create, 1 => cancel, 1 => progress]);
    request.prop_map(|request_union| pb::WatchRequest { request_union })
}

/// A path, and a message: one that belongs there, with anything in its fields, or any bytes.
fn request() -> impl Strategy<Value = (usize, Vec<u8>)> {
    let compaction = (number(), any::<bool>())
        .prop_map(|(revision, physical)| pb::CompactionRequest { revision, physical });
    let alarm = (any::<[i32; 2]>(), 0..3_u64).prop_map(|([action, alarm], member_id)| pb::AlarmRequest {
        action: action % 4,
        member_id,
        alarm: alarm % 4,
    });
    let watch = watches()
        .prop_map(|request| (PATHS.iter().position(|path| *path == WATCH).unwrap(), request.encode_to_vec()));
    prop_oneof![
        watch,
        range().prop_map(|request| (0, request.encode_to_vec())),
        put().prop_map(|request| (1, request.encode_to_vec())),
        deletion().prop_map(|request| (2, request.encode_to_vec())),
        txn().prop_map(|request| (3, request.encode_to_vec())),
        compaction.prop_map(|request| (4, request.encode_to_vec())),
        alarm.prop_map(|request| (6, request.encode_to_vec())),
        (0..PATHS.len(), prop::collection::vec(any::<u8>(), 0..512))
    ]
}

proptest! {
    /// A defect in a handler is a panic, and a panic ends the node: nothing that a client can send may be one.
    #[test]
    fn any_bytes_are_answered(
        requests in prop::collection::vec((request(), any::<bool>(), "([0-9]{0,9}[HMSmunx]?)|9H"), 1..12),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut services = services();
            for ((path, message), is_whole, timeout) in requests {
                let body = if is_whole { framed(&message) } else { message };
                let path = PATHS[path];
                let path = if path.is_empty() { "/" } else { path };
                call(&mut services, path, Some(&timeout), Full::new(Bytes::from(body))).await;
            }
        });
    }
}
