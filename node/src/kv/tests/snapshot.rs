//! Snapshots: the same bytes wherever they are taken, and the same state wherever they are restored.

use bytes::Bytes;
use parking_lot::RwLock;
use proptest::collection::vec;
use proptest::prelude::*;
use prost::Message;
use quorate_api::etcdserverpb as pb;
use quorate_api::log::command::Operation;
use quorate_api::snapshot as wire;

use super::model::{change, key, operations_of};
use super::requests::*;
use crate::kv::snapshot::{NotEncoded, Restore, RestoreError};
use crate::kv::{Collected, SnapshotPolicy, Store};
use crate::level::{FIRST, LEASES, NEWEST};

/// So small that records lie across its pieces.
const PIECE: usize = 50;

fn snapshot_in(store: &RwLock<Store>, piece_bytes: usize) -> Vec<Bytes> {
    let mut source = store.write().snapshot(piece_bytes).expect("no other is under way");
    std::iter::from_fn(|| source.next_piece(store).expect("it is not replaced")).collect()
}

fn snapshot(store: &RwLock<Store>) -> Vec<Bytes> {
    snapshot_in(store, PIECE)
}

fn restore(pieces: &[Bytes]) -> Result<Store, RestoreError> {
    let mut restore = Restore::new();
    pieces.iter().try_for_each(|piece| restore.push(piece))?;
    restore.finish()
}

/// An operation in the log: a change, or a compaction so many revisions before the current one.
fn operation() -> impl Strategy<Value = Result<Operation, i64>> {
    prop_oneof![
        8 => vec(change(), 0..4).prop_map(|changes| Ok(Operation::Txn(operations_of(changes)))),
        1 => (0..8_i64).prop_map(Err),
        1 => (1..4_i64).prop_map(|id| Ok(Operation::LeaseGrant(pb::LeaseGrantRequest { id, ttl: 60 }))),
        1 => (1..4_i64).prop_map(|id| Ok(Operation::LeaseRevoke(pb::LeaseRevokeRequest { id }))),
        2 => (key(), 0..4_i64).prop_map(|(key, lease)| {
            Ok(Operation::Put(pb::PutRequest { key, lease, ..pb::PutRequest::default() }))
        }),
    ]
}

/// Applies the same to all; what they answer must be the same.
fn apply_to_all(stores: &[&RwLock<Store>], operation: &Result<Operation, i64>) {
    let current = stores[0].read().revision();
    let operation = match operation {
        Ok(operation) => operation.clone(),
        Err(back) => Operation::Compact(pb::CompactionRequest { revision: current - back, physical: false }),
    };
    let is_of_leases = matches!(operation, Operation::LeaseGrant(_) | Operation::LeaseRevoke(_));
    if is_of_leases && stores[0].read().level() < LEASES {
        return;
    }
    let policy = SnapshotPolicy { least_bytes: 100, ..SnapshotPolicy::default() };
    let answers = stores.iter().map(|store| {
        let mut store = store.write();
        let answer = store.apply(&operation);
        (answer, store.weigh(40, policy), store.revision(), store.compacted(), store.size_in_use())
    });
    let answers: Vec<_> = answers.collect();
    assert!(answers.windows(2).all(|pair| pair[0] == pair[1]), "{answers:?}");
}

/// Everything that a client can read.
fn all_answers(store: &Store) -> Vec<pb::RangeResponse> {
    let revisions = store.compacted().max(1)..=store.revision();
    let all = |revision| store.range(&pb::RangeRequest { revision, ..range("\0", "\0") });
    revisions.map(|revision| all(revision).expect("a revision that is kept")).collect()
}

proptest! {
    /// Three members with the same log; each removes what was compacted at times of its own, and the last one has restored a
    /// snapshot of the first.
    #[test]
    fn members_agree_on_every_byte(
        log in vec((operation(), 0..20_usize, 0..20_usize), 1..40),
        point in any::<prop::sample::Index>(),
        during in vec(operation(), 0..6),
        level in 1..=2_u32,
    ) {
        let (one, two) = (RwLock::new(store_at(level)), RwLock::new(store_at(level)));
        let point = point.index(log.len());
        // A reader of the second one still needs what is given up meanwhile.
        let mut pin = None;
        for (at, (operation, collect_one, collect_two)) in log[..point].iter().enumerate() {
            if at == point / 2 {
                let two = two.read();
                pin = Some(two.pin(two.revision()));
            }
            apply_to_all(&[&one, &two], operation);
            one.write().collect(*collect_one);
            two.write().collect(collect_two / 8);
        }
        let (expected, in_use) = (all_answers(&one.read()), one.read().size_in_use());

        // One is written to, and compacted, between the pieces of its snapshot. Two stands still for it.
        let pieces_two = snapshot(&two);
        let mut source = one.write().snapshot(PIECE).expect("no other is under way");
        let mut pieces = Vec::new();
        let mut during = during.iter();
        while let Some(piece) = source.next_piece(&one).expect("it is not replaced") {
            pieces.push(piece);
            if let Some(operation) = during.next() {
                apply_to_all(&[&one, &two], operation);
                one.write().collect(10);
            }
        }
        drop((source, pin));
        prop_assert_eq!(&pieces, &pieces_two);
        prop_assert!(pieces[..pieces.len() - 1].iter().all(|piece| piece.len() == PIECE));

        let three = restore(&pieces).expect("what was encoded");
        prop_assert_eq!(all_answers(&three), expected);
        prop_assert_eq!((three.size(), three.size_in_use()), (in_use, in_use));
        let three = RwLock::new(three);
        prop_assert_eq!(&snapshot(&three), &pieces);

        // The third goes on from there as the others did, and all three from here on.
        let four = RwLock::new(restore(&snapshot(&one)).expect("what was encoded"));
        for (operation, collect_one, collect_two) in &log[point..] {
            apply_to_all(&[&one, &two, &four], operation);
            apply_to_all(&[&three], operation);
            one.write().collect(collect_one / 8);
            four.write().collect(*collect_two);
            three.write().collect(collect_one / 4);
        }
        prop_assert_eq!(&all_answers(&one.read()), &all_answers(&four.read()));
        let last = snapshot(&one);
        prop_assert_eq!(&snapshot(&two), &last);
        prop_assert_eq!(&snapshot(&four), &last);
        let in_use = one.read().size_in_use();
        prop_assert_eq!((two.read().size_in_use(), four.read().size_in_use()), (in_use, in_use));
        for store in [one, two, three, four] {
            prop_assert_eq!(store.write().collect(usize::MAX), Collected::All);
            prop_assert_eq!(store.read().count(), store.read().sizes);
            prop_assert_eq!(store.read().size(), store.read().size_in_use());
        }
    }

    /// Any bytes make a state or an error.
    #[test]
    fn nonsense_is_an_error(
        pieces in vec(vec(any::<u8>(), 0..40), 0..4),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let nonsense: Vec<Bytes> = pieces.into_iter().map(Bytes::from).collect();
        drop(restore(&nonsense));
        let mut bytes = snapshot(&RwLock::new(sample())).concat();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        drop(restore(&[Bytes::from(bytes.clone())]).map(|mut store| {
            all_answers(&store);
            store.collect(usize::MAX)
        }));
        bytes.truncate(at);
        drop(restore(&[Bytes::from(bytes)]));
    }
}

/// A state with a bit of everything.
fn sample() -> Store {
    let mut store = store_with(&["a", "b", "a", "c"]);
    apply_delete(&mut store, delete("b", "\0"));
    apply_put(&mut store, put("b", "again")).expect("a plain put");
    apply_compact(&mut store, 3).expect("a revision that exists");
    store
}

#[test]
fn the_encoding_stays_what_it_is() {
    let bytes = snapshot(&RwLock::new(sample())).concat();
    let records = [
        "06080710062801", // Revision 7, compacted at 3, no weight, of level 1.
        "0c0a0161120161180228023001",
        "0c0a0162120162180328033001",
        "0c0a0161120161180428023002",
        "0c0a0163120163180528053001",
        "050a01621806",
        "070a016318062001",
        "100a01621205616761696e180728073001",
    ];
    let hex: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex.concat(), records.concat());
}

/// From level 2 on it says which deletions are kept.
#[test]
fn deletion_at_the_compacted_revision_is_in_the_snapshot() {
    let mut store = store_at(2);
    apply_put(&mut store, put("a", "")).expect("a plain put");
    apply_delete(&mut store, delete("a", ""));
    apply_compact(&mut store, 3).expect("the current revision");
    let pieces = snapshot(&RwLock::new(store));
    let mut restored = restore(&pieces).expect("what was encoded");
    assert_eq!(restored.history.iter_from(0).count(), 1);
    assert_eq!(restored.collect(100), Collected::All);
    apply_put(&mut restored, put("b", "")).expect("a plain put");
    apply_compact(&mut restored, 4).expect("the current revision");
    assert_eq!(restored.collect(100), Collected::All);
    assert_eq!((restored.history.iter_from(0).count(), restored.size()), (1, restored.size_in_use()));
}

#[test]
fn pieces_have_their_size_whatever_the_values() {
    let store = RwLock::new(Store::new());
    for (key, length) in [("a", 10), ("b", 1_500_000), ("c", 200_000), ("d", 70_000)] {
        let value = Bytes::from(vec![7; length]);
        apply_put(&mut store.write(), pb::PutRequest { value, ..put(key, "") }).expect("a plain put");
    }
    let pieces = snapshot_in(&store, 256 * 1024);
    let (last, whole) = pieces.split_last().expect("there are some");
    assert_eq!(whole.len(), 6);
    assert!(whole.iter().all(|piece| piece.len() == 256 * 1024) && last.len() < 256 * 1024);
    let restored = restore(&pieces).expect("what was encoded");
    assert_eq!(all_answers(&restored), all_answers(&store.read()));
}

#[test]
fn one_at_a_time_and_only_of_the_state_that_it_was_begun_in() {
    let store = RwLock::new(sample());
    let mut source = store.write().snapshot(PIECE).expect("no other is under way");
    assert!(store.write().snapshot(PIECE).is_none());
    *store.write() = sample();
    assert_eq!(source.next_piece(&store), Err(NotEncoded::Replaced));
    assert!(store.write().snapshot(PIECE).is_some(), "another state is not concerned");
}

#[test]
fn what_a_snapshot_wants_stays_until_it_is_dropped() {
    let store = RwLock::new(sample());
    let source = store.write().snapshot(PIECE).expect("no other is under way");
    let current = store.read().revision();
    apply_compact(&mut store.write(), current).expect("the current revision");
    assert_eq!(store.write().collect(100), Collected::Held);
    drop(source);
    assert_eq!(store.write().collect(100), Collected::All);
    assert_eq!(store.read().size(), store.read().size_in_use());
}

#[test]
fn what_does_not_follow_is_refused() {
    let version = |key: &str, revision, created, number| wire::Version {
        key: bytes(key),
        revision,
        created,
        number,
        ..wire::Version::default()
    };
    let with = |compacted, versions: &[wire::Version]| {
        let state = wire::State { revision: 9, compacted, level: FIRST, ..wire::State::default() };
        let mut encoded = state.encode_length_delimited_to_vec();
        for version in versions {
            encoded.extend(version.encode_length_delimited_to_vec());
        }
        restore(&[Bytes::from(encoded)])
    };
    let refused = |compacted, versions: &[wire::Version]| {
        let error = with(compacted, versions).expect_err("it does not follow");
        assert!(matches!(error, RestoreError::Impossible(_)), "{error}");
    };
    with(-1, &[version("a", 2, 2, 1), version("a", 3, 2, 2), version("a", 4, 0, 0)])
        .expect("a plain history");
    with(5, &[version("a", 4, 2, 7)]).expect("what a compaction leaves");
    refused(10, &[]);
    refused(-2, &[]);
    refused(-1, &[version("a", 3, 3, 1), version("b", 3, 3, 1)]);
    refused(-1, &[version("a", 10, 10, 1)]);
    refused(-1, &[version("a", 1, 1, 1)]);
    refused(-1, &[version("", 2, 2, 1)]);
    refused(-1, &[version("a", 2, 0, 0)]);
    refused(-1, &[version("a", 2, 2, 2)]);
    refused(-1, &[version("a", 2, 2, 1), version("a", 3, 2, 3)]);
    refused(-1, &[version("a", 2, 2, 1), version("a", 3, 3, 1)]);
    refused(5, &[version("a", 4, 2, 7), version("a", 5, 2, 8)]);
    refused(5, &[version("a", 4, 0, 0)]);
    assert_eq!(restore(&[]).expect_err("nothing"), RestoreError::CutShort);
    let endless = restore(&[Bytes::from(vec![0xff; 20])]).expect_err("no length");
    assert!(matches!(endless, RestoreError::Malformed(_)), "{endless}");
    let huge =
        restore(&[Bytes::from_static(&[0xff, 0xff, 0xff, 0xff, 0x0f])]).expect_err("no record is so long");
    assert!(matches!(huge, RestoreError::Malformed(_)), "{huge}");
}

/// Protobuf drops what it does not know: a state without it would be another one than that of the members that do.
#[test]
fn what_a_newer_version_made_is_refused_by_name() {
    let state = |level| wire::State { revision: 9, compacted: -1, level, ..wire::State::default() };
    let made_of = |records: &[Vec<u8>]| {
        let framed = |record: &Vec<u8>| [&[record.len() as u8][..], record].concat();
        restore(&[Bytes::from(records.iter().flat_map(framed).collect::<Vec<_>>())])
            .map(|store| store.level())
    };
    let with_more = |record: Vec<u8>| [record, vec![0xf8, 0x01, 1]].concat();
    let version = wire::Version { key: bytes("a"), revision: 2, created: 2, number: 1, ..Default::default() };
    let (known, version) = (state(FIRST).encode_to_vec(), version.encode_to_vec());
    assert_eq!(made_of(&[known.clone(), version.clone()]), Ok(FIRST));
    assert_eq!(
        made_of(&[with_more(state(NEWEST + 1).encode_to_vec())]),
        Err(RestoreError::Newer(Some(NEWEST + 1))),
        "it says so before anything else"
    );
    assert_eq!(made_of(&[with_more(known.clone())]), Err(RestoreError::Newer(None)));
    assert_eq!(made_of(&[known, with_more(version)]), Err(RestoreError::Newer(None)));
    assert!(matches!(made_of(&[state(0).encode_to_vec()]), Err(RestoreError::Impossible(_))));
}

/// A snapshot is due when the log has brought as much as the policy and the state ask for; never because of what else is in memory.
#[test]
fn points_come_from_the_log() {
    let policy = SnapshotPolicy { least_bytes: 1_000, ..SnapshotPolicy::default() };
    let mut store = Store::new();
    let due = |store: &mut Store| (1..100).find(|_| store.weigh(100, policy));
    assert_eq!(due(&mut store), Some(10));
    assert_eq!(due(&mut store), Some(10), "and counts from there");
    for _ in 0..40 {
        apply_put(&mut store, put("a", "v")).expect("a plain put");
    }
    // Half of 40 versions of a key, a value and 112 bytes.
    assert_eq!(due(&mut store), Some(23));
    apply_compact(&mut store, 41).expect("the current revision");
    assert_eq!(due(&mut store), Some(1), "it has shrunk, though nothing was removed yet");
    assert_eq!(due(&mut store), Some(10));
}
