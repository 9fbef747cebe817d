//! Two of three disks are gone for good: the third becomes a new cluster, which grows again.

mod support;

use std::process::{Command, Output, Stdio};

use quorate_api::etcdserverpb::RangeRequest;
use quorate_node::snapshots::{Corrupt, Hash, write_mark};
use quorate_node::storage::disk::OsDisk;
use quorate_raft::LogId;
use support::{Home, cluster_of_three, has_voters};

fn recover(home: &Home, more: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_raftctl"));
    command.env_clear().arg("recover").arg(home.data_dir()).args(more).stdin(Stdio::null());
    command.output().expect("raftctl runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[tokio::test]
async fn the_last_of_three_disks_becomes_a_cluster_that_grows_again() {
    let mut nodes = cluster_of_three().await;
    let revision = nodes[0].put_surely("precious", "x").await;
    let old = nodes[0].status().await;
    let in_use = recover(&nodes[0].home, &[]);
    assert!(!in_use.status.success() && text(&in_use.stderr).contains("is in use"), "{in_use:?}");
    let (third, second, first) = (nodes.pop(), nodes.pop(), nodes.pop());
    let [first, second, third] = [first, second, third].map(|node| node.expect("there are three").kill());
    drop(third);

    // Its state is not that of a majority: that is said, and does not keep anybody from it who has nothing else.
    let (own, majority) = (Hash([1; 32]), Hash([2; 32]));
    let corrupt = Corrupt { id: LogId { term: 1, index: 2 }, own, majority };
    write_mark(&OsDisk, &first.data_dir(), &corrupt).expect("it is written");
    // Who does not say which cluster it is has changed nothing.
    let asked = recover(&first, &[]);
    assert_eq!(asked.status.code(), Some(2), "{asked:?}");
    let shown = text(&asked.stdout);
    let cluster = format!("{:016x}", old.cluster_id);
    assert!(shown.contains(&cluster) && shown.contains("n2") && shown.contains("lost"), "{shown}");
    assert!(
        shown.contains("up to entry 2 this member's state") && shown.contains(&majority.to_string()),
        "{shown}"
    );
    assert_eq!(recover(&first, &["--yes-i-understand", "1"]).status.code(), Some(2));
    let wish = ["--yes-i-understand", &cluster, "--new-cluster", "a1", "--bump-revision", "5000"];
    let done = recover(&first, &wish);
    assert!(done.status.success(), "{done:?}");
    // A program that does not know whether it was done asks once more.
    let again = recover(&first, &wish);
    assert!(again.status.success() && text(&again.stdout).contains("nothing was changed"), "{again:?}");

    let first = first.start(&[]);
    let new = first.status_when("it leads", has_voters(1)).await;
    assert!(new.cluster_id == 0xa1 && new.member_id != old.member_id, "{new:?}");
    assert!(new.last_term > old.last_term && old.last_term > 0, "{old:?} {new:?}");
    assert_eq!(first.get_surely("precious").await.as_deref(), Some("x"));
    assert!(first.put_surely("after", "y").await > revision + 5000);
    let past = RangeRequest { key: "precious".into(), revision, ..RangeRequest::default() };
    let refused = first.kv().await.range(past).await.expect_err("it is another history's");
    assert!(refused.message().contains("compacted"), "{refused}");

    // A volume of the old cluster is refused; empty ones are let in.
    let join = ["--join".to_owned(), first.peer.clone()];
    let join: Vec<&str> = join.iter().map(String::as_str).collect();
    let (status, said) = second.fail(&join);
    assert_eq!(status.code(), Some(5), "{said}");
    let others = [Home::new("n4").start(&join), Home::new("n5").start(&join)];
    first.status_when("three voters", has_voters(3)).await;
    for node in &others {
        assert_eq!(node.get_surely("precious").await.as_deref(), Some("x"));
    }
    // It starts again from what it has become, and the old contents are still there to be looked at.
    let home = first.kill();
    let first = home.start(&[]);
    assert_eq!(first.get_surely("after").await.as_deref(), Some("y"));
    let before = first.home.data_dir().join(format!("before-{:016x}/old", old.member_id));
    let checked = Command::new(env!("CARGO_BIN_EXE_raftctl")).arg("check").arg(&before).output();
    assert!(checked.expect("raftctl runs").status.success());
}
