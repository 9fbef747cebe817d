//! A snapshot that is durable before the log on disk knows of it.

use quorate_raft::{
    Config, Configuration, Entry, HardState, LogId, MemberId, Payload, Raft, Restored, Snapshot,
};

const ID: LogId = LogId { term: 3, index: 77 };

fn restored(entries: Vec<Entry>) -> Raft {
    let config = Config {
        id: MemberId(1),
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
    let configuration = Configuration { voters: [2, 3].map(MemberId).into(), ..Configuration::default() };
    let snapshot = Snapshot { id: ID, configuration, configuration_id: LogId { term: 1, index: 1 } };
    let hard_state = HardState { term: 3, vote: None, commit: 0 };
    Raft::new(config, Restored { hard_state, snapshot: Some(snapshot), entries, ..Restored::default() })
}

fn entry(term: u64, index: u64) -> Entry {
    Entry { term, index, payload: Payload::Noop }
}

/// The process has ended between the two. An empty log may be one that never held anything.
#[test]
fn a_log_that_is_behind_its_snapshot_begins_anew_after_it() {
    for entries in [vec![], vec![entry(1, 1), entry(1, 2)]] {
        let mut raft = restored(entries);
        assert_eq!(raft.output().write.expect("the log on disk").reset, Some(ID));
        assert_eq!(raft.status().last, ID);
    }
}

#[test]
fn a_log_that_holds_its_snapshots_last_entry_stays() {
    for entries in [vec![entry(3, 77), entry(3, 78)], vec![entry(3, 78)]] {
        let mut raft = restored(entries);
        assert!(raft.output().write.is_none_or(|write| write.reset.is_none()));
        assert_eq!(raft.status().last.index, 78);
    }
}
