//! Members that clients add, promote and remove by etcd's API.

use std::process::Command;

use quorate_api::admin::StatusResponse;
use quorate_api::etcdserverpb as pb;
use quorate_api::etcdserverpb::cluster_client::ClusterClient;
use quorate_tests::clients::endpoint;
use tonic::Status;
use tonic::transport::Channel;

use crate::cluster::Cluster;
use crate::filler;
use crate::network::{Number, others};
use crate::node::Settings;
use crate::scenario::Scenario;

fn client(cluster: &Cluster, node: Number) -> ClusterClient<Channel> {
    let endpoint = endpoint(cluster.members[node].settings.client).timeout(filler::PATIENCE);
    ClusterClient::new(endpoint.connect_lazy())
}

fn url(settings: &Settings) -> String {
    format!("http://{}", settings.advertised_peer)
}

async fn add(cluster: &Cluster, at: Number, settings: &Settings, is_learner: bool) -> Result<u64, Status> {
    let request = pb::MemberAddRequest { peer_ur_ls: vec![url(settings)], is_learner };
    let answer = client(cluster, at).member_add(request).await?.into_inner();
    let member = answer.member.expect("it says which");
    assert_eq!((member.name.as_str(), member.is_learner), ("", is_learner));
    assert!(answer.members.contains(&member));
    Ok(member.id)
}

async fn remove(cluster: &Cluster, at: Number, id: u64) -> Result<(), Status> {
    client(cluster, at).member_remove(pb::MemberRemoveRequest { id }).await.map(drop)
}

/// Asks until it is done: in the first moments of a leader its cluster is not known to be well.
async fn until_done<T>(
    cluster: &mut Cluster,
    what: &str,
    mut ask: impl AsyncFnMut(&Cluster) -> Result<T, Status>,
) -> T {
    cluster
        .wait(what, async |cluster: &mut Cluster| {
            ask(cluster).await.map_err(|status| status.message().to_owned())
        })
        .await
}

async fn becomes(cluster: &mut Cluster, node: Number, id: u64) -> StatusResponse {
    let status = cluster
        .wait("the node to take the ID that was registered", async |cluster: &mut Cluster| {
            let status = cluster.status(node).await?;
            (status.member_id == id).then_some(status.clone()).ok_or(format!("{status:?}"))
        })
        .await;
    cluster.members[node].id = id;
    cluster.network.introduce(id, node);
    status
}

#[tokio::test]
async fn volume_that_comes_takes_the_id_that_was_registered_and_no_other_volume_does() {
    let name = "volume_that_comes_takes_the_id_that_was_registered_and_no_other_volume_does";
    let mut scenario = Scenario::start(name).await;
    let cluster = &mut scenario.cluster;
    let (leader, _) = cluster.wait_for_leader().await;
    let [follower, _] = others(3, leader)[..] else { panic!("of three") };
    let reserved = cluster.reserve().await;
    let id = until_done(cluster, "a voter to be registered", async |cluster: &Cluster| {
        add(cluster, follower, &reserved, false).await
    })
    .await;
    // Until it comes it is no voter, whatever is shown of it: what there is goes on as before.
    let (_, status) = cluster.wait_for_leader().await;
    let configuration = status.configuration.and_then(|it| it.configuration).expect("there is one");
    assert_eq!((configuration.voters.len(), &configuration.learners[..]), (3, &[id][..]));
    let again = add(cluster, leader, &reserved, false).await.expect_err("it is registered");
    assert_eq!(again.message(), "etcdserver: unhealthy cluster");
    filler::put(cluster, leader, 10).await.expect("a quorum is there");

    let node = cluster.launch_reserved(reserved.clone()).await;
    becomes(cluster, node, id).await;
    cluster.wait_for_voters(4).await;
    cluster.kill(node);
    cluster.restart(node);
    let status = becomes(cluster, node, id).await;
    assert_eq!(status.name, reserved.name);

    // The volume is lost, and with it the ID.
    cluster.kill(node);
    std::fs::remove_dir_all(&reserved.data).expect("it is there");
    cluster.restart(node);
    let other = cluster
        .wait("the new volume to join as another member", async |cluster: &mut Cluster| {
            let status = cluster.status(node).await?;
            assert_ne!(status.member_id, id, "an ID is never used again");
            (status.leader_id != 0).then_some(status.member_id).ok_or(format!("{status:?}"))
        })
        .await;
    cluster.members[node].id = other;
    cluster.network.introduce(other, node);
    until_done(cluster, "the lost member to be removed", async |cluster: &Cluster| {
        match remove(cluster, leader, id).await {
            Err(status) if status.message() == "etcdserver: member not found" => Ok(()),
            done => done,
        }
    })
    .await;
    cluster.wait_for_voters(4).await;
    scenario.finish().await;
}

#[tokio::test]
async fn learner_that_was_registered_stays_one_until_it_is_promoted_and_may_never_come() {
    let name = "learner_that_was_registered_stays_one_until_it_is_promoted_and_may_never_come";
    let mut scenario = Scenario::start(name).await;
    let cluster = &mut scenario.cluster;
    let (leader, _) = cluster.wait_for_leader().await;
    let [follower, _] = others(3, leader)[..] else { panic!("of three") };
    let never = cluster.reserve().await;
    let id = until_done(cluster, "a learner to be registered", async |cluster: &Cluster| {
        add(cluster, leader, &never, true).await
    })
    .await;
    let promote = async |cluster: &Cluster, id| {
        client(cluster, follower).member_promote(pb::MemberPromoteRequest { id }).await.map(drop)
    };
    let refused = promote(cluster, id).await.expect_err("it has never come");
    assert_eq!(
        refused.message(),
        "etcdserver: can only promote a learner member which is in sync with leader"
    );
    let second = add(cluster, leader, &cluster.members[0].settings.clone(), true).await;
    assert_eq!(second.expect_err("it is there").message(), "etcdserver: Peer URLs already exists");
    remove(cluster, follower, id).await.expect("it is not needed");
    let gone = remove(cluster, follower, id).await.expect_err("it has gone");
    assert_eq!(gone.message(), "etcdserver: member not found");

    // Its address may be registered again: under another ID.
    let another = add(cluster, leader, &never, true).await.expect("the address is free");
    assert_ne!(another, id);
    let node = cluster.launch_reserved(never).await;
    becomes(cluster, node, another).await;
    until_done(cluster, "the learner to be promoted", async |cluster: &Cluster| {
        let status = cluster.status(leader).await.map_err(Status::unavailable)?;
        let configuration = status.configuration.and_then(|it| it.configuration).unwrap_or_default();
        assert_eq!(configuration.voters.len(), 3, "it was registered as a learner");
        promote(cluster, another).await
    })
    .await;
    cluster.wait_for_voters(4).await;
    scenario.finish().await;
}

/// What etcdctl prints.
async fn etcdctl(cluster: &Cluster, node: Number, arguments: &[&str]) -> Option<String> {
    let program = std::env::var_os("QUORATE_ETCDCTL")?;
    let endpoint = format!("--endpoints={}", cluster.members[node].settings.client);
    let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
    let run = move || Command::new(program).arg(endpoint).arg("member").args(arguments).output();
    let output = tokio::task::spawn_blocking(run).await.expect("it ends").expect("it runs");
    assert!(output.status.success(), "{output:?}");
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[tokio::test]
async fn etcdctl_changes_the_membership_as_etcds() {
    let mut scenario = Scenario::start_idle("etcdctl_changes_the_membership_as_etcds").await;
    let cluster = &mut scenario.cluster;
    let (leader, _) = cluster.wait_for_leader().await;
    let reserved = cluster.reserve().await;
    let peers = format!("--peer-urls={}", url(&reserved));
    let Some(added) = etcdctl(cluster, leader, &["add", "other", &peers, "--learner"]).await else { return };
    let id = added.split_whitespace().nth(1).expect("Member ID added as learner to cluster").to_owned();
    assert!(added.contains("added as learner to cluster"), "{added}");
    let list = etcdctl(cluster, leader, &["list"]).await.expect("it runs");
    let line = format!("{id}, unstarted, , {}, , true", url(&reserved));
    assert!(list.lines().any(|shown| shown == line), "{list}");
    let elsewhere = cluster.reserve().await;
    let updated =
        etcdctl(cluster, leader, &["update", &id, &format!("--peer-urls={}", url(&elsewhere))]).await;
    assert!(updated.is_some_and(|updated| updated.contains("updated in cluster")));
    let node = cluster.launch_reserved(elsewhere).await;
    becomes(cluster, node, u64::from_str_radix(&id, 16).expect("an ID")).await;
    cluster
        .wait("the learner to have caught up", async |cluster: &mut Cluster| {
            let status = cluster.status(leader).await?;
            let own = cluster.members[node].id;
            let has = status.progress.iter().any(|member| member.member_id == own && member.caught_up);
            has.then_some(()).ok_or(format!("{status:?}"))
        })
        .await;
    let promoted = etcdctl(cluster, leader, &["promote", &id]).await;
    assert!(promoted.is_some_and(|promoted| promoted.contains("promoted in cluster")));
    cluster.wait_for_voters(4).await;
    cluster.members[node].leaves = true;
    let removed = etcdctl(cluster, leader, &["remove", &id]).await;
    assert!(removed.is_some_and(|removed| removed.contains("removed from cluster")));
    cluster.wait_for_voters(3).await;
}
