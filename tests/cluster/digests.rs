//! A member whose state is not that of the others: it finds out, says so, serves nothing, and the others go on.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use parking_lot::RwLock;
use quorate_api::etcdserverpb::alarm_request::AlarmAction;
use quorate_api::etcdserverpb::kv_client::KvClient;
use quorate_api::etcdserverpb::maintenance_client::MaintenanceClient;
use quorate_api::etcdserverpb::{AlarmMember, AlarmRequest, AlarmType, PutRequest, RangeRequest};
use quorate_api::log::Configuration;
use quorate_api::log::command::Operation;
use quorate_node::snapshots::{Archive, Job, Report, Worker};
use quorate_node::storage::disk::OsDisk;
use quorate_tests::clients::endpoint;
use tonic::{Code, Status};

use crate::admin;
use crate::cluster::Cluster;
use crate::filler;
use crate::http::metric;
use crate::network::{Number, others};
use crate::scenario::Scenario;

/// Some snapshots' worth, in MiB.
const LARGE: usize = 48;

/// The pieces of snapshots.
const PIECE_BYTES: usize = 256 << 10;

/// The newest snapshot in `dir`, whose node is down, tells of an alarm of `member` that never was, and is whole by every checksum.
fn forge(dir: &Path, member: u64) {
    let mut archive = Archive::open(Arc::new(OsDisk), dir).expect("there are snapshots");
    let (manifest, mut state) = archive.restore().expect("they can be read").expect("one is whole");
    let (action, alarm) = (AlarmAction::Activate.into(), AlarmType::Corrupt.into());
    let raised = state.apply(&Operation::Alarm(AlarmRequest { action, member_id: member, alarm }));
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

/// The names of the snapshots of a node, by their entries, and of one that is being written. A name that goes meanwhile is one that goes.
fn snapshots(cluster: &Cluster, node: Number) -> BTreeSet<String> {
    let files = std::fs::read_dir(cluster.members[node].settings.data.join("snapshots"));
    files
        .into_iter()
        .flatten()
        .flatten()
        .map(|file| file.file_name().to_string_lossy().into_owned())
        .collect()
}

/// The newest snapshot that all nodes hold, if it is the newest of each.
fn common_newest(cluster: &Cluster) -> Option<String> {
    let newest = |node| snapshots(cluster, node).into_iter().rfind(|name| name.ends_with(".snapshot"));
    newest(0).filter(|name| (1..3).all(|node| newest(node).as_ref() == Some(name)))
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

/// What a node answers to a read of what it has.
async fn reads_what_it_has(cluster: &Cluster, node: Number) -> Result<(), Status> {
    let mut client = KvClient::new(endpoint(cluster.members[node].settings.client).connect_lazy());
    let request = RangeRequest { key: "filler".into(), serializable: true, ..RangeRequest::default() };
    client.range(request).await.map(drop)
}

/// Serves nothing: neither what is newest, nor what it has, nor writes.
async fn serves_nothing(cluster: &Cluster, node: Number) -> Result<(), String> {
    serves_nothing_new(cluster, node).await?;
    refused_as_corrupt(reads_what_it_has(cluster, node).await)
}

/// Serves neither what is newest, nor writes.
async fn serves_nothing_new(cluster: &Cluster, node: Number) -> Result<(), String> {
    let mut client = KvClient::new(endpoint(cluster.members[node].settings.client).connect_lazy());
    let key = bytes::Bytes::from("filler");
    let newest = RangeRequest { key: key.clone(), ..RangeRequest::default() };
    refused_as_corrupt(client.range(newest).await.map(drop))?;
    refused_as_corrupt(client.put(PutRequest { key, ..PutRequest::default() }).await.map(drop))
}

fn refused_as_corrupt(answer: Result<(), Status>) -> Result<(), String> {
    match answer {
        Err(status) if status.code() == Code::DataLoss => {
            assert_eq!(status.message(), "etcdserver: corrupt cluster");
            Ok(())
        }
        other => Err(format!("{other:?}")),
    }
}

/// Waits until the newest snapshot of each node is at the same entry. A node that was still writing one when the next was due has skipped that: then they meet
/// at one that more writes make due.
async fn snapshots_everywhere(cluster: &mut Cluster) {
    cluster
        .wait("the same newest snapshot on all nodes", async |cluster: &mut Cluster| {
            if common_newest(cluster).is_some() {
                return Ok(());
            }
            let files: Vec<_> = (0..3).map(|node| snapshots(cluster, node)).collect();
            if files.iter().flatten().all(|name| name.ends_with(".snapshot")) {
                filler::put(cluster, 0, 1 << 20).await.map_err(|status| status.to_string())?;
            }
            Err(format!("{files:?}"))
        })
        .await;
}

#[tokio::test]
async fn member_whose_state_differs_says_so_and_serves_nothing_and_the_others_go_on() {
    let name = "member_whose_state_differs_says_so_and_serves_nothing_and_the_others_go_on";
    let mut scenario = Scenario::start_idle(name).await;
    let cluster = &mut scenario.cluster;
    let (leader, _) = cluster.wait_for_leader().await;
    let [differs, third] = others(3, leader)[..] else { panic!("of three") };
    filler::many(cluster, leader, LARGE).await;
    snapshots_everywhere(cluster).await;
    cluster.kill(differs);
    forge(&cluster.members[differs].settings.data, 999);
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

/// Each of three holds something else: no majority can tell who is right. All say so, nothing is written, and what each holds can be read until people have
/// removed those whose state is not to be kept.
#[tokio::test]
async fn where_no_majority_holds_the_same_nothing_is_written_until_those_that_differ_are_removed() {
    let name = "where_no_majority_holds_the_same_nothing_is_written_until_those_that_differ_are_removed";
    let mut scenario = Scenario::start_idle(name).await;
    let cluster = &mut scenario.cluster;
    let (leader, _) = cluster.wait_for_leader().await;
    filler::many(cluster, leader, LARGE).await;
    loop {
        snapshots_everywhere(cluster).await;
        (0..3).for_each(|node| cluster.kill(node));
        if common_newest(cluster).is_some() {
            break;
        }
        // The last write had made another one due.
        (0..3).for_each(|node| cluster.restart(node));
        cluster.wait_for_leader().await;
    }
    for node in [1, 2] {
        forge(&cluster.members[node].settings.data, 900 + node as u64);
    }
    (0..3).for_each(|node| cluster.restart(node));
    cluster
        .wait("all to say that they are divided", async |cluster: &mut Cluster| {
            for node in 0..3 {
                let status = cluster.status(node).await?;
                let all = cluster.members.iter().all(|member| status.suspects.contains(&member.id));
                (status.divided_at > 0 && all).then_some(()).ok_or(format!("{status:?}"))?;
                assert!(status.corrupt.is_none(), "nobody can tell: {status:?}");
                let http = cluster.members[node].settings.http;
                assert_eq!(metric(http, "quorate_divided").await, Ok(1));
                serves_nothing_new(cluster, node).await?;
                reads_what_it_has(cluster, node).await.map_err(|status| status.to_string())?;
                let log = std::fs::read_to_string(&cluster.members[node].settings.log).unwrap_or_default();
                assert!(log.contains("no majority the same: nothing is written"), "{log}");
            }
            Ok::<_, String>(())
        })
        .await;
    let stays = cluster.members[0].id;
    for node in [1, 2] {
        cluster.members[node].leaves = true;
    }
    cluster
        .wait("those that differ to be removed", async |cluster: &mut Cluster| {
            let status = cluster.status(0).await?;
            let wanted = status.configuration.clone().and_then(|it| it.configuration).unwrap_or_default();
            if wanted.voters == [stays] {
                return filler::put(cluster, 0, 10).await.map_err(|status| status.to_string());
            }
            let leader = cluster.members.iter().find(|member| member.id == status.leader_id);
            let peer = leader.ok_or("nobody leads")?.settings.peer;
            let at_leader = admin::status(peer).await.map_err(|status| status.to_string())?;
            let members = wanted.members.into_iter().filter(|member| member.id == stays).collect();
            let alone = Configuration { voters: vec![stays], members, ..Configuration::default() };
            let asked = admin::change(peer, &at_leader, alone).await;
            Err(format!("asked: {asked:?}"))
        })
        .await;
    let status = cluster.status(0).await.expect("it is up");
    assert_eq!((status.divided_at, status.suspects), (0, vec![]), "what is left agrees with itself");
}
