//! Three real nodes: writes and reads anywhere, a leader that dies, a leader that goes.

mod support;

use quorate_api::admin::{ChangeMembershipRequest, Role, StatusRequest, TransferLeadershipRequest};
use quorate_api::etcdserverpb::MoveLeaderRequest;
use quorate_api::etcdserverpb::maintenance_client::MaintenanceClient;
use support::{Home, Node, cluster_of_three, cluster_of_three_with, eventually, has_voters, leader};
use tonic::Code;
use tonic::transport::Endpoint;

#[tokio::test]
async fn every_member_takes_writes_and_serves_reads() {
    let nodes = cluster_of_three().await;
    for node in &nodes {
        let key = format!("from-{}", node.home.name);
        node.put_surely(&key, "value").await;
        for reader in &nodes {
            assert_eq!(reader.get_surely(&key).await.as_deref(), Some("value"));
        }
    }
    let cluster = nodes[0].status().await.cluster_id;
    eventually("all name one leader", async || {
        let statuses = [nodes[0].status().await, nodes[1].status().await, nodes[2].status().await];
        assert!(cluster != 0 && statuses.iter().all(|status| status.cluster_id == cluster));
        let leader = statuses[0].leader_id;
        (leader != 0 && statuses.iter().all(|status| status.leader_id == leader)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn nothing_is_lost_when_the_leader_is_killed() {
    let mut nodes = cluster_of_three().await;
    for number in 0..20 {
        nodes[number % 3].put_surely(&format!("k{number}"), "before").await;
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
    nodes[1].put_surely("key", "value").await;
    let homes: Vec<Home> = nodes.into_iter().map(Node::kill).collect();
    let nodes: Vec<_> = homes.into_iter().map(|home| home.start(&[])).collect();
    for node in &nodes {
        assert_eq!(node.get_surely("key").await.as_deref(), Some("value"));
    }
}

#[tokio::test]
async fn a_leader_that_is_told_to_stop_hands_over_first() {
    let mut nodes = cluster_of_three().await;
    // On a busy machine another may be elected in the moment before the signal: then it is that one's turn.
    let (term, home) = loop {
        let place = leader(&nodes).await;
        let going = nodes.remove(place);
        let term = going.status().await.term;
        let (status, home, log) = going.terminate();
        assert_eq!(status.code(), Some(0));
        if log.contains("handed leadership over") {
            break (term, home);
        }
        assert!(
            nodes[leader(&nodes).await].status().await.term > term,
            "it led, and did not hand over: {log}"
        );
        nodes.push(home.start(&[]));
    };
    assert!(nodes[leader(&nodes).await].status().await.term > term);
    nodes[0].put_surely("key", "value").await;
    let back = home.start(&[]);
    assert_eq!(back.get_surely("key").await.as_deref(), Some("value"));
}

#[tokio::test]
async fn leadership_goes_where_it_is_sent() {
    let nodes = cluster_of_three().await;
    let from = leader(&nodes).await;
    let to = &nodes[(from + 1) % 3];
    let target = to.status().await.member_id;
    eventually("the target leads", async || {
        let now = leader(&nodes).await;
        if now != (from + 1) % 3 {
            nodes[now].transfer(target).await;
        }
        (to.status().await.role() == Role::Leader).then_some(())
    })
    .await;

    let elsewhere = TransferLeadershipRequest { cluster_id: 1, target: 0 };
    let refused = to.admin().await.transfer_leadership(elsewhere).await.expect_err("that is another cluster");
    assert_eq!(refused.code(), Code::FailedPrecondition);
}

/// As `etcdctl move-leader` asks: only the leader can be asked, and only a voter can be named.
#[tokio::test]
async fn leadership_is_moved_as_etcd_moves_it() {
    let nodes = cluster_of_three().await;
    let ask = async |at: &Node, target_id: u64| {
        let channel = Endpoint::from_shared(format!("http://{}", at.client)).expect("a URL").connect_lazy();
        MaintenanceClient::new(channel).move_leader(MoveLeaderRequest { target_id }).await.map(drop)
    };
    let target = nodes[1].status().await.member_id;
    eventually("it is moved", async || {
        let from = leader(&nodes).await;
        let to = &nodes[(from + 1) % 3];
        let target = to.status().await.member_id;
        // It may take longer than a member waits for it.
        ask(&nodes[from], target).await.ok()?;
        (to.status().await.role() == Role::Leader).then_some(())
    })
    .await;
    let leads = leader(&nodes).await;
    let unknown = ask(&nodes[leads], 77).await.expect_err("no member has this ID");
    assert_eq!(
        (unknown.code(), unknown.message()),
        (Code::FailedPrecondition, "etcdserver: bad leader transferee")
    );
    let elsewhere = ask(&nodes[(leads + 1) % 3], target).await.expect_err("it does not lead");
    assert_eq!((elsewhere.code(), elsewhere.message()), (Code::FailedPrecondition, "etcdserver: not leader"));
}

#[tokio::test]
async fn a_member_is_removed_and_stays_out() {
    let mut nodes = cluster_of_three().await;
    let from = leader(&nodes).await;
    let goes = nodes.remove((from + 1) % 3);
    let stays = &nodes[leader(&nodes).await];
    let gone = goes.status().await.member_id;
    let home = goes.kill();
    let mut request = None;
    let two = eventually("two voters", async || {
        let leads = &nodes[leader(&nodes).await];
        let status = leads.status().await;
        if has_voters(2)(&status) {
            return Some(status);
        }
        let current = status.configuration?;
        let mut wanted = current.configuration?;
        wanted.voters.retain(|id| *id != gone);
        wanted.members.retain(|member| member.id != gone);
        let change = ChangeMembershipRequest {
            cluster_id: status.cluster_id,
            expected: current.id,
            wanted: Some(wanted),
            ..Default::default()
        };
        if leads.admin().await.change_membership(change.clone()).await.is_ok() {
            request = Some(change);
        }
        None
    })
    .await;
    assert!(
        !two.configuration
            .and_then(|current| current.configuration)
            .unwrap_or_default()
            .voters
            .contains(&gone)
    );
    stays.put_surely("key", "value").await;

    let request = request.expect("it was asked for");
    eventually("a change that starts from an old configuration is refused", async || {
        let refused = nodes[leader(&nodes).await].admin().await.change_membership(request.clone()).await;
        (refused.expect_err("it is stale").code() == Code::Aborted).then_some(())
    })
    .await;

    // It was away when it was removed, and its own log does not know: it must not let itself in again.
    let join = ["--join".to_owned(), stays.peer.clone()];
    let (status, said) = home.fail(&[&join[0], &join[1]]);
    assert_eq!(status.code(), Some(5));
    assert!(said.contains("was removed from cluster"), "{said}");
}

/// An orderly end is told from a crash: nobody hears a stream break off.
#[tokio::test]
async fn a_member_that_stops_says_goodbye_to_the_others() {
    let broken = "a member's stream broke off";
    let mut nodes = cluster_of_three_with(&["--log", "quorate_node=debug"]).await;
    let first = nodes.remove(0);
    let (status, _, _) = tokio::task::spawn_blocking(move || first.terminate()).await.expect("it stops");
    assert_eq!(status.code(), Some(0));
    nodes[0].put_surely("key", "value").await;
    for node in &nodes {
        assert!(!node.log().contains(broken), "{} says that it broke off", node.home.name);
    }
    // What would be said otherwise.
    nodes.remove(0).kill();
    eventually("a crash is noticed", async || nodes[0].log().contains(broken).then_some(())).await;
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
    assert!(first.term >= term);
    old.kill();
    eventually("the watch shows a new leader", async || {
        let status = watch.message().await.expect("a status").expect("no end");
        (status.term > term && status.leader_id != 0).then_some(())
    })
    .await;
}
