//! What one member's directory holds becomes a new cluster of one.

use std::path::Path;
use std::sync::Arc;

use prost::Message as _;
use quorate_api::etcdserverpb::{PutRequest, RangeRequest};
use quorate_api::log;
use quorate_api::log::command::Operation;
use quorate_node::codec;
use quorate_node::recover::{self, RecoverError, TERMS};
use quorate_node::server::start;
use quorate_node::storage::disk::{Disk, OsDisk};
use quorate_node::storage::identity::Identity;
use quorate_node::storage::{Wal, WalOptions};
use quorate_raft::{Configuration, Entry, HardState, LogId, MemberId, Payload, Write, WriteId};

use crate::MEMBER;

const CLUSTER: u64 = 0xc1;
const FOUNDED: (u64, MemberId) = (0xc2, MemberId(0x99));
const LEAP: i64 = 1000;

fn put(index: u64, term: u64, key: &str) -> Entry {
    let request = PutRequest { key: key.to_owned().into(), value: "value".into(), ..PutRequest::default() };
    let command =
        log::Command { request: index, operation: Some(Operation::Put(request)), ..Default::default() };
    Entry { term, index, payload: Payload::Command(command.encode_to_vec().into()) }
}

/// A voter among three, whose log ends with entry 4 of term 3; it knows that 3 are committed.
fn lost_quorum(dir: &Path) {
    Identity::open(&OsDisk, dir, MEMBER).unwrap();
    let (mut wal, _) =
        Wal::open(dir, WalOptions { segment_bytes: 1 << 20, ..WalOptions::new(MEMBER) }).unwrap();
    let described =
        log::Member { id: MEMBER.0, name: "n1".into(), peer_address: "a:1".into(), ..Default::default() };
    let configuration = Configuration {
        voters: [MEMBER, MemberId(8), MemberId(9)].into(),
        addresses: [(MEMBER, codec::address(&described))].into(),
        ..Configuration::default()
    };
    let first = Entry { term: 1, index: 1, payload: Payload::Configuration(Box::new(configuration)) };
    let hard_state = Some(HardState { term: 3, vote: Some(MemberId(9)), commit: 3 });
    let entries = vec![first, put(2, 1, "a"), put(3, 2, "b"), put(4, 3, "c")];
    wal.append(&[Write { id: WriteId(0), hard_state, reset: None, lost: None, entries }]).unwrap();
    Identity::read(&OsDisk, dir).unwrap().unwrap().join(&OsDisk, dir, CLUSTER).unwrap();
}

fn disk() -> Arc<dyn Disk> {
    Arc::new(OsDisk)
}

#[test]
fn all_that_is_there_is_kept_in_a_new_cluster_of_one_and_no_number_is_dealt_out_twice() {
    let home = tempfile::tempdir().unwrap();
    lost_quorum(home.path());
    let remains = recover::read(home.path()).unwrap();
    assert_eq!((remains.identity.cluster, remains.revision(), remains.uncertain()), (CLUSTER, 4, 1));
    assert_eq!(remains.configuration.voters.len(), 3);
    let founded = remains.found(&disk(), home.path(), FOUNDED, LEAP).unwrap();
    assert_eq!(founded.revision, 4 + LEAP);

    let identity = Identity::read(&OsDisk, home.path()).unwrap().unwrap();
    assert_eq!((identity.cluster, identity.member), FOUNDED);
    let found = start::read(home.path(), &WalOptions::new(identity.member), |_| None).unwrap();
    let snapshot = found.restored.snapshot.expect("it begins with one");
    let id = LogId { term: 3 + TERMS, index: 5 };
    assert_eq!((snapshot.id, snapshot.configuration_id), (id, id));
    assert_eq!(found.restored.hard_state, HardState { term: id.term, vote: None, commit: 5 });
    assert!(found.restored.entries.is_empty() && found.restored.lost.is_none());
    assert_eq!(snapshot.configuration.voters, [FOUNDED.1].into());
    let described = codec::member(&snapshot.configuration.addresses[&FOUNDED.1]).unwrap();
    assert_eq!((described.id, &*described.name, &*described.peer_address), (FOUNDED.1.0, "n1", "a:1"));

    assert_eq!((found.state.revision(), found.state.compacted()), (4 + LEAP, 4 + LEAP));
    for key in ["a", "b", "c"] {
        let request = RangeRequest { key: key.into(), ..RangeRequest::default() };
        assert_eq!(found.state.range(&request).unwrap().kvs.len(), 1, "{key}");
        let past = RangeRequest { revision: 4, ..request };
        found.state.range(&past).unwrap_err();
    }
    let old = Identity::read(&OsDisk, &founded.before).unwrap().unwrap();
    assert_eq!((old.cluster, old.member), (CLUSTER, MEMBER));
    assert_eq!(recover::read(&founded.before).unwrap().revision(), 4, "it could be done again");
}

/// From a snapshot on, too; and a second time.
#[test]
fn what_was_recovered_can_be_recovered_again() {
    let home = tempfile::tempdir().unwrap();
    lost_quorum(home.path());
    recover::read(home.path()).unwrap().found(&disk(), home.path(), FOUNDED, LEAP).unwrap();
    let remains = recover::read(home.path()).unwrap();
    assert_eq!((remains.revision(), remains.uncertain(), remains.snapshot.index), (4 + LEAP, 0, 5));
    let again = remains.found(&disk(), home.path(), (0xc3, MemberId(0x9a)), LEAP).unwrap();
    assert_eq!(again.revision, 4 + 2 * LEAP);
    assert_eq!(Identity::read(&OsDisk, home.path()).unwrap().unwrap().cluster, 0xc3);
}

#[test]
fn where_there_is_nothing_to_go_on_from_nothing_is_changed() {
    let home = tempfile::tempdir().unwrap();
    assert!(matches!(recover::read(home.path()), Err(RecoverError::Nothing(_))));
    Identity::open(&OsDisk, home.path(), MEMBER).unwrap();
    assert!(matches!(recover::read(home.path()), Err(RecoverError::Nothing(_))), "it belongs to no cluster");
    let other = tempfile::tempdir().unwrap();
    lost_quorum(other.path());
    let remains = recover::read(other.path()).unwrap();
    let refused = remains.found(&disk(), other.path(), FOUNDED, i64::MAX);
    assert!(matches!(refused, Err(RecoverError::Overflow { revision: 4, .. })));
    assert_eq!(Identity::read(&OsDisk, other.path()).unwrap().unwrap().cluster, CLUSTER);
}
