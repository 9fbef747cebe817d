//! Disks that fail: they lose what they were to keep, stand still, fill up, and lose their power.

use std::time::{Duration, Instant};

use quorate_api::admin::Role;
use quorate_tests::faulty_disk::Times;
use rand::RngExt;
use rand::seq::IndexedRandom;

use crate::cluster::{Cluster, DEADLINE, eventually};
use crate::filler;
use crate::http;
use crate::network::{Number, others};
use crate::scenario::Scenario;

/// For how long a disk stands still: far longer than a leader may go without one, and than any request waits.
const STALL: Duration = Duration::from_secs(30);

#[tokio::test]
async fn a_sync_of_the_leader_fails() {
    let Some(mut scenario) = Scenario::start_on_faulty_disks("a_sync_of_the_leader_fails").await else {
        return;
    };
    for round in 0..Scenario::rounds(4) {
        let (leader, before) = scenario.cluster.wait_for_leader().await;
        let times = if round % 2 == 0 { Times::Once } else { Times::Always };
        eprintln!("syncs of node-{leader} fail: {times:?}");
        scenario.cluster.may_end(leader);
        scenario.cluster.faults(leader).fail_syncs(times);
        assert_names_the_disk(&scenario.cluster.wait_for_end(leader).await);
        if times == Times::Always {
            // The disk is as bad as it was: it cannot go on, and says so again.
            scenario.cluster.restart(leader);
            assert_names_the_disk(&scenario.cluster.wait_for_end(leader).await);
        }
        scenario.cluster.wait_for_term(before.term + 1).await;
        scenario.progress().await;
        scenario.cluster.mend(&[leader]).await;
        scenario.a_while().await;
    }
    scenario.finish().await;
}

fn assert_names_the_disk(words: &str) {
    assert!(words.contains("Input/output error"), "{words}");
}

#[tokio::test]
async fn the_disk_of_the_leader_stands_still() {
    let Some(mut scenario) = Scenario::start_on_faulty_disks("the_disk_of_the_leader_stands_still").await
    else {
        return;
    };
    let (old, before) = scenario.cluster.wait_for_leader().await;
    let since = Instant::now();
    scenario.cluster.faults(old).stall();
    // Its heartbeats still come: the others have no reason to elect one of them before it steps down.
    scenario.cluster.wait_for_term(before.term + 1).await;
    eprintln!("another leads after {:?}", since.elapsed());
    wait_for_follower(&mut scenario.cluster, old).await;
    scenario.progress().await;
    tokio::time::sleep(STALL.saturating_sub(since.elapsed())).await;
    scenario.progress().await;
    assert!(scenario.cluster.faults(old).held_up() > 0, "its log has no part in this");
    // It comes back as it is: whoever ends now has ended by itself, and fails the test.
    scenario.cluster.mend(&[old]).await;
    scenario.progress().await;
    scenario.finish().await;
}

/// Starts a node again whose disk stands still, and waits until that holds it up. Returns which.
async fn starts_on_a_disk_that_stands_still(scenario: &mut Scenario) -> Number {
    let node = scenario.random.random_range(0..3);
    let cluster = &mut scenario.cluster;
    cluster.kill(node);
    cluster.faults(node).stall();
    cluster.restart(node);
    cluster
        .wait("the disk to hold it up", async |cluster: &mut Cluster| {
            (cluster.faults(node).held_up() > 0).then_some(()).ok_or("it does not")
        })
        .await;
    node
}

/// It serves nobody yet, so it has nothing to finish.
#[tokio::test]
async fn a_node_that_starts_ends_when_it_is_told_to_though_its_disk_stands_still() {
    let name = "a_node_that_starts_ends_when_it_is_told_to_though_its_disk_stands_still";
    let Some(mut scenario) = Scenario::start_on_faulty_disks(name).await else { return };
    let node = starts_on_a_disk_that_stands_still(&mut scenario).await;
    let cluster = &mut scenario.cluster;
    let mut process = cluster.members[node].process.take().expect("it was started");
    process.terminate().expect("a child can be asked to stop");
    eventually("it to say that it stops", || {
        let said = process.output();
        async move { said.contains("stopping before everything was read").then_some(()).ok_or(said) }
    })
    .await;
    // What waits for the disk cannot end before the disk has answered.
    cluster.faults(node).heal();
    let status = process.wait(DEADLINE).await.expect("it ends");
    assert_eq!(status.code(), Some(0), "{}", process.output());
    cluster.restart(node);
    scenario.finish().await;
}

/// Whoever tells it again does not want to wait for what it waits for.
#[tokio::test]
async fn a_node_that_waits_for_its_disk_to_stop_ends_when_it_is_told_again() {
    let name = "a_node_that_waits_for_its_disk_to_stop_ends_when_it_is_told_again";
    let Some(mut scenario) = Scenario::start_on_faulty_disks(name).await else { return };
    let (leader, _) = scenario.cluster.wait_for_leader().await;
    let node = others(3, leader)[0];
    let cluster = &mut scenario.cluster;
    cluster.faults(node).stall();
    cluster
        .wait("the disk to hold it up", async |cluster: &mut Cluster| {
            (cluster.faults(node).held_up() > 0).then_some(()).ok_or("it does not")
        })
        .await;
    let mut process = cluster.members[node].process.take().expect("it was started");
    eventually("it to say that it ends before it has finished", || {
        process.terminate().expect("a child can be asked to stop");
        let said = process.output();
        async move { said.contains("ends before it has finished").then_some(()).ok_or(said) }
    })
    .await;
    // What waits for the disk cannot end before the disk has answered.
    cluster.faults(node).heal();
    let status = process.wait(DEADLINE).await.expect("it ends");
    assert_eq!(status.code(), Some(0), "{}", process.output());
    cluster.restart(node);
    scenario.finish().await;
}

/// It can be told from one that hangs, so that nobody ends it while it does what it can.
#[tokio::test]
async fn a_node_whose_disk_stands_still_at_its_start_lives_and_has_not_started() {
    let name = "a_node_whose_disk_stands_still_at_its_start_lives_and_has_not_started";
    let Some(mut scenario) = Scenario::start_on_faulty_disks(name).await else { return };
    let node = starts_on_a_disk_that_stands_still(&mut scenario).await;
    let cluster = &mut scenario.cluster;
    let asks = async |cluster: &mut Cluster, path: &str, code: u16| {
        cluster
            .wait(&format!("{path} to be {code}"), async |cluster: &mut Cluster| {
                let answer = http::code(cluster.members[node].settings.http, path).await?;
                (answer == code).then_some(()).ok_or(format!("{answer}"))
            })
            .await;
    };
    asks(cluster, "/livez", 200).await;
    asks(cluster, "/startupz", 503).await;
    cluster.mend(&[node]).await;
    asks(cluster, "/startupz", 200).await;
    scenario.finish().await;
}

async fn wait_for_follower(cluster: &mut Cluster, node: Number) {
    cluster
        .wait(&format!("node-{node} to step down"), async |cluster: &mut Cluster| {
            match cluster.status(node).await?.role() {
                Role::Leader => Err("it still leads".to_owned()),
                _ => Ok(()),
            }
        })
        .await;
}

#[tokio::test]
async fn the_disk_of_a_follower_fills_up() {
    a_follower_fills_up("the_disk_of_a_follower_fills_up", &[]).await;
}

/// The copy of the state takes room as well, and does not get any of that which is kept for the log and for snapshots.
#[tokio::test]
async fn the_disk_of_a_follower_fills_up_that_keeps_a_copy() {
    a_follower_fills_up("the_disk_of_a_follower_fills_up_that_keeps_a_copy", &["--state-copy"]).await;
}

async fn a_follower_fills_up(name: &str, flags: &[&str]) {
    let Some(mut scenario) = Scenario::start_on_faulty_disks_with(name, flags).await else { return };
    let (leader, _) = scenario.cluster.wait_for_leader().await;
    let follower = *others(3, leader).choose(&mut scenario.random).expect("there are two others");
    disk_fills_up(&mut scenario, follower).await;
    scenario.finish().await;
}

#[tokio::test]
async fn the_disk_of_the_leader_fills_up() {
    let Some(mut scenario) = Scenario::start_on_faulty_disks("the_disk_of_the_leader_fills_up").await else {
        return;
    };
    let (leader, _) = scenario.cluster.wait_for_leader().await;
    disk_fills_up(&mut scenario, leader).await;
    scenario.finish().await;
}

/// The node may end, or refuse to write and go on: the others go on in either case, and it does when there is room again.
async fn disk_fills_up(scenario: &mut Scenario, node: Number) {
    scenario.cluster.may_end(node);
    let room = scenario.random.random_range(0..1 << 20);
    eprintln!("node-{node} has room for {room} bytes");
    scenario.cluster.faults(node).fill_up(room);
    let told = filler::fill(&mut scenario.cluster, node).await;
    assert!(told || scenario.cluster.faults(node).refused() > 0, "its disk was never full");
    scenario.progress().await;
    scenario.cluster.mend(&[0, 1, 2]).await;
}

/// There is no room to note that it makes promises: it starts all the same, and makes none.
#[tokio::test]
async fn a_node_with_a_full_disk_starts_with_leases_for_the_first_time() {
    let name = "a_node_with_a_full_disk_starts_with_leases_for_the_first_time";
    let Some(mut scenario) = Scenario::start_on_faulty_disks(name).await else { return };
    scenario.cluster.kill(1);
    scenario.cluster.faults(1).fill_up(0);
    scenario.cluster.members[1].settings.more.push("--lease-reads".to_owned());
    scenario.cluster.restart(1);
    let says = "--lease-reads has no effect until the next start";
    scenario
        .cluster
        .wait("node-1 to say that it has no leases", async |cluster: &mut Cluster| {
            let log = std::fs::read_to_string(&cluster.members[1].settings.log).unwrap_or_default();
            if log.contains(says) { Ok(()) } else { Err("it has not said so") }
        })
        .await;
    scenario.progress().await;
    scenario.cluster.mend(&[1]).await;
    scenario.finish().await;
}

/// It goes on to the end of its segment of the log, hands leadership over, and takes nothing more in; it never ends. When there are
/// descriptors again it catches up.
#[tokio::test]
async fn the_descriptors_of_the_leader_run_out() {
    let name = "the_descriptors_of_the_leader_run_out";
    let Some(mut scenario) = Scenario::start_on_faulty_disks(name).await else { return };
    let (leader, _) = scenario.cluster.wait_for_leader().await;
    scenario.cluster.faults(leader).take_descriptors();
    // A write may be refused before leadership is with one that has descriptors.
    filler::fill(&mut scenario.cluster, leader).await;
    assert!(scenario.cluster.faults(leader).not_opened() > 0, "it has missed none");
    wait_for_follower(&mut scenario.cluster, leader).await;
    scenario.progress().await;
    scenario.cluster.mend(&[leader]).await;
    scenario.finish().await;
}

/// A disk that is busy is told from one that hangs: however much waits to be written, it is written in groups of a size.
#[tokio::test]
async fn large_values_on_slow_disks_leave_the_leader_alone() {
    let name = "large_values_on_slow_disks_leave_the_leader_alone";
    let Some(mut scenario) = Scenario::start_on_faulty_disks(name).await else { return };
    for node in 0..3 {
        scenario.cluster.faults(node).limit_bandwidth(50_000_000);
    }
    let (leader, before) = scenario.cluster.wait_for_leader().await;
    filler::many(&scenario.cluster, leader, 200).await;
    let (still, after) = scenario.cluster.wait_for_leader().await;
    assert_eq!((still, after.term), (leader, before.term), "another leads");
    for node in 0..3 {
        scenario.cluster.faults(node).heal();
    }
    scenario.finish().await;
}

#[tokio::test]
async fn the_power_fails() {
    let Some(mut scenario) = Scenario::start_on_faulty_disks("the_power_fails").await else { return };
    for round in 0..Scenario::rounds(6) {
        // Of all of them, every other time: then nobody else has what one has not kept.
        let count = if round % 2 == 0 { 3 } else { scenario.random.random_range(1..3) };
        let nodes: Vec<Number> = [0, 1, 2].sample(&mut scenario.random, count).copied().collect();
        eprintln!("the power of {nodes:?} fails");
        for &node in &nodes {
            scenario.cluster.lose_power(node);
        }
        for &node in &nodes {
            scenario.cluster.restart(node);
        }
        scenario.progress().await;
        scenario.a_while().await;
    }
    scenario.finish().await;
}

#[tokio::test]
async fn disks_fail_in_all_ways() {
    let Some(mut scenario) = Scenario::start_on_faulty_disks("disks_fail_in_all_ways").await else { return };
    for _ in 0..Scenario::rounds(10) {
        for _ in 0..scenario.random.random_range(1..=2) {
            let node = scenario.random.random_range(0..3);
            something_happens(&mut scenario, node);
            scenario.a_while().await;
        }
        scenario.a_while().await;
        scenario.cluster.mend(&[0, 1, 2]).await;
        scenario.progress().await;
    }
    scenario.finish().await;
}

fn something_happens(scenario: &mut Scenario, node: Number) {
    let what = scenario.random.random_range(0..6);
    let slow = scenario.random.random_range(Duration::from_millis(1)..Duration::from_millis(400));
    let room = scenario.random.random_range(0..8 << 20);
    let cluster = &mut scenario.cluster;
    match what {
        0 => cluster.faults(node).fail_syncs(Times::Once),
        1 => cluster.faults(node).fail_syncs(Times::Always),
        2 => cluster.faults(node).fill_up(room),
        3 => cluster.faults(node).stall(),
        4 => cluster.faults(node).slow_syncs(slow),
        _ => {
            cluster.faults(node).heal();
            cluster.lose_power(node);
            cluster.restart(node);
        }
    }
    if what <= 2 {
        cluster.may_end(node);
    }
    let names = ["a sync fails", "syncs fail", "full", "stands still", "slow", "no power"];
    eprintln!("node-{node}: {} ({slow:?}, {room} bytes)", names[what]);
}
