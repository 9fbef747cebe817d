//! Upgrades under load: members of two versions in one cluster, each upgraded and taken back until the level is raised.

use std::path::PathBuf;

use rand::RngExt;
use tonic::Code;

use crate::admin;
use crate::cluster::{Cluster, DEADLINE};
use crate::filler;
use crate::network::Number;
use crate::node::{Settings, Version};
use crate::scenario::Scenario;

/// Names the program of the first version that has levels. `tests/run` builds it where the history is there.
const OLD_NODE: &str = "QUORATE_OLD_NODE";
/// The level of that version, which is the first one.
const OLD_LEVEL: u32 = 1;
/// What a node ends with that must not go on in its version.
const TOO_OLD: i32 = 3;

#[tokio::test]
async fn an_upgrade_from_an_older_level_is_taken_back_until_the_level_is_raised() {
    let old = Version { flags: vec![format!("--max-level={OLD_LEVEL}")], ..Version::current() };
    upgrade("an_upgrade_from_an_older_level_is_taken_back_until_the_level_is_raised", &old).await;
}

#[tokio::test]
async fn an_upgrade_from_the_first_version_is_taken_back_until_the_level_is_raised() {
    let Some(program) = std::env::var_os(OLD_NODE) else {
        eprintln!("left out: {OLD_NODE} names no program of the first version that has levels");
        return;
    };
    let old = Version { program: PathBuf::from(program), flags: Vec::new() };
    upgrade("an_upgrade_from_the_first_version_is_taken_back_until_the_level_is_raised", &old).await;
}

async fn upgrade(name: &str, old: &Version) {
    let mut scenario = Scenario::start_as(name, old).await;
    // One by one up, and back again: the way of an operator that changes its mind.
    for version in [Version::current(), old.clone(), Version::current()] {
        for node in 0..3 {
            change_version(&mut scenario, node, &version).await;
        }
    }
    for _ in 0..Scenario::rounds(4) {
        let node = scenario.random.random_range(0..3);
        let version = if scenario.random.random() { old.clone() } else { Version::current() };
        change_version(&mut scenario, node, &version).await;
    }
    for node in 0..3 {
        change_version(&mut scenario, node, &Version::current()).await;
    }
    change_version(&mut scenario, 0, old).await;
    nothing_is_raised_while_one_cannot_follow(&mut scenario).await;
    change_version(&mut scenario, 0, &Version::current()).await;

    let level = raise(&mut scenario.cluster, OLD_LEVEL + 1).await.expect("all of them support it");
    assert_eq!(level, OLD_LEVEL + 1);
    scenario.progress().await;
    the_way_back_is_closed(&mut scenario, old).await;
    nobody_joins_that_is_too_old(&mut scenario, old).await;
    scenario.finish().await;
}

/// Starts the node again in this version: in order, or as it comes.
async fn change_version(scenario: &mut Scenario, node: Number, version: &Version) {
    if scenario.random.random() {
        scenario.cluster.terminate(node).await;
    } else {
        scenario.cluster.kill(node);
    }
    scenario.cluster.members[node].settings.version = version.clone();
    scenario.cluster.restart(node);
    scenario.cluster.wait_for_voters(3).await;
    catches_up(&mut scenario.cluster, node).await;
    scenario.progress().await;
}

/// Acknowledged through the node, a write is in its own state.
async fn catches_up(cluster: &mut Cluster, node: Number) {
    cluster
        .wait(&format!("a write through node-{node}"), async |cluster: &mut Cluster| {
            filler::put(cluster, node, 1).await
        })
        .await;
}

async fn raise(cluster: &mut Cluster, to: u32) -> Result<u32, tonic::Status> {
    let (leader, status) = cluster.wait_for_leader().await;
    admin::raise_level(cluster.members[leader].settings.peer, &status, to).await
}

async fn nothing_is_raised_while_one_cannot_follow(scenario: &mut Scenario) {
    let cluster = &mut scenario.cluster;
    // An old leader does not know how, and a new one sees that somebody else does not: both say no.
    let refused = raise(cluster, OLD_LEVEL + 1).await.expect_err("node-0 lacks that level");
    assert!(matches!(refused.code(), Code::FailedPrecondition | Code::Unimplemented), "{refused:?}");
    let (_, status) = cluster.wait_for_leader().await;
    // The first version does not say it.
    assert!(status.level <= OLD_LEVEL, "{status:?}");
}

/// A node of the older version meets the state of the newer level, changes nothing, and says what to do.
async fn the_way_back_is_closed(scenario: &mut Scenario, old: &Version) {
    let cluster = &mut scenario.cluster;
    let node = scenario.random.random_range(0..3);
    catches_up(cluster, node).await;
    cluster.terminate(node).await;
    let settings = Settings { version: old.clone(), ..cluster.members[node].settings.clone() };
    let mut process = settings.start();
    let status = process.wait(DEADLINE).await.expect("it ends by itself");
    let output = process.output();
    let words = output.lines().last().unwrap_or_default();
    assert_eq!(status.code(), Some(TOO_OLD), "{words}");
    assert!(words.contains("needs level 2") && words.contains("Nothing was changed"), "{words}");
    cluster.restart(node);
    scenario.progress().await;
}

async fn nobody_joins_that_is_too_old(scenario: &mut Scenario, old: &Version) {
    let cluster = &mut scenario.cluster;
    let (leader, _) = cluster.wait_for_leader().await;
    let folder = tempfile::tempdir().expect("there is a place for temporary files");
    let mut settings = Settings::new(folder.path(), "late")
        .with(format!("--join={}", cluster.members[leader].settings.peer));
    settings.version = old.clone();
    let mut process = settings.start();
    let status = process.wait(DEADLINE).await.expect("it ends by itself");
    let output = process.output();
    let words = output.lines().last().unwrap_or_default();
    assert_eq!(status.code(), Some(TOO_OLD), "{words}");
    assert!(words.contains("the cluster needs level 2"), "{words}");
    cluster.wait_for_voters(3).await;
}
