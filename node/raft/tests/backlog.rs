//! A long backlog of committed entries comes in pieces, so that its caller is never stuck in one.

use bytes::Bytes;
use quorate_raft::{Config, Entry, MemberId, Raft};

#[test]
fn a_backlog_comes_in_pieces() {
    let id = MemberId(1);
    let config = Config {
        id,
        election_ticks: 10,
        start_ticks: 10,
        heartbeat_ticks: 3,
        disk_ticks: 20,
        priority: 0,
        lease: None,
        promised: false,
        max_append_bytes: 1 << 20,
        max_inflight_bytes: 1 << 20,
        seed: 1,
    };
    let mut raft = Raft::new(config, Raft::founding(id, Bytes::new()));
    raft.tick();
    let vote = raft.output().write.expect("its own vote");
    raft.persisted(vote.id);
    let commands = 1000;
    raft.propose(vec![Bytes::from(vec![7; 4096]); commands]).expect("it leads");
    let write = raft.output().write.expect("the proposals");
    raft.persisted(write.id);

    let mut pieces = 0;
    let mut entries = 0;
    while raft.has_output() {
        let committed = raft.output().committed;
        assert!(committed.iter().map(Entry::weight).sum::<usize>() <= 1 << 20);
        pieces += 1;
        entries += committed.len();
    }
    assert!(pieces >= 4, "{pieces} pieces");
    // The no-op before them too; the founding entry was handed out with the vote.
    assert_eq!(entries, commands + 1);
}
