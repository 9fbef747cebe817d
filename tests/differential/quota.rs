//! What a client sees of a full quota: the same steps on a real etcd and on a real node of ours, and the same story.
//!
//! One thing differs, and is left out: a put that makes no sense is refused here for what is wrong with it, and by a full etcd for its size.

use std::process::Command;
use std::time::{Duration, Instant};

use quorate_api::etcdserverpb as pb;
use quorate_api::etcdserverpb::alarm_request::AlarmAction;
use quorate_api::etcdserverpb::kv_client::KvClient;
use quorate_api::etcdserverpb::maintenance_client::MaintenanceClient;
use quorate_api::etcdserverpb::request_op::Request as Op;
use quorate_tests::process::Process;
use quorate_tests::{binaries, ports};
use tempfile::TempDir;
use tokio::runtime::Builder;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use crate::etcd;

/// What either may hold.
const QUOTA: u64 = 16 << 20;
const LARGE: usize = 256 << 10;
/// More large values than fit.
const ENOUGH: usize = 200;
const START: Duration = Duration::from_mins(1);

#[test]
fn a_full_quota_tells_the_same_story_as_etcds() {
    let directory = tempfile::tempdir().expect("a directory");
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    let [theirs, ours] = [start_etcd(&directory), start_node(&directory)].map(|(_process, client)| {
        let channel = {
            let _context = runtime.enter();
            Endpoint::from_shared(client).expect("a URL").connect_lazy()
        };
        runtime.block_on(story(channel))
    });
    println!("{}", theirs.join("\n"));
    assert_eq!(theirs, ours);
}

pub(crate) fn start_etcd(directory: &TempDir) -> (Process, String) {
    let (client, peer) = (format!("http://{}", ports::free()), format!("http://{}", ports::free()));
    let folder = tempfile::tempdir_in(directory.path()).expect("a directory for etcd");
    let mut command = etcd::command(&folder.keep(), &client, &peer);
    command.arg(format!("--quota-backend-bytes={QUOTA}"));
    let log = directory.path().join("etcd.log");
    (Process::start("etcd", command, &log).expect("etcd starts"), client)
}

pub(crate) fn start_node(directory: &TempDir) -> (Process, String) {
    let program = binaries::workspace("quorate-node", "QUORATE_NODE").expect("a node to compare");
    let client = ports::free();
    let mut command = Command::new(program);
    command
        .arg(format!("--data-dir={}", directory.path().join("node").display()))
        .arg(format!("--listen-client={client}"))
        .arg(format!("--listen-peer={}", ports::free()))
        .arg(format!("--listen-http={}", ports::free()))
        .args(["--bootstrap", &format!("--quota-bytes={QUOTA}")]);
    let log = directory.path().join("node.log");
    (Process::start("node", command, &log).expect("a node starts"), format!("http://{client}"))
}

/// What happens to a client that fills a server up and finds the way out: a line for each step.
async fn story(channel: Channel) -> Vec<String> {
    let mut client = Client {
        kv: KvClient::new(channel.clone()),
        maintenance: MaintenanceClient::new(channel),
        lines: Vec::new(),
    };
    client.wait().await;
    client.alarms("at first").await;
    client.fill("the first time").await;
    client.alarms("when it is full").await;
    client.everything("when it is full").await;
    client.errors("when it is full").await;
    client.make_room().await;
    client.alarms("after compaction").await;
    client.put("a small put before it is disarmed", 1).await;
    client.disarm().await;
    client.alarms("after that").await;
    client.errors("after that").await;
    client.everything("with room").await;

    client.fill("the second time").await;
    client.disarm().await;
    client.alarms("disarmed while it is full, before anything is put").await;
    client.put("a large put while it is full", LARGE).await;
    client.alarms("after that put").await;
    client.put("a small put after that", 1).await;
    client.lines
}

struct Client {
    kv: KvClient<Channel>,
    maintenance: MaintenanceClient<Channel>,
    lines: Vec<String>,
}

impl Client {
    fn say(&mut self, what: &str, outcome: &str) {
        self.lines.push(format!("{what}: {outcome}"));
    }

    async fn wait(&mut self) {
        let end = Instant::now() + START;
        loop {
            match self.maintenance.status(pb::StatusRequest {}).await {
                Ok(status) if status.get_ref().leader != 0 => {
                    assert_eq!(status.get_ref().db_size_quota, QUOTA.cast_signed());
                    return;
                }
                other => assert!(Instant::now() < end, "it does not come up: {other:?}"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn own(&mut self) -> u64 {
        let status = self.maintenance.status(pb::StatusRequest {}).await.expect("it is up").into_inner();
        status.header.expect("a header").member_id
    }

    async fn alarms(&mut self, when: &str) {
        let own = self.own().await;
        let answer = self.maintenance.alarm(pb::AlarmRequest::default()).await.expect("it is up");
        let alarms: Vec<_> = answer.get_ref().alarms.iter().map(|alarm| describe(alarm, own)).collect();
        self.say(&format!("alarms {when}"), &alarms.join(", "));
    }

    /// How many alarms the status names.
    async fn errors(&mut self, when: &str) {
        let status = self.maintenance.status(pb::StatusRequest {}).await.expect("it is up").into_inner();
        let alarms = status.errors.iter().filter(|error| error.contains("alarm:NOSPACE")).count();
        self.say(&format!("alarms in the status {when}"), &format!("{alarms} of {}", status.errors.len()));
    }

    async fn fill(&mut self, when: &str) {
        for number in 0.. {
            assert!(number < ENOUGH, "so many large values were taken");
            let put = put(format!("{when}-{number}"), LARGE);
            if let Err(status) = self.kv.put(put).await {
                assert!(number > 10, "it was full after {number} puts");
                return self.say(&format!("a large put {when}"), &refusal(&status));
            }
        }
    }

    async fn put(&mut self, what: &str, size: usize) {
        let outcome = outcome(&self.kv.put(put("key".into(), size)).await);
        self.say(what, &outcome);
    }

    async fn txn(&mut self, what: &str, success: Vec<Op>, failure: Vec<Op>) {
        let ops = |ops: Vec<Op>| ops.into_iter().map(|op| pb::RequestOp { request: Some(op) }).collect();
        let txn = pb::TxnRequest { compare: Vec::new(), success: ops(success), failure: ops(failure) };
        let outcome = outcome(&self.kv.txn(txn).await);
        self.say(what, &outcome);
    }

    /// One request of each kind.
    async fn everything(&mut self, when: &str) {
        let small = || Op::RequestPut(put("key".into(), 1));
        let range = pb::RangeRequest { key: "key".into(), ..pb::RangeRequest::default() };
        let delete = pb::DeleteRangeRequest { key: "key".into(), ..pb::DeleteRangeRequest::default() };
        self.put(&format!("a small put {when}"), 1).await;
        let keeps = pb::PutRequest { ignore_value: true, value: "".into(), ..put("nothing".into(), 0) };
        let kept = outcome(&self.kv.put(keeps).await);
        self.say(&format!("a put that keeps a value that is not there {when}"), &kept);
        self.txn(&format!("a transaction that puts {when}"), vec![small()], vec![]).await;
        self.txn(&format!("one that would put in its other branch {when}"), vec![], vec![small()]).await;
        let success = vec![pb::RequestOp { request: Some(small()) }];
        let nested = Op::RequestTxn(pb::TxnRequest { success, ..pb::TxnRequest::default() });
        self.txn(&format!("one that puts in a nested one {when}"), vec![nested], vec![]).await;
        let reads = vec![Op::RequestRange(range.clone())];
        self.txn(&format!("one that reads {when}"), reads, vec![]).await;
        let deletes = vec![Op::RequestDeleteRange(delete.clone())];
        self.txn(&format!("one that deletes {when}"), deletes, vec![]).await;
        let answer = outcome(&self.kv.range(range).await);
        self.say(&format!("a range {when}"), &answer);
        let answer = outcome(&self.kv.delete_range(delete).await);
        self.say(&format!("a deletion {when}"), &answer);
    }

    async fn make_room(&mut self) {
        let all = pb::DeleteRangeRequest { key: vec![0].into(), range_end: vec![0].into(), prev_kv: false };
        let answer = self.kv.delete_range(all).await.expect("deletions go on").into_inner();
        let revision = answer.header.expect("a header").revision;
        let compacted = self.kv.compact(pb::CompactionRequest { revision, physical: true }).await;
        self.say("compaction", &outcome(&compacted));
        let defragmented = self.maintenance.defragment(pb::DefragmentRequest {}).await;
        self.say("defragmentation", &outcome(&defragmented));
    }

    async fn disarm(&mut self) {
        let own = self.own().await;
        let raised =
            self.maintenance.alarm(pb::AlarmRequest::default()).await.expect("it is up").into_inner();
        for pb::AlarmMember { member_id, alarm } in raised.alarms {
            let action = AlarmAction::Deactivate.into();
            let request = pb::AlarmRequest { action, member_id, alarm };
            let answer = self.maintenance.alarm(request).await.expect("alarms are disarmed").into_inner();
            let told: Vec<_> = answer.alarms.iter().map(|alarm| describe(alarm, own)).collect();
            self.say("disarmed", &told.join(", "));
        }
    }
}

fn put(key: String, size: usize) -> pb::PutRequest {
    pb::PutRequest { key: key.into(), value: vec![b'v'; size].into(), ..pb::PutRequest::default() }
}

fn describe(alarm: &pb::AlarmMember, own: u64) -> String {
    let whose = if alarm.member_id == own { "its own" } else { "another's" };
    format!("{whose} {}", alarm.alarm().as_str_name())
}

fn outcome<T>(answer: &Result<T, Status>) -> String {
    answer.as_ref().map_or_else(refusal, |_| "done".to_owned())
}

fn refusal(status: &Status) -> String {
    assert_ne!(status.code(), Code::Unavailable, "{status:?}");
    format!("{:?}, {}", status.code(), status.message())
}
