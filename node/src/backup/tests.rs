//! A state is written, and read back as the same; and what a real etcd has written is read.

use bytes::BufMut as _;
use parking_lot::RwLock;
use proptest::collection::vec;
use proptest::prelude::*;
use prost::Message as _;
use quorate_api::etcdserverpb as pb;
use quorate_api::etcdserverpb::request_op::Request;
use quorate_api::log::RaiseLevel;
use quorate_api::log::command::Operation;
use quorate_api::snapshot as wire;

use super::{Backup, Cluster, Contained, HASH_BYTES, RestoreError, has_hash, restore};
use crate::bolt::{Database, Writer};
use crate::kv::{Store, etcd};
use crate::leases::MAX_TTL;
use crate::level::NEWEST;

/// Of etcd 3.7.3: `a` was put three times, `b` put and deleted, `leased` put on a lease, deleted and put again, `z` put last but one, and
/// revision 5 compacted. Saved by etcdctl.
const OF_ETCD: &[u8] = include_bytes!("../../tests/fixtures/etcd-3.7.3.snapshot");

fn store() -> Store {
    let mut store = Store::new();
    store.apply(&Operation::RaiseLevel(RaiseLevel { to: NEWEST })).unwrap();
    for id in LEASES {
        store.apply(&Operation::LeaseGrant(pb::LeaseGrantRequest { id, ttl: 100 + id })).unwrap();
    }
    store
}

/// In bytes the last one comes first.
const LEASES: [i64; 3] = [-7, -6, 5];

fn put(key: u8, value: Vec<u8>) -> pb::PutRequest {
    pb::PutRequest { key: vec![b'a' + key].into(), value: value.into(), ..pb::PutRequest::default() }
}

fn delete(from: u8, to: u8) -> pb::DeleteRangeRequest {
    let (key, range_end) = (vec![b'a' + from].into(), vec![b'a' + to].into());
    pb::DeleteRangeRequest { key, range_end, ..pb::DeleteRangeRequest::default() }
}

/// Applies a change, or a compaction so many revisions before the current one.
fn apply(store: &mut Store, (kind, key, size): (u8, u8, usize)) {
    let op = |request| pb::RequestOp { request: Some(request) };
    let operation = match kind {
        0..=4 => Operation::Put(put(key, vec![kind; size])),
        5 => {
            let lease = LEASES[size % LEASES.len()];
            Operation::Put(pb::PutRequest { lease, ..put(key, vec![kind; size]) })
        }
        6 => Operation::DeleteRange(delete(key, key + 1)),
        7 => Operation::DeleteRange(delete(key, key + 4)),
        8 => {
            let puts = [key, key + 5].map(|key| op(Request::RequestPut(put(key, vec![8; size]))));
            Operation::Txn(pb::TxnRequest { success: puts.to_vec(), ..pb::TxnRequest::default() })
        }
        9 => Operation::LeaseRevoke(pb::LeaseRevokeRequest { id: LEASES[size % LEASES.len()] }),
        10 => Operation::LeaseGrant(pb::LeaseGrantRequest { id: 1000 + i64::from(key), ttl: 5 }),
        _ => {
            let revision = store.revision() - i64::from(key);
            Operation::Compact(pb::CompactionRequest { revision, physical: false })
        }
    };
    let _ = store.apply(&operation);
}

fn file(store: &RwLock<Store>) -> Vec<u8> {
    let mut backup = Backup::new(&mut store.write(), &Cluster::default());
    let mut bytes = Vec::new();
    while backup.advance(store).unwrap() {
        bytes.extend(backup.take(usize::MAX));
    }
    bytes.extend(backup.take(usize::MAX));
    assert_eq!(Some(bytes.len() as u64), backup.bytes());
    bytes
}

fn read(bytes: &[u8]) -> Result<Contained, RestoreError> {
    restore(&Database::open(bytes, bytes.len() as u64)?)
}

/// Everything that a client can read, and the hash of every revision.
fn all(store: &RwLock<Store>) -> Vec<(pb::RangeResponse, u32)> {
    let all = |revision| pb::RangeRequest {
        key: "\0".into(),
        range_end: "\0".into(),
        revision,
        ..pb::RangeRequest::default()
    };
    let revisions = store.read().compacted().max(1)..=store.read().revision();
    let answer = |revision| store.read().range(&all(revision)).unwrap();
    revisions.map(|revision| (answer(revision), hash_at(store, revision))).collect()
}

/// The leases, and what hangs on each.
fn leases(store: &RwLock<Store>) -> Vec<(i64, i64, Vec<Vec<u8>>)> {
    let store = store.read();
    let hanging = |id| store.leases().keys(id, None).map(<[u8]>::to_vec).collect();
    store.leases().iter_from(i64::MIN).map(|grant| (grant.id, grant.ttl, hanging(grant.id))).collect()
}

fn hash_at(store: &RwLock<Store>, revision: i64) -> u32 {
    let mut hash = store.read().hash_at(revision).unwrap();
    loop {
        if let Some(whole) = hash.advance(store).unwrap() {
            return whole.hash;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_state_is_written_and_read_back(
        changes in vec((0..12_u8, 0..12_u8, 0..900_usize), 0..120),
        during in vec((0..12_u8, 0..12_u8, 0..900_usize), 0..20),
        collects in any::<bool>(),
    ) {
        let mut store = store();
        for change in changes {
            apply(&mut store, change);
        }
        if collects {
            store.collect(usize::MAX);
        }
        let store = RwLock::new(store);
        let (answers, compacted, hung) = (all(&store), store.read().compacted(), leases(&store));
        let mut backup = Backup::new(&mut store.write(), &Cluster::default());
        let (mut bytes, mut during) = (Vec::new(), during.into_iter());
        // What is changed, compacted and removed meanwhile makes no difference.
        while backup.advance(&store).unwrap() {
            bytes.extend(backup.take(5000));
            if let Some(change) = during.next() {
                apply(&mut store.write(), change);
            }
            store.write().collect(100);
        }
        bytes.extend(backup.take(usize::MAX));
        let restored = RwLock::new(read(&bytes).unwrap().store);
        prop_assert_eq!(leases(&restored), hung);
        prop_assert_eq!(restored.read().compacted(), compacted);
        prop_assert_eq!(all(&restored), answers);
        prop_assert_eq!(file(&restored), bytes);
    }
}

#[test]
fn what_an_etcd_has_written_is_read() {
    let bytes = OF_ETCD.len() as u64;
    assert!(has_hash(bytes));
    let database = &OF_ETCD[..(bytes - HASH_BYTES) as usize];
    let Contained { store, missing_leases, users, auth_enabled, alarms, .. } = read(database).unwrap();
    assert_eq!((missing_leases, users, auth_enabled, alarms), (0, 0, false, 0));
    assert_eq!((store.revision(), store.compacted()), (10, 5));
    let at = |revision| {
        let (key, range_end) = ("\0".into(), "\0".into());
        let answer =
            store.range(&pb::RangeRequest { key, range_end, revision, ..pb::RangeRequest::default() });
        let kv = |kv: quorate_api::mvccpb::KeyValue| {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            (text(&kv.key), text(&kv.value), kv.create_revision, kv.mod_revision, kv.version)
        };
        answer.map(|answer| answer.kvs.into_iter().map(kv).collect::<Vec<_>>())
    };
    let kv = |key: &str, value: &str, created, modified, version| {
        (key.to_owned(), value.to_owned(), created, modified, version)
    };
    assert!(at(4).is_err());
    assert_eq!(at(5).unwrap(), [kv("a", "3", 2, 4, 2)]);
    let newest = [kv("a", "4", 2, 7, 3), kv("leased", "again", 10, 10, 1), kv("z", "zz", 9, 9, 1)];
    assert_eq!(at(0).unwrap(), newest);
    assert_eq!(at(8).unwrap(), newest[..1]);
    let leased = store.range(&pb::RangeRequest { key: "leased".into(), ..pb::RangeRequest::default() });
    assert_eq!(leased.unwrap().kvs[0].lease, 0x390d_a21d_fa5a_fa07);
    // As that etcd has told them.
    assert_eq!(store.leases().get(0x390d_a21d_fa5a_fa07).map(|grant| grant.ttl), Some(3600));
    let hashes = [4_259_439_469, 1_199_822_682, 1_365_722_504, 82_006_151];
    let store = RwLock::new(store);
    assert_eq!([6, 7, 8, 9].map(|revision| hash_at(&store, revision)), hashes);
}

/// A database with nothing but these versions.
fn database(versions: &[wire::Version], compacted: Option<i64>) -> Vec<u8> {
    let feed = |writer: &mut Writer| {
        for version in versions {
            let value = etcd::stored(version).encode_to_vec();
            writer.put(&etcd::revision_key(version), value.len(), |out| out.put_slice(&value));
        }
        writer.end_bucket(b"key");
        if let Some(compacted) = compacted {
            let value = etcd::revision_value(compacted);
            writer.put(b"scheduledCompactRev", value.len(), |out| out.put_slice(&value));
        }
        writer.end_bucket(b"meta");
    };
    let mut counting = Writer::counting();
    feed(&mut counting);
    let mut writer = Writer::writing(counting.finish().unwrap());
    feed(&mut writer);
    writer.finish().unwrap();
    writer.take(usize::MAX).to_vec()
}

fn version(key: &str, revision: i64, created: i64, number: i64) -> wire::Version {
    wire::Version { key: key.to_owned().into(), revision, created, number, ..wire::Version::default() }
}

/// What no member could read back must not become a state: nobody could join it.
#[test]
fn changes_that_do_not_follow_from_others_are_refused() {
    let (made, changed) = (version("k", 2, 2, 1), version("k", 3, 2, 2));
    let (deleted, anew) = (version("k", 4, 0, 0), version("k", 5, 5, 1));
    let all = [made, changed.clone(), deleted.clone(), anew];
    assert_eq!(read(&database(&all, None)).unwrap().store.revision(), 5);
    let refused = |versions: &[wire::Version], compacted| {
        let refused = read(&database(versions, compacted)).map(|contained| contained.store.revision());
        assert!(matches!(refused, Err(RestoreError::Impossible(_))), "{versions:?}: {refused:?}");
    };
    refused(&[version("k", 2, 2, 3)], None);
    refused(&[version("k", 2, 9, 1)], None);
    refused(std::slice::from_ref(&changed), None);
    refused(&[deleted], None);
    refused(&[version("k", 1, 1, 1)], None);
    refused(&[version("k", 2, 9, 1)], Some(2));
    // What came before was compacted, or is to be.
    assert_eq!(read(&database(std::slice::from_ref(&changed), Some(3))).unwrap().store.compacted(), 3);
    let store = read(&database(&all, Some(4))).unwrap().store;
    assert_eq!((store.compacted(), store.revision()), (4, 5));
    assert!(matches!(read(&database(&[version("k", 2, 2, 1)], Some(-7))), Err(RestoreError::Compaction)));
    // A restored etcd has left revisions out: a change of no key says so.
    let left_out = database(&[version("k", 2, 2, 1), version("", 900, 0, 1)], Some(900));
    let store = read(&left_out).unwrap().store;
    assert_eq!((store.compacted(), store.revision()), (900, 900));
    // An etcd ends no lease that there is not.
    let hangs = wire::Version { lease: 9, ..version("k", 2, 2, 1) };
    let contained = read(&database(&[hangs], None)).unwrap();
    let lease = contained.store.leases().get(9).map(|grant| grant.ttl);
    assert_eq!((contained.missing_leases, lease), (1, Some(MAX_TTL)));
    let large = wire::Version { value: vec![0; 4 << 20].into(), ..version("k", 2, 2, 1) };
    assert!(matches!(read(&database(&[large], None)), Err(RestoreError::TooLarge { revision: 2, .. })));
}
