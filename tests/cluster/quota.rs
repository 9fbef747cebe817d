//! A state that reaches the quota: what clients see through real etcdctl, on whichever node, and how they get out again.

use std::env;
use std::path::PathBuf;
use std::process::Command;

use quorate_api::etcdserverpb as pb;
use quorate_api::etcdserverpb::alarm_request::AlarmAction;
use quorate_api::etcdserverpb::kv_client::KvClient;
use quorate_api::etcdserverpb::maintenance_client::MaintenanceClient;
use quorate_tests::clients::endpoint;
use tonic::{Code, Status};

use crate::cluster::Cluster;
use crate::filler;
use crate::network::{Number, others};

/// In bytes.
const QUOTA: u64 = 8 << 20;
const LARGE: usize = 256 << 10;
/// More large values than fit.
const ENOUGH: usize = 100;

/// etcd's own client, asking one node. None where there is none.
async fn etcdctl(cluster: &Cluster, node: Number, args: &[&str]) -> Option<String> {
    let program = env::var_os("QUORATE_ETCDCTL").map(PathBuf::from).filter(|path| path.is_file());
    let Some(program) = program else {
        eprintln!("left out: QUORATE_ETCDCTL names no etcdctl");
        return None;
    };
    let address = cluster.members[node].settings.client;
    let mut command = Command::new(program);
    command.arg(format!("--endpoints=http://{address}")).args(args);
    // The links between the nodes pass through this thread.
    let output = tokio::task::spawn_blocking(move || command.output()).await.expect("it does not panic");
    let output = output.expect("etcdctl can be started");
    let text = [output.stdout, output.stderr].concat();
    Some(format!("{}{}", String::from_utf8_lossy(&text), output.status.code().unwrap_or(-1)))
}

/// What etcdctl says holds `wanted`, if there is an etcdctl.
async fn says(cluster: &Cluster, node: Number, args: &[&str], wanted: &str) {
    if let Some(said) = etcdctl(cluster, node, args).await {
        assert!(said.contains(wanted), "etcdctl {args:?} at node-{node}: {said}");
    }
}

async fn put(cluster: &Cluster, node: Number, key: &str, size: usize) -> Result<(), Status> {
    let request =
        pb::PutRequest { key: key.to_owned().into(), value: vec![b'f'; size].into(), ..Default::default() };
    let endpoint = endpoint(cluster.members[node].settings.client).timeout(filler::PATIENCE);
    KvClient::new(endpoint.connect_lazy()).put(request).await.map(drop)
}

fn is_full(status: &Status) -> bool {
    status.code() == Code::ResourceExhausted
        && status.message() == "etcdserver: mvcc: database space exceeded"
}

/// Writes large values until the quota is reached.
async fn fill(cluster: &Cluster, node: Number) {
    for number in 0..ENOUGH {
        match put(cluster, node, &format!("large-{number}"), LARGE).await {
            Ok(()) => {}
            Err(status) if is_full(&status) => {
                let reason = status.metadata().get("quorate-reason").and_then(|text| text.to_str().ok());
                assert!(reason.is_some_and(|reason| reason.contains("--quota-bytes")), "{status:?}");
                return;
            }
            Err(status) => panic!("{status:?}"),
        }
    }
    panic!("{ENOUGH} large values were taken");
}

async fn restart_all(cluster: &mut Cluster) {
    for node in 0..3 {
        cluster.terminate(node).await;
    }
    (0..3).for_each(|node| cluster.restart(node));
    cluster.wait_for_voters(3).await;
}

async fn refuses(cluster: &mut Cluster, node: Number) {
    cluster
        .wait(&format!("node-{node} to refuse a put"), async |cluster: &mut Cluster| {
            match put(cluster, node, "small", 1).await {
                Err(status) if is_full(&status) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
}

/// Every node refuses a put, in etcd's words, and serves the rest.
async fn all_refuse(cluster: &mut Cluster) {
    for node in 0..3 {
        refuses(cluster, node).await;
        says(cluster, node, &["alarm", "list"], "alarm:NOSPACE").await;
        says(cluster, node, &["get", "--keys-only", "large-0"], "large-0\n\n0").await;
        says(cluster, node, &["put", "small", "x"], "database space exceeded").await;
        says(cluster, node, &["endpoint", "status", "-w=json"], "NOSPACE").await;
        says(cluster, node, &["endpoint", "health"], "unhealthy").await;
        let status = cluster.status(node).await.expect("it is up");
        assert!(status.over_quota && status.state_bytes < QUOTA, "{status:?}");
    }
}

/// The smallest quota counts, whoever leads; the alarm outlives a restart of all, with the way out in between.
#[tokio::test]
async fn a_full_quota_refuses_puts_until_there_is_room_and_it_is_disarmed() {
    let larger = format!("--quota-bytes={}", 2 * QUOTA);
    let mut cluster = Cluster::start_with(3, &[&larger]).await;
    let (leader, _) = cluster.wait_for_leader().await;
    let small = others(3, leader)[0];
    cluster.members[small].settings.more.push(format!("--quota-bytes={QUOTA}"));
    cluster.terminate(small).await;
    cluster.restart(small);
    cluster.wait_for_voters(3).await;
    cluster
        .wait("the small node to be heard", async |cluster: &mut Cluster| {
            let status = cluster.status(small).await?;
            (status.quota_bytes == Some(QUOTA) && status.leader_id != 0)
                .then_some(())
                .ok_or("it is not up".to_owned())
        })
        .await;

    fill(&cluster, leader).await;
    all_refuse(&mut cluster).await;
    restart_all(&mut cluster).await;
    all_refuse(&mut cluster).await;

    // Deletion, compaction, and disarming through different nodes; all are started again between.
    let kv = |cluster: &Cluster, node: Number| {
        KvClient::new(
            endpoint(cluster.members[node].settings.client).timeout(filler::PATIENCE).connect_lazy(),
        )
    };
    let all = pb::DeleteRangeRequest { key: vec![0].into(), range_end: vec![0].into(), prev_kv: false };
    let deleted = kv(&cluster, 0).delete_range(all).await.expect("deletions go on").into_inner();
    assert!(deleted.deleted > 10, "{deleted:?}");
    let revision = deleted.header.expect("a header").revision;
    kv(&cluster, 1)
        .compact(pb::CompactionRequest { revision, physical: true })
        .await
        .expect("compactions go on");
    restart_all(&mut cluster).await;
    // There is room, and the alarm stands until it is disarmed.
    for node in 0..3 {
        refuses(&mut cluster, node).await;
    }
    disarm(&cluster, 2).await;
    for node in 0..3 {
        cluster
            .wait(&format!("a put through node-{node}"), async |cluster: &mut Cluster| {
                put(cluster, node, "small", 1).await
            })
            .await;
        says(&cluster, node, &["endpoint", "health"], "is healthy").await;
    }
    let (_, status) = cluster.wait_for_leader().await;
    assert!(!status.over_quota && status.state_bytes < QUOTA / 2, "{status:?}");
}

/// By etcdctl where there is one.
async fn disarm(cluster: &Cluster, node: Number) {
    match etcdctl(cluster, node, &["alarm", "disarm"]).await {
        Some(said) => assert!(said.contains("alarm:NOSPACE"), "{said}"),
        None => disarm_all(cluster, node).await.expect("alarms are disarmed"),
    }
}

async fn disarm_all(cluster: &Cluster, node: Number) -> Result<(), Status> {
    let channel = endpoint(cluster.members[node].settings.client).connect_lazy();
    let mut maintenance = MaintenanceClient::new(channel);
    let raised = maintenance.alarm(pb::AlarmRequest::default()).await?.into_inner().alarms;
    for pb::AlarmMember { member_id, alarm } in raised {
        let action = AlarmAction::Deactivate.into();
        maintenance.alarm(pb::AlarmRequest { action, member_id, alarm }).await?;
    }
    Ok(())
}

/// N4: one key that is written for ever fills no memory where history is compacted by itself.
#[tokio::test]
async fn one_key_is_written_for_ever_where_history_is_compacted() {
    let flag = format!("--quota-bytes={QUOTA}");
    let mut cluster = Cluster::start_with(3, &[&flag, "--auto-compaction-retention=1s"]).await;
    let mut written = 0;
    while written < 2 * QUOTA {
        let size = LARGE / 8;
        cluster
            .wait("a put", async |cluster: &mut Cluster| match put(cluster, 0, "same-key", size).await {
                // A machine on which more than fits is written in a second and a half: the next compaction is near.
                Err(status) if is_full(&status) => Err(format!("full, {:?}", disarm_all(cluster, 0).await)),
                outcome => outcome.map_err(|status| status.to_string()),
            })
            .await;
        written += size as u64;
    }
    for node in 0..3 {
        let status = cluster.status(node).await.expect("it is up");
        assert!(status.state_bytes < QUOTA, "{status:?}");
    }
}
