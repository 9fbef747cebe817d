//! No piece of work holds the state's lock for long, however large the state is: what is really looked at is counted.

use bytes::Bytes;
use parking_lot::RwLock;
use quorate_api::etcdserverpb as pb;
use quorate_api::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use quorate_api::etcdserverpb::request_op::Request;
use quorate_api::log::command::Operation;

use super::requests::*;
use crate::kv::steps::looks::{self, hold};
use crate::kv::txn::MAX_COMPARED_KEYS;
use crate::kv::{Applying, Collected, KvError, ReadTxn, Reply, Store};

/// Far more than may be looked at under one hold. With optimization a million.
const MANY: usize = if cfg!(debug_assertions) { 120_000 } else { 1_000_000 };

/// The pieces that members work in.
const PIECE: usize = 4096;

/// Work that is to be so little.
fn at_most<T>(most: usize, work: impl FnOnce() -> T) -> T {
    looks::taken();
    let result = work();
    let looks = looks::taken();
    assert!(looks <= most, "{looks} steps, not {most}");
    result
}

fn key(number: usize) -> Bytes {
    Bytes::from(format!("key{number:08}"))
}

/// So many keys, the first at revision 2.
fn store_of(keys: usize) -> Store {
    let mut store = store_at(2);
    for number in 0..keys {
        let request = pb::PutRequest { key: key(number), ..pb::PutRequest::default() };
        apply_put(&mut store, request).expect("a plain put");
    }
    store
}

/// Applies an operation in pieces, each under a hold of its own. `between` sees the state between them.
fn apply_in_pieces(
    store: &mut Store,
    operation: Operation,
    mut between: impl FnMut(&mut Store),
) -> Result<Reply, KvError> {
    let mut applying = Applying::new(operation, &Bytes::new(), true);
    loop {
        if let Some(result) = hold(|| applying.step(store, PIECE)) {
            return result;
        }
        between(store);
    }
}

fn count(store: &Store, request: &pb::RangeRequest) -> usize {
    let request = pb::RangeRequest { count_only: true, ..request.clone() };
    let mut scan = store.scan(&request).expect("a revision that exists");
    while !hold(|| scan.advance(store, PIECE)).expect("a revision that is kept") {}
    usize::try_from(scan.finish().count).expect("a number of keys")
}

fn collect_all(store: &mut Store) -> Collected {
    loop {
        let collected = hold(|| store.collect(PIECE));
        if collected != Collected::More {
            return collected;
        }
    }
}

#[test]
fn revision_of_a_key_with_many_versions_is_found_in_a_few_steps() {
    let mut store = Store::new();
    let rewrite = |store: &mut Store, times| {
        for _ in 0..times {
            apply_put(store, put("key", "")).expect("a plain put");
        }
    };
    let find = |store: &Store| {
        for revision in (store.compacted().max(2)..=store.revision()).step_by(97) {
            let request = pb::RangeRequest { revision, ..range("key", "") };
            let found = at_most(130, || store.range(&request)).expect("a revision that is kept");
            assert_eq!(found.kvs[0].mod_revision, revision);
        }
    };
    rewrite(&mut store, MANY);
    find(&store);
    // Where history was removed the way back is another.
    for _ in 0..3 {
        let middle = i64::midpoint(store.compacted().max(0), store.revision());
        apply_in_pieces(&mut store, compact(middle), |_| {}).expect("a revision that exists");
        collect_all(&mut store);
        rewrite(&mut store, MANY / 10);
        find(&store);
    }
}

fn compact(revision: i64) -> Operation {
    Operation::Compact(pb::CompactionRequest { revision, physical: false })
}

#[test]
fn scan_at_an_old_revision_is_cut_by_steps() {
    let mut store = Store::new();
    for _ in 0..MANY / 300 {
        for number in 0..300 {
            let request = pb::PutRequest { key: key(number), ..pb::PutRequest::default() };
            apply_put(&mut store, request).expect("a plain put");
        }
    }
    assert_eq!(count(&store, &pb::RangeRequest { revision: 301, ..range("key", "\0") }), 300);
}

/// Also where most of what is there was given up, and is still needed by another reader.
#[test]
fn reading_and_hashing_all_of_a_state_is_cut_by_steps() {
    let mut store = store_at(2);
    let another = store.contents();
    for _ in 0..MANY / 300 {
        for number in 0..300 {
            let request = pb::PutRequest { key: key(number), ..pb::PutRequest::default() };
            apply_put(&mut store, request).expect("a plain put");
        }
    }
    let revision = store.revision();
    apply_in_pieces(&mut store, compact(revision), |_| {}).expect("a revision that exists");
    assert_eq!(collect_all(&mut store), Collected::Held);
    let mut contents = store.contents();
    let mut versions = 0;
    while !contents.is_read() {
        versions += hold(|| contents.read(&store, 1 << 18)).expect("it is pinned").len();
    }
    assert_eq!(versions, 300, "the rest was compacted");
    let mut hash = store.hash_at(0).expect("it is the current one");
    let store = RwLock::new(store);
    let told = loop {
        if let Some(told) = hold(|| hash.advance(&store)).expect("it is pinned") {
            break told;
        }
    };
    assert_eq!((told.revision, told.compacted), (revision, revision));
    drop(another);
}

#[test]
fn deletion_of_many_keys_is_one_revision_in_many_pieces() {
    let mut store = store_of(MANY);
    let (all, before, end) = (range("key", "\0"), store.revision(), store.end());
    let mut pieces = 0;
    let operation =
        || Operation::DeleteRange(pb::DeleteRangeRequest { prev_kv: true, ..delete("key", "\0") });
    let mut reply = apply_in_pieces(&mut store, operation(), |store| {
        pieces += 1;
        assert_eq!((store.revision(), store.end()), (before, end));
        assert!(store.snapshot(4096).is_none(), "half of a revision is in no snapshot");
        assert_eq!(store.copy_from(end, 10), (Vec::new(), end), "nor in a copy");
        hold(|| store.collect(PIECE));
        if pieces % 50 == 1 {
            assert_eq!(count(store, &all), MANY);
        }
    })
    .expect("a plain deletion");
    assert!(pieces > 10);
    assert_eq!((store.revision(), count(&store, &all)), (before + 1, 0));

    // What was there is read afterwards, whatever has happened since.
    apply_put(&mut store, put("key", "new")).expect("a plain put");
    apply_in_pieces(&mut store, compact(before + 2), |_| {}).expect("the current revision");
    assert_eq!(collect_all(&mut store), Collected::Held);
    while !hold(|| reply.advance(&store, PIECE)).expect("it is pinned") {}
    match reply.finish() {
        crate::kv::Response::DeleteRange(deleted) => {
            assert_eq!((usize::try_from(deleted.deleted), deleted.prev_kvs.len()), (Ok(MANY), MANY));
            assert!(deleted.prev_kvs.is_sorted_by(|a, b| a.key < b.key));
        }
        other => panic!("not the answer to a deletion: {other:?}"),
    }
    collect_all(&mut store);
    assert_eq!(store.size(), store.size_in_use());
}

#[test]
fn what_was_deleted_costs_the_current_state_nothing() {
    let mut store = store_of(MANY);
    let deletion = || Operation::DeleteRange(delete("key", "\0"));
    apply_in_pieces(&mut store, deletion(), |_| {}).expect("a plain deletion");
    apply_in_pieces(&mut store, deletion(), |_| panic!("there is nothing to do")).expect("a plain deletion");
    at_most(10, || apply_delete(&mut store, delete("key", "\0")));
    at_most(10, || store.range(&range("key", "\0"))).expect("a plain range");
    let old = pb::RangeRequest { revision: store.revision() - 1, ..range("key", "\0") };
    assert_eq!(count(&store, &old), MANY);
    let current = store.revision();
    apply_in_pieces(&mut store, compact(current), |_| panic!("it takes effect at once")).expect("a revision");
    collect_all(&mut store);
    apply_put(&mut store, put("other", "")).expect("a plain put");
    apply_in_pieces(&mut store, compact(current + 1), |_| panic!("it takes effect at once"))
        .expect("a revision");
    collect_all(&mut store);
    assert_eq!((store.history.iter_from(0).count(), store.size()), (1, store.size_in_use()));
}

/// Holds for all keys of [`store_of`].
fn compare_all() -> pb::Compare {
    pb::Compare {
        result: CompareResult::Greater as i32,
        target: CompareTarget::Version as i32,
        key: bytes("key"),
        range_end: bytes("\0"),
        target_union: Some(TargetUnion::Version(0)),
    }
}

#[test]
fn compares_are_made_in_pieces_at_one_revision() {
    let mut store = store_of(MANY);
    let current = store.revision();
    let request = pb::TxnRequest {
        compare: vec![compare_all(); 3],
        success: operations([Request::RequestRange(range("key00000001", ""))]),
        ..pb::TxnRequest::default()
    };
    let mut txn = hold(|| ReadTxn::new(&store, &request));
    let mut pieces = 0;
    while !hold(|| txn.choose(&store, PIECE)).expect("its revision is pinned") {
        if pieces == 3 {
            apply_in_pieces(&mut store, Operation::DeleteRange(delete("key", "\0")), |_| {})
                .expect("a deletion");
            apply_in_pieces(&mut store, compact(current + 1), |_| {}).expect("the current revision");
        }
        hold(|| store.collect(PIECE));
        pieces += 1;
    }
    assert!(pieces > 3);
    let found = txn.ranges().map(|range| txn.scan(&store, range)?.run(&store)).collect::<Result<_, _>>();
    let answer = txn.finish(found.expect("its revision is pinned"));
    assert!(answer.succeeded);
    assert_eq!(revision(answer.header.as_ref()), current);
}

#[test]
fn writing_transaction_compares_a_bounded_number_of_keys() {
    let mut store = store_of(MAX_COMPARED_KEYS / 2);
    let comparing = |times| {
        let success = operations([Request::RequestPut(put("key", "new"))]);
        Operation::Txn(pb::TxnRequest { compare: vec![compare_all(); times], success, ..Default::default() })
    };
    let mut pieces = 0;
    apply_in_pieces(&mut store, comparing(2), |_| pieces += 1).expect("as many as may be");
    assert!(pieces > 10);
    let before = store.revision();
    let refused = apply_in_pieces(&mut store, comparing(2), |_| {});
    assert_eq!(refused.map(drop), Err(KvError::TooManyCompared), "there is one key more");
    assert_eq!(store.apply(&comparing(2)), Err(KvError::TooManyCompared), "in whatever pieces");
    assert_eq!(store.revision(), before);
}

/// They are read afterwards, in pieces, by the member that answers; a member that does not reads nothing at all.
#[test]
fn ranges_of_a_writing_transaction_cost_applying_nothing() {
    let mut store = store_of(MANY);
    let everything = Request::RequestRange(pb::RangeRequest { count_only: true, ..range("\0", "\0") });
    let request = txn([Request::RequestPut(put("key", ""))].into_iter().chain(vec![everything; 3]));
    for answers in [true, false] {
        let mut applying = Applying::new(Operation::Txn(request.clone()), &Bytes::new(), answers);
        let reply = at_most(50, || applying.step(&mut store, PIECE)).expect("little to do");
        let mut reply = reply.expect("a plain transaction");
        assert_eq!(reply.is_whole(), !answers);
        let mut pieces = 0;
        while !hold(|| reply.advance(&store, PIECE)).expect("its point is pinned") {
            pieces += 1;
        }
        assert_eq!(pieces > 3 * MANY / PIECE, answers);
    }
}

#[test]
fn snapshot_is_taken_in_short_holds_beside_other_readers() {
    let mut store = store_of(MANY / 2);
    let old = store.revision();
    let request = range("key", "\0");
    let mut scan = store.scan(&request).expect("a plain range");
    assert_eq!(scan.advance(&store, 1), Ok(false));
    for number in 0..MANY / 2 {
        let request = pb::PutRequest { key: key(number), ..pb::PutRequest::default() };
        apply_put(&mut store, request).expect("a plain put");
    }
    let current = store.revision();
    apply_compact(&mut store, current).expect("the current revision");
    let store = RwLock::new(store);
    let mut source = store.write().snapshot(usize::MAX).expect("no other is under way");
    while hold(|| source.hold(&store)).expect("it is not replaced") {}
    let beside = source.next_piece(&store).expect("it is not replaced");
    assert_eq!(
        collect_all(&mut store.write()),
        Collected::Held,
        "the scan needs what the snapshot leaves out"
    );
    while !hold(|| scan.advance(&store.read(), PIECE)).expect("it is pinned") {}
    assert!(scan.finish().kvs.iter().all(|kv| kv.mod_revision <= old));

    drop(source);
    let mut source = store.write().snapshot(usize::MAX).expect("no other is under way");
    while hold(|| source.hold(&store)).expect("it is not replaced") {}
    let alone = source.next_piece(&store).expect("it is not replaced");
    assert!(alone == beside, "the same bytes, whoever reads beside it");
}

#[test]
fn copy_hears_of_many_removed_deletions_in_short_holds() {
    let mut store = store_of(MANY / 2);
    let copied = store.end();
    store.copy_from(copied, 0);
    apply_in_pieces(&mut store, Operation::DeleteRange(delete("key", "\0")), |_| {}).expect("a deletion");
    apply_put(&mut store, put("other", "")).expect("a plain put");
    let current = store.revision();
    apply_compact(&mut store, current).expect("the current revision");
    collect_all(&mut store);
    let (mut next, mut heard) = (copied, 0);
    while !store.is_copied(next) {
        let (versions, then) = hold(|| store.copy_from(next, 256));
        assert!(versions.len() <= 256);
        (next, heard) = (then, heard + versions.len());
    }
    assert_eq!(heard, MANY / 2 + 1);
}

/// A key, or a value, of a mebibyte.
fn large(number: usize) -> Bytes {
    Bytes::from([format!("{number:08}").as_bytes(), &vec![7; 1 << 20]].concat())
}

/// Bytes that are copied are work as well: with large keys, a thousand under one hold.
#[test]
fn few_large_keys_are_copied_under_one_hold() {
    let mut store = store_at(2);
    for number in 0..200 {
        let request = pb::PutRequest { key: large(number), ..pb::PutRequest::default() };
        apply_in_pieces(&mut store, Operation::Put(request), |_| {}).expect("a plain put");
    }
    let mut pieces = 0;
    apply_in_pieces(&mut store, Operation::DeleteRange(delete("0", "\0")), |_| pieces += 1)
        .expect("a plain deletion");
    assert!(pieces >= 200 / 5);
    let current = store.revision();
    apply_in_pieces(&mut store, compact(current), |_| {}).expect("the current revision");
    collect_all(&mut store);
}

#[test]
fn few_large_values_are_copied_under_one_hold() {
    let mut store = Store::new();
    for number in 0..400 {
        // As it lies in a message: the value has its length before it.
        let (key, value) = (key(number % 200), large(number));
        let message = Bytes::from([&key[..], b"-", &value].concat());
        let (key, value) = (message.slice(..key.len()), message.slice(key.len() + 1..));
        let operation = Operation::Put(pb::PutRequest { key, value, ..pb::PutRequest::default() });
        let mut applying = Applying::new(operation, &message, false);
        at_most(50, || applying.step(&mut store, PIECE)).expect("little to do").expect("a plain put");
    }
    let current = store.revision();
    apply_in_pieces(&mut store, compact(current), |_| {}).expect("the current revision");
    collect_all(&mut store);
    assert_eq!(store.size(), store.size_in_use());
}
