//! A member whose state is not that of the others: it finds out, says so, serves nothing, and the others go on.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use parking_lot::RwLock;
use quorate_api::etcdserverpb::alarm_request::AlarmAction;
use quorate_api::etcdserverpb::kv_client::KvClient;
use quorate_api::etcdserverpb::maintenance_client::MaintenanceClient;
use quorate_api::etcdserverpb::{AlarmMember, AlarmRequest, AlarmType, PutRequest, RangeRequest};
use quorate_api::log::command::Operation;
use quorate_node::snapshots::{Archive, Job, Report, Worker};
use quorate_node::storage::disk::OsDisk;
use quorate_tests::clients::endpoint;
use tonic::Code;

use crate::cluster::Cluster;
use crate::filler;
use crate::http::metric;
use crate::network::{Number, others};
use crate::scenario::Scenario;

/// Some snapshots' worth, in MiB.
const LARGE: usize = 48;

/// The pieces of snapshots.
const PIECE_BYTES: usize = 256 << 10;

/// The newest snapshot in `dir`, whose node is down, tells of something that never was, and is whole by every checksum.
fn forge(dir: &Path) {
    let mut archive = Archive::open(Arc::new(OsDisk), dir).expect("there are snapshots");
    let (manifest, mut state) = archive.restore().expect("they can be read").expect("one is whole");
    let (action, alarm) = (AlarmAction::Activate.into(), AlarmType::Corrupt.into());
    let raised = state.apply(&Operation::Alarm(AlarmRequest { action, member_id: 999, alarm }));
    assert!(raised.is_ok(), "{raised:?}");
    let source = state.snapshot(PIECE_BYTES).expect("there is no other");
    let mut worker = Worker::new(archive, Arc::new(RwLock::new(state)));
    worker.push(Job::Take(manifest.snapshot.clone(), source));
    let mut last = None;
    while worker.is_busy() {
        last = worker.step();
    }
    match last {
        Some(Report::Taken(forged)) => assert_ne!(forged, manifest, "it says something else"),
        other => panic!("{other:?}"),
    }
}

async fn taken(cluster: &Cluster, node: Number) -> Result<u64, String> {
    metric(cluster.members[node].settings.http, "quorate_snapshots_taken_total").await
}

async fn alarms(cluster: &Cluster, node: Number) -> Result<Vec<AlarmMember>, String> {
    let mut client = MaintenanceClient::new(endpoint(cluster.members[node].settings.client).connect_lazy());
    let answer = client.alarm(AlarmRequest::default()).await.map_err(|status| status.to_string())?;
    Ok(answer.into_inner().alarms)
}

/// What etcdctl makes of it, where there is one.
async fn etcdctl_lists(cluster: &Cluster, node: Number, id: u64) {
    let Some(program) = std::env::var_os("QUORATE_ETCDCTL") else { return };
    let endpoint = format!("--endpoints={}", cluster.members[node].settings.client);
    // The network between the nodes goes on meanwhile.
    let run = move || Command::new(program).args([endpoint.as_str(), "alarm", "list"]).output();
    let output = tokio::task::spawn_blocking(run).await.expect("it ends").expect("it runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let lists = |line: &str| line.split_whitespace().eq([format!("memberID:{id}").as_str(), "alarm:CORRUPT"]);
    assert!(text.lines().any(lists), "{output:?}");
}

/// Serves nothing: neither what is newest, nor what it has, nor writes.
async fn serves_nothing(cluster: &Cluster, node: Number) -> Result<(), String> {
    let channel = endpoint(cluster.members[node].settings.client).connect_lazy();
    let mut client = KvClient::new(channel);
    let key = bytes::Bytes::from("filler");
    let mut answers = Vec::new();
    for serializable in [true, false] {
        let request = RangeRequest { key: key.clone(), serializable, ..RangeRequest::default() };
        answers.push(client.range(request).await.map(drop));
    }
    answers.push(client.put(PutRequest { key, ..PutRequest::default() }).await.map(drop));
    for answer in answers {
        match answer {
            Err(status) if status.code() == Code::DataLoss => {
                assert_eq!(status.message(), "etcdserver: corrupt cluster");
            }
            other => return Err(format!("{other:?}")),
        }
    }
    Ok(())
}

#[tokio::test]
async fn member_whose_state_differs_says_so_and_serves_nothing_and_the_others_go_on() {
    let name = "member_whose_state_differs_says_so_and_serves_nothing_and_the_others_go_on";
    let mut scenario = Scenario::start_idle(name).await;
    let cluster = &mut scenario.cluster;
    let (leader, _) = cluster.wait_for_leader().await;
    let [differs, third] = others(3, leader)[..] else { panic!("of three") };
    filler::many(cluster, leader, LARGE).await;
    cluster
        .wait("a snapshot on each node", async |cluster: &mut Cluster| {
            for node in 0..3 {
                let times = taken(cluster, node).await?;
                (times > 0).then_some(()).ok_or(format!("node-{node} has taken none"))?;
            }
            Ok::<_, String>(())
        })
        .await;
    cluster.kill(differs);
    forge(&cluster.members[differs].settings.data);
    cluster.restart(differs);
    let id = cluster.members[differs].id;
    cluster
        .wait("the member to be told from the rest", async |cluster: &mut Cluster| {
            serves_nothing(cluster, differs).await?;
            let status = cluster.status(differs).await?;
            let corrupt = status.corrupt.clone().ok_or(format!("{status:?}"))?;
            assert!(corrupt.index > 0 && corrupt.own != corrupt.majority, "{corrupt:?}");
            let http = cluster.members[differs].settings.http;
            assert_eq!(metric(http, "quorate_corrupt").await, Ok(1));
            for node in 0..3 {
                let wanted = AlarmMember { member_id: id, alarm: AlarmType::Corrupt.into() };
                let listed = alarms(cluster, node).await?;
                let known = listed.contains(&wanted);
                known.then_some(()).ok_or(format!("node-{node} lists {listed:?}"))?;
            }
            Ok::<_, String>(())
        })
        .await;
    for node in 0..3 {
        etcdctl_lists(cluster, node, id).await;
    }
    let log = std::fs::read_to_string(&cluster.members[differs].settings.log).expect("it has written a log");
    assert!(log.contains("differs from that of a majority"), "{log}");
    // Its log is as good as any: with one of the others off it is the second of a quorum.
    cluster.kill(third);
    cluster
        .wait("a write by what is left", async |cluster: &mut Cluster| {
            filler::put(cluster, leader, 10).await.map_err(|status| status.to_string())
        })
        .await;
    // A restart forgets nothing, though nobody else has told yet what it holds.
    cluster.kill(differs);
    cluster.restart(differs);
    cluster
        .wait("the mark to be read", async |cluster: &mut Cluster| {
            serves_nothing(cluster, differs).await?;
            let status = cluster.status(differs).await?;
            status.corrupt.is_some().then_some(()).ok_or(format!("{status:?}"))
        })
        .await;
    cluster.restart(third);
    cluster.wait_for_leader().await;
}
