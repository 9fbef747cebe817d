//! Members whose disks went back in time, copies of members that run beside them, and members that lost everything but their command
//! line: each is told from a restart, and said.

use std::path::Path;
use std::process::Command;

use quorate_api::peer::peer_client::PeerClient;
use quorate_api::peer::{Frame, Heartbeat, Hello, Message, message};
use quorate_tests::clients::endpoint;
use quorate_tests::process::Process;

use crate::admin;
use crate::cluster::{Cluster, DEADLINE, eventually};
use crate::filler;
use crate::http::metric;
use crate::network::{Number, others};
use crate::node::Settings;
use crate::scenario::Scenario;

/// Far fewer than a question and its refusal make that follow one another as fast as they can.
const FEW_MESSAGES: u64 = 3000;

fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").arg(from).arg(to).status().expect("cp runs");
    assert!(copied.success(), "{} to {}: {copied}", from.display(), to.display());
}

/// The disk of `node`, which is down, goes back to what was copied to `copy`.
fn put_back(cluster: &Cluster, node: Number, backup: &Path) {
    let data = &cluster.members[node].settings.data;
    std::fs::remove_dir_all(data).expect("the node is down");
    copy(backup, data);
}

fn log(cluster: &Cluster, node: Number) -> String {
    std::fs::read_to_string(&cluster.members[node].settings.log).expect("it has written a log")
}

/// Writes until a write through `node` is acknowledged.
async fn write(cluster: &mut Cluster, node: Number) {
    let what = format!("a write through node-{node}");
    cluster.wait(&what, async |cluster: &mut Cluster| filler::put(cluster, node, 10).await).await;
}

/// The follower comes back without what it has acknowledged. It says so, has no vote until the leader has sent it again, and nobody asks
/// as fast as the network is. Then the third may stop: what is left goes on.
#[tokio::test]
async fn member_whose_disk_went_back_is_repaired_and_says_so() {
    let mut scenario = Scenario::start("member_whose_disk_went_back_is_repaired_and_says_so").await;
    let (leader, _) = scenario.cluster.wait_for_leader().await;
    let [back, third] = others(3, leader)[..] else { panic!("of three") };
    let backup = scenario.cluster.members[back].settings.data.with_extension("old");
    scenario.cluster.kill(back);
    copy(&scenario.cluster.members[back].settings.data, &backup);
    scenario.cluster.restart(back);
    scenario.progress().await;
    // What it answers it has applied, so that it is durable there.
    write(&mut scenario.cluster, back).await;
    scenario.progress().await;

    scenario.cluster.kill(back);
    put_back(&scenario.cluster, back, &backup);
    scenario.cluster.restart(back);
    is_repaired(&mut scenario.cluster, back).await;
    let said = log(&scenario.cluster, back);
    assert!(said.contains("the disk of this member went back in time"), "{said}");
    let told = log(&scenario.cluster, leader);
    assert!(
        told.contains("its disk went back in time")
            || told.contains("lacks entries that it has acknowledged"),
        "{told}"
    );
    let took =
        metric(scenario.cluster.members[leader].settings.http, "quorate_raft_acknowledgements_lost_total")
            .await;
    assert!(took.is_ok(), "{took:?}");
    // It counts again: two of three go on.
    scenario.cluster.kill(third);
    write(&mut scenario.cluster, leader).await;
    scenario.cluster.restart(third);
    scenario.progress().await;
    scenario.finish().await;
}

/// Waits until the member has noticed that its disk went back, and has what it had forgotten.
async fn is_repaired(cluster: &mut Cluster, node: Number) {
    cluster
        .wait("the member to be repaired", async |cluster: &mut Cluster| {
            let status = cluster.status(node).await?;
            let went_back = metric(cluster.members[node].settings.http, "quorate_raft_went_back").await?;
            if went_back > 0 && !status.repairing {
                Ok(())
            } else {
                Err(format!("went back {went_back}, {status:?}"))
            }
        })
        .await;
}

/// The same in a cluster without clients: the leader and the member do not ask one another the same again and again.
#[tokio::test]
async fn repair_of_a_disk_that_went_back_takes_few_messages() {
    let mut scenario = Scenario::start_idle("repair_of_a_disk_that_went_back_takes_few_messages").await;
    let cluster = &mut scenario.cluster;
    let (leader, _) = cluster.wait_for_leader().await;
    let back = others(3, leader)[0];
    let backup = cluster.members[back].settings.data.with_extension("old");
    cluster.kill(back);
    copy(&cluster.members[back].settings.data, &backup);
    cluster.restart(back);
    for _ in 0..50 {
        write(cluster, leader).await;
    }
    write(cluster, back).await;
    cluster.kill(back);
    put_back(cluster, back, &backup);
    let http = cluster.members[leader].settings.http;
    let before = metric(http, "quorate_peer_messages_total").await.expect("the leader is up");
    cluster.restart(back);
    is_repaired(cluster, back).await;
    write(cluster, back).await;
    let after = metric(http, "quorate_peer_messages_total").await.expect("the leader is up");
    assert!(after - before < FEW_MESSAGES, "{} messages", after - before);
}

/// Only two hold what is acknowledged; one goes off, the other back in time, and elects the third with it. Nobody who runs can tell. The one
/// that has it does not give it up: it ends with a line that says what it has seen, and keeps its directory.
#[tokio::test]
async fn member_that_holds_what_the_others_have_forgotten_ends_and_keeps_it() {
    let name = "member_that_holds_what_the_others_have_forgotten_ends_and_keeps_it";
    let mut scenario = Scenario::start_idle(name).await;
    let cluster = &mut scenario.cluster;
    let (holder, _) = cluster.wait_for_leader().await;
    let [back, third] = others(3, holder)[..] else { panic!("of three") };
    let backup = cluster.members[back].settings.data.with_extension("old");
    write(cluster, back).await;
    cluster.kill(back);
    copy(&cluster.members[back].settings.data, &backup);
    cluster.restart(back);
    write(cluster, back).await;
    // The holder leads on in its term: nobody votes twice in what follows.
    cluster.kill(third);
    for _ in 0..5 {
        write(cluster, back).await;
    }
    cluster.kill(holder);
    cluster.kill(back);
    put_back(cluster, back, &backup);
    cluster.restart(back);
    cluster.restart(third);
    for _ in 0..20 {
        write(cluster, third).await;
    }
    cluster.may_end(holder);
    cluster.restart(holder);
    let mut process = cluster.members[holder].process.take().expect("it was started");
    let status = process.wait(DEADLINE).await.expect("it ends by itself");
    assert_eq!(status.code(), Some(10), "{}", process.output());
    assert!(process.output().contains("What is committed is never cut off"), "{}", process.output());
    assert!(cluster.members[holder].settings.data.join("wal").is_dir());
    write(cluster, third).await;
}

/// A copy of a running member takes nothing over: it is refused while the original is heard, says why, and ends.
#[tokio::test]
async fn copy_that_runs_beside_its_original_is_refused_and_ends() {
    let mut scenario = Scenario::start("copy_that_runs_beside_its_original_is_refused_and_ends").await;
    let (leader, before) = scenario.cluster.wait_for_leader().await;
    let original = others(3, leader)[0];
    let folder = scenario.cluster.members[original].settings.data.parent().expect("a folder").to_owned();
    let settings = Settings::new(&folder, "copy");
    copy(&scenario.cluster.members[original].settings.data, &settings.data);
    let mut process: Process = settings.start();
    let status = process.wait(DEADLINE).await.expect("it ends by itself");
    assert_eq!(status.code(), Some(11), "{}", process.output());
    assert!(process.output().contains("another process that runs as this member"), "{}", process.output());
    let told = log(&scenario.cluster, leader);
    assert!(told.contains("another process runs as member"), "{told}");
    let http = scenario.cluster.members[leader].settings.http;
    assert!(metric(http, "quorate_identity_conflict_total").await.is_ok_and(|times| times > 0));
    assert!(scenario.cluster.status(leader).await.is_ok_and(|status| !status.conflict.is_empty()));
    scenario.progress().await;
    scenario
        .cluster
        .wait("the copy to be forgotten that has gone", async |cluster: &mut Cluster| {
            let conflict = cluster.status(leader).await?.conflict;
            if conflict.is_empty() { Ok(()) } else { Err(conflict) }
        })
        .await;
    let (_, after) = scenario.cluster.wait_for_leader().await;
    assert_eq!((before.leader_id, before.term), (after.leader_id, after.term), "nobody was disturbed");
    scenario.finish().await;
}

/// All members come back at other addresses, and each is told one that works.
#[tokio::test]
async fn members_that_have_all_moved_find_one_another_by_join() {
    let mut scenario = Scenario::start_idle("members_that_have_all_moved_find_one_another_by_join").await;
    let cluster = &mut scenario.cluster;
    write(cluster, 0).await;
    (0..3).for_each(|node| cluster.kill(node));
    for node in 0..3 {
        let folder = cluster.members[node].settings.data.parent().expect("a folder").to_owned();
        let fresh = Settings::new(&folder, "moved");
        let settings = &mut cluster.members[node].settings;
        (settings.client, settings.peer, settings.http) = (fresh.client, fresh.peer, fresh.http);
        settings.advertised_peer = fresh.peer;
        settings.more.clear();
    }
    let first = cluster.members[0].settings.peer;
    for node in 1..3 {
        cluster.members[node].settings.more = vec![format!("--join={first}")];
    }
    (0..3).for_each(|node| cluster.restart(node));
    cluster
        .wait("a configuration with the new addresses", async |cluster: &mut Cluster| {
            let (leader, status) = {
                let mut found = Err("nobody leads".to_owned());
                for node in 0..3 {
                    if let Ok(status) = cluster.status(node).await
                        && status.leader_id == status.member_id
                    {
                        found = Ok((node, status));
                    }
                }
                found?
            };
            let members =
                status.configuration.and_then(|c| c.configuration).map(|c| c.members).unwrap_or_default();
            let at = |node: Number| cluster.members[node].settings.peer.to_string();
            let all = (0..3).all(|node| members.iter().any(|member| member.peer_address == at(node)));
            if all { Ok(()) } else { Err(format!("node-{leader} leads, {members:?}")) }
        })
        .await;
    for node in 0..3 {
        write(cluster, node).await;
    }
}

/// The first node's disk is replaced, and its command line still founds. With the addresses of the others it joins them instead.
#[tokio::test]
async fn node_that_would_found_joins_the_cluster_that_there_is() {
    let mut scenario = Scenario::start_idle("node_that_would_found_joins_the_cluster_that_there_is").await;
    let cluster = &mut scenario.cluster;
    write(cluster, 0).await;
    let known = cluster.status(1).await.expect("it is up").cluster_id;
    cluster.kill(0);
    std::fs::remove_dir_all(&cluster.members[0].settings.data).expect("the node is down");
    let others: Vec<String> =
        (1..3).map(|node| cluster.members[node].settings.advertised_peer.to_string()).collect();
    cluster.members[0].settings.more = vec!["--bootstrap".to_owned(), format!("--join={}", others.join(","))];
    cluster.restart(0);
    cluster
        .wait("the node to be in the cluster", async |cluster: &mut Cluster| {
            let status = cluster.status(0).await?;
            if status.cluster_id == known && status.leader_id != 0 {
                Ok(())
            } else {
                Err(format!("{status:?}"))
            }
        })
        .await;
    write(cluster, 0).await;
}

/// With the addresses of others a node founds when they have all said that they belong to none, and waits for one that is silent.
#[tokio::test]
async fn node_founds_once_all_others_have_said_that_they_have_no_cluster() {
    let folder = tempfile::tempdir().expect("there is a place for temporary files");
    let other = Settings::new(folder.path(), "other");
    let founder =
        Settings::new(folder.path(), "founder").with("--bootstrap").with(format!("--join={}", other.peer));
    let mut first = founder.start();
    eventually("a word of whom it waits for", async || {
        let said = first.output();
        if said.contains("founds no cluster before") { Ok(()) } else { Err(said) }
    })
    .await;
    assert_eq!(admin::status(founder.peer).await.map(|status| status.cluster_id).ok(), Some(0));
    let joiner = other.with(format!("--join={}", founder.peer));
    let mut second = joiner.start();
    eventually("one cluster of two", async || {
        let (one, two) = (admin::status(founder.peer).await, admin::status(joiner.peer).await);
        let clusters = (one.map_or(0, |status| status.cluster_id), two.map_or(1, |status| status.cluster_id));
        if clusters.0 == clusters.1 { Ok(()) } else { Err(format!("{clusters:?}")) }
    })
    .await;
    assert!(first.ended().expect("a child can be asked").is_none() && second.ended().expect("so").is_none());
    first.kill().and(second.kill()).expect("children can be killed");
}

/// What a holder of a certificate can say on the peer port: a term that would be stored for good, and a heartbeat that makes it a second
/// leader of the term. The first is refused at the door, and neither ends a node or deposes the leader.
#[tokio::test]
async fn foreign_heartbeats_and_terms_that_jump_disturb_nobody() {
    let mut scenario = Scenario::start_idle("foreign_heartbeats_and_terms_that_jump_disturb_nobody").await;
    let cluster = &mut scenario.cluster;
    let (leader, before) = cluster.wait_for_leader().await;
    let follower = others(3, leader)[0];
    write(cluster, follower).await;
    let hello = Hello {
        cluster_id: before.cluster_id,
        from: 0x77,
        to: cluster.members[follower].id,
        start: 1,
        nonce: 1,
        oldest_level: before.oldest_level,
        newest_level: before.newest_level,
        ..Hello::default()
    };
    for term in [before.term, before.term + (1 << 33), u64::MAX] {
        let body = message::Body::Heartbeat(Heartbeat::default());
        let messages = vec![Message { term, body: Some(body) }];
        let frame = Frame { hello: Some(hello.clone()), messages, durable: 0 };
        let peer = endpoint(cluster.members[follower].settings.peer).connect().await.expect("it listens");
        let answer = PeerClient::new(peer).send(futures::stream::iter([frame])).await;
        let refused = answer.is_err_and(|status| status.message().contains("too far from term"));
        assert_eq!(refused, term > before.term, "a heartbeat of term {term}");
    }
    cluster
        .wait("a word of the second leader", async |cluster: &mut Cluster| {
            let status = cluster.status(follower).await?;
            let told = status.conflict.contains("both lead term");
            if told { Ok(()) } else { Err(format!("{status:?}")) }
        })
        .await;
    write(cluster, follower).await;
    let (_, after) = cluster.wait_for_leader().await;
    assert_eq!((before.leader_id, before.term), (after.leader_id, after.term));
}
