//! Three real nodes: writes and reads anywhere, a leader that dies, a leader that goes.

mod support;

use quorate_api::admin::{ChangeMembershipRequest, Role, StatusRequest, TransferLeadershipRequest};
use support::{Home, cluster_of_three, eventually, has_voters, leader};
use tonic::Code;

#[tokio::test]
async fn every_member_takes_writes_and_serves_reads() {
    let nodes = cluster_of_three().await;
    for node in &nodes {
        let key = format!("from-{}", node.home.name);
        node.put(&key, "value").await.expect("it is acknowledged");
        for reader in &nodes {
            assert_eq!(reader.get(&key).await.expect("it is answered").as_deref(), Some("value"));
        }
    }
    let statuses = [nodes[0].status().await, nodes[1].status().await, nodes[2].status().await];
    assert!(
        statuses.iter().all(|status| status.cluster_id == statuses[0].cluster_id && status.cluster_id != 0)
    );
    assert!(statuses.iter().all(|status| status.leader_id == statuses[0].leader_id));
}

#[tokio::test]
async fn nothing_is_lost_when_the_leader_is_killed() {
    let mut nodes = cluster_of_three().await;
    for number in 0..20 {
        nodes[number % 3].put(&format!("k{number}"), "before").await.expect("it is acknowledged");
    }
    let place = leader(&nodes).await;
    let term = nodes[place].status().await.term;
    let home = nodes.remove(place).kill();

    nodes[0].put_surely("after", "the leader was killed").await;
    let place = leader(&nodes).await;
    assert!(nodes[place].status().await.term > term);
    for number in 0..20 {
        assert_eq!(nodes[1].get_surely(&format!("k{number}")).await.as_deref(), Some("before"));
    }

    let back = home.start(&[]);
    back.status_when("follows again", |status| status.role() == Role::Follower && status.leader_id != 0)
        .await;
    assert_eq!(back.get_surely("after").await.as_deref(), Some("the leader was killed"));
}

#[tokio::test]
async fn all_are_killed_and_come_back() {
    let nodes = cluster_of_three().await;
    nodes[1].put("key", "value").await.expect("it is acknowledged");
    let homes: Vec<Home> = nodes.into_iter().map(support::Node::kill).collect();
    let nodes: Vec<_> = homes.into_iter().map(|home| home.start(&[])).collect();
    for node in &nodes {
        assert_eq!(node.get_surely("key").await.as_deref(), Some("value"));
    }
}

#[tokio::test]
async fn a_leader_that_is_told_to_stop_hands_over_first() {
    let mut nodes = cluster_of_three().await;
    let place = leader(&nodes).await;
    let going = nodes.remove(place);
    let term = going.status().await.term;
    let (status, home, log) = going.terminate();
    assert_eq!(status.code(), Some(0));
    assert!(log.contains("handed leadership over"), "{log}");
    assert!(nodes[leader(&nodes).await].status().await.term > term);
    nodes[0].put("key", "value").await.expect("there is a leader");
    let back = home.start(&[]);
    assert_eq!(back.get_surely("key").await.as_deref(), Some("value"));
}

#[tokio::test]
async fn leadership_goes_where_it_is_sent() {
    let nodes = cluster_of_three().await;
    let from = leader(&nodes).await;
    let to = &nodes[(from + 1) % 3];
    let status = to.status().await;
    let request = TransferLeadershipRequest { cluster_id: status.cluster_id, target: status.member_id };
    let answer =
        nodes[from].admin().await.transfer_leadership(request).await.expect("it is handed over").into_inner();
    assert_eq!(answer.leader_id, status.member_id);
    to.status_when("leads", |status| status.role() == Role::Leader).await;

    let refused = nodes[from].admin().await.transfer_leadership(request).await.expect_err("it leads no more");
    assert_eq!(refused.code(), Code::FailedPrecondition);
    let elsewhere = TransferLeadershipRequest { cluster_id: 1, target: 0 };
    let refused = to.admin().await.transfer_leadership(elsewhere).await.expect_err("that is another cluster");
    assert_eq!(refused.code(), Code::FailedPrecondition);
}

#[tokio::test]
async fn a_member_is_removed_and_knows_it() {
    let nodes = cluster_of_three().await;
    let from = leader(&nodes).await;
    let (stays, goes) = (&nodes[from], &nodes[(from + 1) % 3]);
    let gone = goes.status().await.member_id;
    let status = stays.status().await;
    let current = status.configuration.expect("a configuration");
    let mut wanted = current.configuration.expect("members");
    wanted.voters.retain(|id| *id != gone);
    wanted.members.retain(|member| member.id != gone);
    let request =
        ChangeMembershipRequest { cluster_id: status.cluster_id, expected: current.id, wanted: Some(wanted) };
    let mut admin = stays.admin().await;
    admin.change_membership(request.clone()).await.expect("it is begun");
    stays.status_when("two voters", has_voters(2)).await;

    let stale = admin.change_membership(request).await.expect_err("it starts from an old configuration");
    assert_eq!(stale.code(), Code::Aborted);
    stays.put("key", "value").await.expect("two are enough");

    goes.status_when("removed", |status| status.role() == Role::Removed).await;
    assert_eq!(goes.put("key", "value").await.expect_err("it is no member").code(), Code::Unavailable);
}

#[tokio::test]
async fn a_watch_tells_of_a_new_leader() {
    let mut nodes = cluster_of_three().await;
    let place = leader(&nodes).await;
    let old = nodes.remove(place);
    let term = old.status().await.term;
    let mut watch =
        nodes[0].admin().await.watch_status(StatusRequest {}).await.expect("a watch").into_inner();
    let first = watch.message().await.expect("a status").expect("at once");
    assert_eq!(first.term, term);
    old.kill();
    eventually("the watch shows a new leader", async || {
        let status = watch.message().await.expect("a status").expect("no end");
        (status.term > term && status.leader_id != 0).then_some(())
    })
    .await;
}
