//! The faults.

use std::fs;
use std::time::Duration;

use quorate_api::log::Configuration;
use rand::RngExt;
use rand::seq::IndexedRandom;

use crate::admin;
use crate::network::{Fault, others};
use crate::scenario::Scenario;

#[tokio::test]
async fn the_leader_is_killed_again_and_again() {
    let mut scenario = Scenario::start("the_leader_is_killed_again_and_again").await;
    for _ in 0..Scenario::rounds(5) {
        let (leader, before) = scenario.cluster.wait_for_leader().await;
        scenario.cluster.kill(leader);
        let (_, after) = scenario.cluster.wait_for_leader().await;
        assert!(after.term > before.term, "another leader in the same term {}", after.term);
        scenario.progress().await;
        scenario.cluster.restart(leader);
        scenario.a_while().await;
    }
    scenario.finish().await;
}

#[tokio::test]
async fn any_node_is_killed() {
    let mut scenario = Scenario::start("any_node_is_killed").await;
    for _ in 0..Scenario::rounds(6) {
        let node = scenario.random.random_range(0..3);
        scenario.cluster.kill(node);
        scenario.a_while().await;
        scenario.cluster.restart(node);
        scenario.a_while().await;
        scenario.progress().await;
    }
    scenario.finish().await;
}

#[tokio::test]
async fn all_are_killed_at_once() {
    let mut scenario = Scenario::start("all_are_killed_at_once").await;
    killed_at_once(&mut scenario).await;
    scenario.finish().await;
}

/// A copy that kills have cut short does no harm, and one that is whole is used. Once a node is not asked for one it is gone.
#[tokio::test]
async fn all_are_killed_at_once_that_keep_a_copy() {
    let name = "all_are_killed_at_once_that_keep_a_copy";
    let mut scenario = Scenario::start_with(name, &["--state-copy"]).await;
    killed_at_once(&mut scenario).await;
    // Who ends in good order brings its copy up to date.
    scenario.cluster.terminate(0).await;
    scenario.cluster.restart(0);
    wait_for_answer(&mut scenario).await;
    let member = &mut scenario.cluster.members[0];
    let log = fs::read_to_string(&member.settings.log).expect("it has written a log");
    assert!(log.contains("starts from the copy of the state"), "{log}");
    let copy = member.settings.data.join("copy");
    assert!(copy.is_dir());
    member.settings.more.retain(|flag| flag != "--state-copy");
    scenario.cluster.kill(0);
    scenario.cluster.restart(0);
    wait_for_answer(&mut scenario).await;
    assert!(!copy.exists());
    scenario.finish().await;
}

async fn wait_for_answer(scenario: &mut Scenario) {
    scenario.cluster.wait("node-0 to answer", async |cluster| cluster.status(0).await).await;
}

async fn killed_at_once(scenario: &mut Scenario) {
    for _ in 0..Scenario::rounds(3) {
        (0..3).for_each(|node| scenario.cluster.kill(node));
        (0..3).for_each(|node| scenario.cluster.restart(node));
        scenario.progress().await;
        scenario.a_while().await;
    }
}

#[tokio::test]
async fn one_node_is_cut_off() {
    let mut scenario = Scenario::start("one_node_is_cut_off").await;
    for round in 0..Scenario::rounds(5) {
        let (leader, before) = scenario.cluster.wait_for_leader().await;
        // The leader, for every other round.
        let node = if round % 2 == 0 { leader } else { scenario.random.random_range(0..3) };
        let fault = if scenario.random.random_bool(0.5) { Fault::Cut } else { Fault::Stall };
        eprintln!("node-{node} of leader node-{leader}: {fault:?}");
        scenario.cluster.network.part(&[node], &others(3, node), fault);
        if node == leader {
            scenario.cluster.wait_for_term(before.term + 1).await;
        }
        scenario.progress().await;
        scenario.a_while().await;
        scenario.cluster.network.heal();
        scenario.a_while().await;
    }
    scenario.finish().await;
}

#[tokio::test]
async fn links_break_in_one_direction() {
    let mut scenario = Scenario::start("links_break_in_one_direction").await;
    for _ in 0..Scenario::rounds(6) {
        for _ in 0..scenario.random.random_range(1..=2) {
            let from = scenario.random.random_range(0..3);
            let to = *others(3, from).choose(&mut scenario.random).expect("there are two others");
            let delay = scenario.random.random_range(Duration::from_millis(1)..Duration::from_millis(150));
            let fault =
                *[Fault::Cut, Fault::Stall, Fault::Delay(delay)].choose(&mut scenario.random).expect("three");
            eprintln!("from node-{from} to node-{to}: {fault:?}");
            scenario.cluster.network.fault(from, to, fault);
        }
        scenario.a_while().await;
        scenario.a_while().await;
        scenario.cluster.network.heal();
        scenario.progress().await;
    }
    scenario.finish().await;
}

#[tokio::test]
async fn processes_stand_still() {
    let scenario = Scenario::start("processes_stand_still").await;
    stand_still(scenario).await;
}

/// A leader that has stood still goes on with a lease that it takes for its own, unless it looks how late it is.
#[tokio::test]
async fn processes_stand_still_that_read_by_lease() {
    let name = "processes_stand_still_that_read_by_lease";
    let scenario = Scenario::start_with(name, &["--lease-reads"]).await;
    stand_still(scenario).await;
}

async fn stand_still(mut scenario: Scenario) {
    for round in 0..Scenario::rounds(5) {
        let (leader, before) = scenario.cluster.wait_for_leader().await;
        let node = if round % 2 == 0 { leader } else { scenario.random.random_range(0..3) };
        scenario.cluster.pause(node);
        if node == leader {
            scenario.cluster.wait_for_term(before.term + 1).await;
        }
        scenario.progress().await;
        scenario.a_while().await;
        scenario.cluster.resume(node);
        scenario.a_while().await;
    }
    scenario.finish().await;
}

#[tokio::test]
async fn the_leader_stops_in_order() {
    let mut scenario = Scenario::start("the_leader_stops_in_order").await;
    for _ in 0..Scenario::rounds(3) {
        let (leader, _) = scenario.cluster.wait_for_leader().await;
        scenario.cluster.terminate(leader).await;
        scenario.progress().await;
        scenario.cluster.restart(leader);
        let (leader, status) = scenario.cluster.wait_for_voters(3).await;
        let peer = scenario.cluster.members[leader].settings.peer;
        // It may be refused while a member is still catching up; what matters is that nothing is lost.
        if let Err(reason) = admin::transfer(peer, &status).await {
            eprintln!("not transferred: {reason}");
        }
        scenario.progress().await;
    }
    scenario.finish().await;
}

/// It takes the lead again whenever it comes back.
#[tokio::test]
async fn a_preferred_member_leads() {
    let mut scenario = Scenario::start("a_preferred_member_leads").await;
    let preferred = scenario.random.random_range(0..3);
    scenario.cluster.terminate(preferred).await;
    scenario.cluster.members[preferred].settings.more.push("--priority=7".to_owned());
    for _ in 0..Scenario::rounds(2) {
        scenario.progress().await;
        scenario.cluster.restart(preferred);
        scenario.cluster.wait_for_lead_of(preferred).await;
        scenario.progress().await;
        scenario.cluster.kill(preferred);
    }
    scenario.finish().await;
}

#[tokio::test]
async fn members_come_and_go() {
    let mut scenario = Scenario::start("members_come_and_go").await;
    scenario.cluster.add().await;
    scenario.cluster.add().await;
    let (leader, _) = scenario.cluster.wait_for_voters(5).await;
    scenario.progress().await;
    // The leader and another one go: a new one, so that the clients, who know the first three, always reach somebody.
    let new: Vec<_> = others(5, leader).into_iter().filter(|node| *node >= 3).collect();
    let other = *new.choose(&mut scenario.random).expect("one of the two new ones does not lead");
    let gone = [leader, other];
    remove(&mut scenario, &gone).await;
    let (_, status) = scenario.cluster.wait_for_voters(3).await;
    let voters = status.configuration.and_then(|status| status.configuration).unwrap_or_default().voters;
    for node in gone {
        assert!(!voters.contains(&scenario.cluster.members[node].id), "node-{node} still votes");
        scenario.cluster.kill(node);
    }
    scenario.progress().await;
    // Those that are left can lose one.
    let (leader, _) = scenario.cluster.wait_for_leader().await;
    scenario.cluster.kill(leader);
    scenario.progress().await;
    scenario.cluster.restart(leader);
    scenario.finish_with_those_up().await;
}

/// Has the leader leave `gone` out of the configuration, all in one change.
async fn remove(scenario: &mut Scenario, gone: &[usize]) {
    let ids: Vec<u64> = gone.iter().map(|&node| scenario.cluster.members[node].id).collect();
    for &node in gone {
        scenario.cluster.members[node].leaves = true;
    }
    scenario
        .cluster
        .wait("the change to be taken", async |cluster| {
            let (leader, status) = cluster.wait_for_leader().await;
            let mut wanted: Configuration =
                status.configuration.clone().unwrap_or_default().configuration.unwrap_or_default();
            if !wanted.voters.iter().any(|id| ids.contains(id)) {
                return Ok(());
            }
            wanted.voters.retain(|id| !ids.contains(id));
            wanted.members.retain(|member| !ids.contains(&member.id));
            admin::change(cluster.members[leader].settings.peer, &status, wanted)
                .await
                .map_err(|status| status.to_string())
        })
        .await;
}
