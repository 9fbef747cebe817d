//! What clients see of the services: headers, errors, and what is not served.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::RwLock;
use quorate_api::etcdserverpb as pb;
use quorate_api::etcdserverpb::alarm_request::AlarmAction;
use quorate_api::etcdserverpb::cluster_server::Cluster;
use quorate_api::etcdserverpb::maintenance_server::Maintenance;
use quorate_api::etcdserverpb::request_op::Request as Op;
use quorate_api::log;
use tokio_stream::StreamExt;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::{Code, Request, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::Health;

use super::arrival::Budget;
use super::cluster::ClusterService;
use super::health::HealthService;
use super::kv::KvService;
use super::maintenance::MaintenanceService;
use super::member::{Member, PeerScheme};
use super::services::{Bounds, Services};
use crate::doors::gateway::Gateway;
use crate::doors::members::members;
use crate::doors::view::{ConfigurationView, NodeStatus, NodeView, Role, Unready};
use crate::kv::Store;
use crate::kv::check::MAX_REQUEST_BYTES;

const LEADER: u64 = 1;
const LEARNER: u64 = 2;

/// What a member of a cluster of a leader and a learner knows.
fn status(member_id: u64) -> NodeStatus {
    let member = |id, name: &str| log::Member {
        id,
        name: name.to_owned(),
        peer_address: format!("{name}.example:2380"),
        client_urls: vec![format!("http://{name}.example:2379")],
        ..log::Member::default()
    };
    let configuration = log::Configuration {
        voters: vec![LEADER],
        learners: vec![LEARNER],
        members: vec![member(LEADER, "one"), member(LEARNER, "two")],
        ..log::Configuration::default()
    };
    NodeStatus {
        cluster_id: 77,
        member_id,
        term: 5,
        leader: Some(LEADER),
        role: if member_id == LEADER { Role::Leader } else { Role::Learner },
        configuration: Some(ConfigurationView { configuration, ..ConfigurationView::default() }),
        ..NodeStatus::default()
    }
}

fn member_with(status: NodeStatus) -> Member {
    let gateway = Gateway::local(Arc::new(RwLock::new(Store::new())));
    Member {
        gateway,
        view: NodeView::new(status),
        peer_scheme: PeerScheme::Https,
        members: members().0,
        answers: Budget::new(1 << 20),
    }
}

fn put(key: &'static str, value: impl Into<Bytes>) -> Request<pb::PutRequest> {
    Request::new(pb::PutRequest { key: key.into(), value: value.into(), ..pb::PutRequest::default() })
}

fn get(key: &'static str, serializable: bool) -> Request<pb::RangeRequest> {
    Request::new(pb::RangeRequest { key: key.into(), serializable, ..pb::RangeRequest::default() })
}

fn code_and_text(status: &Status) -> (Code, &str) {
    (status.code(), status.message())
}

#[tokio::test]
async fn answers_carry_the_whole_header() {
    let kv = KvService::new(member_with(status(LEADER)));
    let written = kv.put(put("k", "v")).await.expect("a plain put").into_inner();
    let header = pb::ResponseHeader { cluster_id: 77, member_id: LEADER, revision: 2, raft_term: 5 };
    assert_eq!(written.header, Some(header));
    let read = kv.range(get("k", false)).await.expect("a plain range").into_inner();
    assert_eq!((read.header, read.kvs.len()), (Some(header), 1));
}

#[tokio::test]
async fn transactions_read_and_write() {
    let kv = KvService::new(member_with(status(LEADER)));
    let operation = |request| pb::RequestOp { request: Some(request) };
    let writing = pb::TxnRequest {
        success: vec![
            operation(Op::RequestPut(put("k", "v").into_inner())),
            operation(Op::RequestRange(get("k", false).into_inner())),
        ],
        ..pb::TxnRequest::default()
    };
    let written = kv.txn(Request::new(writing)).await.expect("a plain transaction").into_inner();
    assert_eq!(written.header.map(|header| header.revision), Some(2));
    let reading = pb::TxnRequest {
        success: vec![operation(Op::RequestRange(get("k", false).into_inner()))],
        ..pb::TxnRequest::default()
    };
    let read = kv.txn(Request::new(reading)).await.expect("a plain transaction").into_inner();
    assert_eq!((read.header, read.succeeded), (written.header, true));
    assert_eq!(read.responses, written.responses[1..]);
}

/// A member whose state has so many keys, from the first on.
fn member_with_keys(keys: usize) -> Member {
    let store = Arc::new(RwLock::new(Store::new()));
    for number in 0..keys {
        let key = Bytes::from(format!("key{number:05}"));
        let put = pb::PutRequest { key, ..pb::PutRequest::default() };
        store.write().apply(&log::command::Operation::Put(put)).expect("a plain put");
    }
    Member {
        gateway: Gateway::local(store),
        view: NodeView::new(status(LEADER)),
        peer_scheme: PeerScheme::Http,
        members: members().0,
        answers: Budget::new(1 << 20),
    }
}

/// What it reads is read after it was applied, at its own point of the history, whatever is written and compacted meanwhile.
#[tokio::test]
async fn transaction_that_writes_is_answered_from_its_own_point() {
    use quorate_api::etcdserverpb::response_op::Response as Answer;
    let kv = KvService::new(member_with_keys(600));
    let operation = |request| pb::RequestOp { request: Some(request) };
    let all = pb::RangeRequest { range_end: Bytes::from_static(b"\0"), ..get("k", false).into_inner() };
    let (key, range_end) = (all.key.clone(), all.range_end.clone());
    let deletion = pb::DeleteRangeRequest { key, range_end, prev_kv: true };
    let request = pb::TxnRequest {
        success: vec![
            operation(Op::RequestRange(all.clone())),
            operation(Op::RequestDeleteRange(deletion)),
            operation(Op::RequestRange(all)),
        ],
        ..pb::TxnRequest::default()
    };
    let later = async {
        kv.put(put("key00001", "new")).await.expect("a plain put");
        kv.compact(Request::new(pb::CompactionRequest { revision: 603, physical: false })).await
    };
    let (answer, compacted) = tokio::join!(kv.txn(Request::new(request)), later);
    compacted.expect("a revision that exists");
    let counts = answer.expect("a plain transaction").into_inner().responses.into_iter();
    let counts = counts.map(|operation| match operation.response {
        Some(Answer::ResponseRange(range)) => (range.count, range.kvs.len()),
        Some(Answer::ResponseDeleteRange(deleted)) => (deleted.deleted, deleted.prev_kvs.len()),
        other => panic!("not asked for: {other:?}"),
    });
    assert_eq!(counts.collect::<Vec<_>>(), [(600, 600), (600, 600), (0, 0)]);
}

#[tokio::test]
async fn long_ranges_are_read_whole() {
    let keys = 1_100;
    let member = member_with_keys(1_100);
    let all = pb::RangeRequest {
        range_end: Bytes::from_static(b"\0"),
        serializable: true,
        ..get("k", true).into_inner()
    };
    let read = KvService::new(member).range(Request::new(all)).await.expect("a plain range").into_inner();
    assert_eq!((read.count, read.kvs.len(), read.more), (keys, 1_100, false));
    assert!(read.kvs.is_sorted_by(|a, b| a.key < b.key));
}

#[tokio::test]
async fn long_answers_are_sorted_beside_the_other_clients() {
    let kv = KvService::new(member_with_keys(1_100));
    let newest_first = pb::RangeRequest {
        range_end: Bytes::from_static(b"\0"),
        sort_order: pb::range_request::SortOrder::Descend as i32,
        sort_target: pb::range_request::SortTarget::Mod as i32,
        ..get("k", true).into_inner()
    };
    let read = kv.range(Request::new(newest_first)).await.expect("a plain range").into_inner();
    assert_eq!(read.kvs.len(), 1_100);
    assert!(read.kvs.is_sorted_by(|a, b| a.mod_revision > b.mod_revision));
}

#[tokio::test]
async fn errors_have_etcds_code_and_text() {
    let kv = KvService::new(member_with(status(LEADER)));
    let empty = kv.put(put("", "")).await.expect_err("no key");
    assert_eq!(code_and_text(&empty), (Code::InvalidArgument, "etcdserver: key is not provided"));
    let large = kv.put(put("k", vec![0; MAX_REQUEST_BYTES])).await.expect_err("too large");
    assert_eq!(code_and_text(&large), (Code::InvalidArgument, "etcdserver: request is too large"));
    let leased = pb::PutRequest { lease: 9, ..put("k", "").into_inner() };
    let leased = kv.put(Request::new(leased)).await.expect_err("no such lease");
    assert_eq!(code_and_text(&leased), (Code::NotFound, "etcdserver: requested lease not found"));
    let future = pb::RangeRequest { revision: 9, ..get("k", true).into_inner() };
    let future = kv.range(Request::new(future)).await.expect_err("a revision to come");
    let text = "etcdserver: mvcc: required revision is a future revision";
    assert_eq!(code_and_text(&future), (Code::OutOfRange, text));
}

#[tokio::test]
async fn compaction_is_served_and_waits_for_the_removal_if_asked_to() {
    let member = member_with(status(LEADER));
    let kv = KvService::new(member.clone());
    for number in 0..1_000 {
        kv.put(put("k", format!("{number}"))).await.expect("a plain put");
    }
    let compact = |revision, physical| kv.compact(Request::new(pb::CompactionRequest { revision, physical }));
    let size = || member.gateway.store().read().size();
    let before = size();
    let answer = compact(500, false).await.expect("a revision that exists").into_inner();
    let header = pb::ResponseHeader { cluster_id: 77, member_id: LEADER, revision: 1001, raft_term: 5 };
    assert_eq!((answer.header, size()), (Some(header), before), "it takes effect, and removes nothing yet");
    compact(1_000, true).await.expect("a revision that exists");
    assert!(size() < before / 10, "{} of {before} bytes are left", size());

    let again = compact(1_000, false).await.expect_err("it was compacted");
    let text = "etcdserver: mvcc: required revision has been compacted";
    assert_eq!(code_and_text(&again), (Code::OutOfRange, text));
    let future = compact(2_000, true).await.expect_err("a revision to come");
    let text = "etcdserver: mvcc: required revision is a future revision";
    assert_eq!(code_and_text(&future), (Code::OutOfRange, text));
    let learner = KvService::new(member_with(status(LEARNER)));
    let refused =
        learner.compact(Request::new(pb::CompactionRequest::default())).await.expect_err("a learner");
    assert_eq!(refused.code(), Code::FailedPrecondition);
}

#[tokio::test]
async fn who_requires_a_leader_does_not_wait_for_one() {
    let kv = KvService::new(member_with(NodeStatus { leader: None, ..status(LEADER) }));
    let requiring = |value: &'static str| {
        let mut request = get("k", true);
        request.metadata_mut().insert("hasleader", value.parse().expect("metadata"));
        request
    };
    let refused = kv.range(requiring("true")).await.expect_err("there is no leader");
    assert_eq!(code_and_text(&refused), (Code::Unavailable, "etcdserver: no leader"));
    kv.range(requiring("false")).await.expect("no leader is needed");
}

#[tokio::test]
async fn learners_answer_only_what_does_not_need_the_cluster() {
    let member = member_with(status(LEARNER));
    let kv = KvService::new(member.clone());
    let text = "etcdserver: rpc not supported for learner";
    let refused = [
        kv.range(get("k", false)).await.map(drop),
        kv.put(put("k", "")).await.map(drop),
        kv.txn(Request::new(pb::TxnRequest::default())).await.map(drop),
        kv.delete_range(Request::new(pb::DeleteRangeRequest::default())).await.map(drop),
        ClusterService::new(member.clone())
            .member_list(Request::new(pb::MemberListRequest::default()))
            .await
            .map(drop),
    ];
    for refused in refused {
        assert_eq!(code_and_text(&refused.expect_err("a learner")), (Code::FailedPrecondition, text));
    }
    kv.range(get("k", true)).await.expect("serializable");
    let status = MaintenanceService::new(member).status(Request::new(pb::StatusRequest {})).await;
    assert!(status.expect("always answered").into_inner().is_learner);
}

/// Its state is no cluster's: an empty answer would say that keys do not exist.
#[tokio::test]
async fn who_is_no_member_answers_no_reads() {
    for role in [Role::Waiting, Role::Removed] {
        let kv = KvService::new(member_with(NodeStatus { role, ..status(LEADER) }));
        let refused = kv.range(get("k", true)).await.expect_err("no member");
        assert_eq!(code_and_text(&refused), (Code::Unavailable, "etcdserver: no leader"));
    }
}

#[tokio::test]
async fn status_tells_what_clients_look_for() {
    let member = member_with(NodeStatus { leader: None, ..status(LEADER) });
    member.view.publish_log(quorate_raft::LogId { term: 1, index: 12 }, 11);
    member.view.publish_applied(10, 1);
    let status = MaintenanceService::new(member).status(Request::new(pb::StatusRequest {})).await;
    let status = status.expect("always answered").into_inner();
    assert_eq!((status.raft_index, status.raft_applied_index, status.raft_term), (11, 10, 5));
    assert_eq!((status.leader, status.errors), (0, vec!["etcdserver: no leader".to_owned()]));
    assert!(status.db_size > 0, "etcdctl divides by it");
    let version: Vec<u32> = status.version.split('.').map(|part| part.parse().expect("a number")).collect();
    assert!(
        version >= vec![3, 5, 13],
        "below, kube-apiserver does not ask for progress of watches: {version:?}"
    );
}

#[tokio::test]
async fn alarms_are_raised_and_asked_for() {
    let maintenance = MaintenanceService::new(member_with(status(LEADER)));
    let alarm = |action: AlarmAction| {
        Request::new(pb::AlarmRequest {
            action: action as i32,
            member_id: LEARNER,
            alarm: pb::AlarmType::Nospace as i32,
        })
    };
    let told = maintenance.alarm(alarm(AlarmAction::Get)).await.expect("asking is served").into_inner();
    assert_eq!((told.header.map(|header| header.revision), told.alarms), (Some(1), Vec::new()));
    let set = maintenance.alarm(alarm(AlarmAction::Activate)).await.expect("so is raising").into_inner();
    let told = maintenance.alarm(alarm(AlarmAction::Get)).await.expect("asking is served").into_inner();
    assert_eq!((set.alarms.len(), &set.alarms), (1, &told.alarms));
    maintenance.alarm(alarm(AlarmAction::Deactivate)).await.expect("so is disarming");
    let told = maintenance.alarm(alarm(AlarmAction::Get)).await.expect("asking is served").into_inner();
    assert_eq!(told.alarms, []);
}

#[tokio::test]
async fn an_alarm_of_no_member_is_not_raised_and_can_be_disarmed() {
    let maintenance = MaintenanceService::new(member_with(status(LEADER)));
    let alarm = |action: AlarmAction| {
        let (action, alarm) = (action as i32, pb::AlarmType::Corrupt as i32);
        Request::new(pb::AlarmRequest { action, member_id: 99, alarm })
    };
    let refused = maintenance.alarm(alarm(AlarmAction::Activate)).await.expect_err("there is no such member");
    assert_eq!(code_and_text(&refused), (Code::NotFound, "etcdserver: member not found"));
    maintenance.alarm(alarm(AlarmAction::Deactivate)).await.expect("it may have been removed");
}

#[tokio::test]
async fn the_members_are_listed_without_a_revision() {
    let cluster = ClusterService::new(member_with(status(LEADER)));
    let request = Request::new(pb::MemberListRequest { linearizable: true });
    let list = cluster.member_list(request).await.expect("a plain list").into_inner();
    assert_eq!(list.header.map(|header| (header.cluster_id, header.revision)), Some((77, 0)));
    let learner = pb::Member {
        id: LEARNER,
        name: "two".to_owned(),
        peer_ur_ls: vec!["https://two.example:2380".to_owned()],
        client_ur_ls: vec!["http://two.example:2379".to_owned()],
        is_learner: true,
    };
    assert_eq!((list.members.len(), &list.members[1]), (2, &learner));
}

#[tokio::test]
async fn health_follows_readiness() {
    let view = NodeView::new(NodeStatus { unready: Some(Unready::NoLeader), ..status(LEADER) });
    let health = HealthService::new(view.clone());
    let about = |service: &str| Request::new(HealthCheckRequest { service: service.to_owned() });
    let unknown = health.check(about("etcdserverpb.Auth")).await.expect_err("not served");
    assert_eq!(unknown.code(), Code::NotFound);
    let mut watch = health.watch(about("etcdserverpb.KV")).await.expect("a stream").into_inner();
    for (unready, expected) in
        [(Some(Unready::NoLeader), ServingStatus::NotServing), (None, ServingStatus::Serving)]
    {
        view.publish(NodeStatus { unready, ..status(LEADER) });
        let checked = health.check(about("")).await.expect("always known").into_inner();
        let watched = watch.next().await.expect("it never ends").expect("without errors");
        assert_eq!((checked.status(), watched.status()), (expected, expected));
    }
}

#[tokio::test]
async fn what_is_not_served_is_named() {
    let member = member_with(status(LEADER));
    let mut services = Services::new(
        member.gateway,
        member.view,
        member.members,
        PeerScheme::Http,
        Bounds::LEAST,
        Duration::from_mins(10),
    );
    for path in ["/etcdserverpb.Watch/Nothing", "/v3lockpb.Lock/Lock", "/etcdserverpb.Auth/UserAdd"] {
        let request = http::Request::post(path).body(Body::empty()).expect("a request");
        let response = services.call(request).await.expect("always answered");
        let status = Status::from_header_map(response.headers()).expect("an error without a message");
        assert_eq!(status.code(), Code::Unimplemented);
        assert!(status.message().contains(path), "{status}");
    }
}
