//! More is written than the log keeps: members that were away, and new ones, come back by a snapshot; and so does everybody who starts
//! again.

use std::net::SocketAddr;
use std::time::Duration;

use quorate_api::etcdserverpb::kv_client::KvClient;
use quorate_api::etcdserverpb::{CompactionRequest, PutRequest, RangeRequest};
use quorate_tests::clients::endpoint;
use tokio::time::MissedTickBehavior;

use crate::cluster::Cluster;
use crate::network::{Fault, others};
use crate::scenario::Scenario;

/// A value of this size, so often: some snapshots' worth, and more than is kept behind one.
const BYTES: usize = 256 << 10;
const TIMES: usize = 200;

#[tokio::test]
async fn those_who_were_away_come_back_by_a_snapshot() {
    let mut scenario = Scenario::start("those_who_were_away_come_back_by_a_snapshot").await;
    let (leader, _) = scenario.cluster.wait_for_leader().await;
    let away = (leader + 1) % 3;
    scenario.cluster.kill(away);
    fill(&mut scenario.cluster, leader).await;
    scenario.cluster.restart(away);
    installs(&mut scenario.cluster, away).await;
    scenario.progress().await;

    // A member that has never been, while the clients go on.
    let new = scenario.cluster.add().await;
    scenario.cluster.wait_for_voters(4).await;
    installs(&mut scenario.cluster, new).await;

    // Whoever has it may be asked for it, by now from any leader; and all start from their snapshots.
    (0..4).for_each(|node| scenario.cluster.kill(node));
    (0..4).for_each(|node| scenario.cluster.restart(node));
    scenario.progress().await;
    scenario.finish().await;
}

/// What its state may take, so that the old one and the new one are too much together.
const QUOTA: &str = "--quota-bytes=56623104";

/// Two states at once would be more than the quota and half as much: it ends neither for memory nor by itself, and starts anew within the process.
#[tokio::test]
async fn a_member_without_room_for_two_states_starts_anew_from_its_snapshot() {
    let name = "a_member_without_room_for_two_states_starts_anew_from_its_snapshot";
    let mut scenario = Scenario::start_with(name, &[QUOTA]).await;
    let (leader, _) = scenario.cluster.wait_for_leader().await;
    let away = (leader + 1) % 3;
    fill(&mut scenario.cluster, leader).await;
    let (_, status) = scenario.cluster.wait_for_leader().await;
    scenario
        .cluster
        .wait("all to have it", async |cluster: &mut Cluster| {
            let applied = cluster.status(away).await?.applied_index;
            if applied >= status.last_index { Ok(()) } else { Err(format!("{applied}")) }
        })
        .await;
    scenario.cluster.kill(away);
    let mut client = KvClient::new(endpoint(scenario.cluster.members[leader].settings.client).connect_lazy());
    scenario
        .cluster
        .wait("the past to be compacted", async |_: &mut Cluster| {
            let read = client.range(RangeRequest { key: "large-0".into(), ..RangeRequest::default() }).await;
            let header = read.map_err(|status| status.to_string())?.into_inner().header;
            let revision = header.ok_or("no header")?.revision;
            let compact = CompactionRequest { revision, physical: true };
            client.compact(compact).await.map(drop).map_err(|status| status.to_string())
        })
        .await;
    fill(&mut scenario.cluster, leader).await;
    scenario.cluster.restart(away);
    scenario
        .cluster
        .wait("it to start anew", async |cluster: &mut Cluster| {
            let log = std::fs::read_to_string(&cluster.members[away].settings.log).unwrap_or_default();
            let (before, after) = log.split_once("starts anew from it").ok_or("it has not said so")?;
            assert!(!before.contains("installed a snapshot"), "{before}");
            let serves = after.contains("follows a leader");
            serves.then_some(()).ok_or("it does not follow")
        })
        .await;
    scenario.progress().await;
    scenario.finish().await;
}

/// A member that is 50 ms away, and lacks what the log does not hold any more, catches up while the others take 11 MB/s.
#[tokio::test]
async fn far_follower_catches_up_while_others_write() {
    let mut scenario = Scenario::start("far_follower_catches_up_while_others_write").await;
    let (leader, _) = scenario.cluster.wait_for_leader().await;
    let far = (leader + 1) % 3;
    scenario.cluster.kill(far);
    fill(&mut scenario.cluster, leader).await;
    let network = scenario.cluster.network.clone();
    network.part(&[far], &others(3, far), Fault::Delay(Duration::from_millis(50)));
    let writer = tokio::spawn(write_steadily(scenario.cluster.members[leader].settings.client));
    scenario.cluster.restart(far);
    installs(&mut scenario.cluster, far).await;
    scenario
        .cluster
        .wait(&format!("node-{far} to catch up"), async |cluster: &mut Cluster| {
            let (_, status) = cluster.wait_for_leader().await;
            let id = cluster.members[far].id;
            let progress = status.progress.iter().find(|progress| progress.member_id == id);
            match progress {
                Some(progress) if progress.caught_up => Ok(()),
                Some(progress) => {
                    Err(format!("it has {} of {} entries", progress.r#match, status.last_index))
                }
                None => Err("the leader does not know it".to_owned()),
            }
        })
        .await;
    assert!(!writer.is_finished(), "nothing was written any more");
    writer.abort();
    scenario.finish().await;
}

/// Puts 11 MB in a second, as far as the machine allows, to a few keys.
async fn write_steadily(address: SocketAddr) {
    let client = KvClient::new(endpoint(address).connect_lazy());
    let mut ticks = tokio::time::interval(Duration::from_secs_f64(BYTES as f64 / 11e6));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for number in 0_u64.. {
        ticks.tick().await;
        let key = format!("steady-{}", number % 8).into();
        let put = PutRequest { key, value: vec![number as u8; BYTES].into(), ..PutRequest::default() };
        // Whether one is refused makes no difference.
        let _ = client.clone().put(put).await;
    }
}

/// Writes more than the log keeps, and waits until a snapshot covers it.
async fn fill(cluster: &mut Cluster, leader: usize) {
    let address = cluster.members[leader].settings.client;
    let mut client = KvClient::new(endpoint(address).connect_lazy());
    for number in 0..TIMES {
        let key = format!("large-{}", number % 8).into();
        let put = PutRequest { key, value: vec![number as u8; BYTES].into(), ..PutRequest::default() };
        cluster
            .wait("a large write", async |_: &mut Cluster| {
                client.put(put.clone()).await.map(drop).map_err(|status| status.to_string())
            })
            .await;
    }
    let folder = settings_folder(cluster, leader);
    cluster
        .wait("the leader's snapshots", async |_: &mut Cluster| {
            let files = std::fs::read_dir(&folder).map_err(|error| error.to_string())?.count();
            if files >= 2 { Ok(()) } else { Err(format!("{files} files")) }
        })
        .await;
}

fn settings_folder(cluster: &Cluster, node: usize) -> std::path::PathBuf {
    cluster.members[node].settings.data.join("snapshots")
}

/// Waits until a node has said that it took over a snapshot.
async fn installs(cluster: &mut Cluster, node: usize) {
    cluster
        .wait(&format!("node-{node} to install a snapshot"), async |cluster: &mut Cluster| {
            let log = std::fs::read_to_string(&cluster.members[node].settings.log).unwrap_or_default();
            if log.contains("installed a snapshot") { Ok(()) } else { Err("it has not said so") }
        })
        .await;
}
