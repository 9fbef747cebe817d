//! What those who explore all states rely on: copies go their own ways, and states that will do the same are equal.

use bytes::Bytes;
use quorate_raft::{Config, MemberId, Raft};

fn founder() -> Raft {
    let id = MemberId(1);
    let config = Config {
        id,
        election_ticks: 1,
        start_ticks: 1,
        heartbeat_ticks: 1,
        disk_ticks: 3,
        priority: 0,
        lease: None,
        promised: false,
        max_append_bytes: 1 << 20,
        max_inflight_bytes: 1 << 20,
        seed: 1,
    };
    Raft::new(config, Raft::founding(id, Bytes::new()))
}

/// Takes all outputs, and reports all writes.
fn settle(raft: &mut Raft) {
    while raft.has_output() {
        if let Some(write) = raft.output().write {
            raft.persisted(write.id);
        }
    }
}

#[test]
fn a_copy_goes_its_own_way() {
    let mut raft = founder();
    let before = raft.clone();
    assert_eq!(raft, before);
    raft.tick();
    assert_ne!(raft, before);
    let mut copy = before.clone();
    copy.tick();
    assert_eq!(raft, copy);
}

#[test]
fn how_often_it_wrote_makes_no_difference() {
    let mut at_once = founder();
    at_once.tick();
    settle(&mut at_once);
    let mut one_by_one = at_once.clone();
    at_once.propose(vec!["a".into(), "b".into()]).expect("it leads");
    settle(&mut at_once);
    for command in ["a", "b"] {
        one_by_one.propose(vec![command.into()]).expect("it leads");
        settle(&mut one_by_one);
    }
    // What was written last of the commit index is one state of the disk.
    for raft in [&mut at_once, &mut one_by_one] {
        raft.propose(vec!["c".into()]).expect("it leads");
        settle(raft);
    }
    assert_ne!(at_once, one_by_one);
    assert_eq!(at_once.canonical(), one_by_one.canonical());
    // What is under way still can be told apart.
    at_once.propose(vec!["d".into()]).expect("it leads");
    let write = at_once.output().write.expect("the proposal");
    assert_ne!(at_once.canonical(), one_by_one.canonical());
    one_by_one.propose(vec!["d".into()]).expect("it leads");
    one_by_one.output();
    assert_eq!(at_once.canonical(), one_by_one.canonical());
    at_once.persisted(write.id);
    assert_ne!(at_once.canonical(), one_by_one.canonical());
}

#[test]
fn time_without_end_makes_no_difference() {
    let mut raft = founder();
    raft.tick();
    raft.output();
    // Its vote is not durable, and its disk hangs.
    let patient: Vec<Raft> = (0..9)
        .map(|_| {
            raft.tick();
            raft.output();
            raft.canonical()
        })
        .collect();
    assert_ne!(patient[0], patient[3]);
    assert!(patient[4..].iter().all(|later| *later == patient[4]));
}
