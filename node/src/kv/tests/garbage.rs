//! What compactions have given up has a bound, whoever holds it back.

use parking_lot::RwLock;
use quorate_api::etcdserverpb as pb;
use quorate_api::log::command::Operation;

use super::requests::*;
use crate::kv::steps::looks::hold;
use crate::kv::{Applying, Garbage, KvError, RangeScan, Reply, Store};

const QUOTA: u64 = 4 << 20;
const VALUE: usize = 16 << 10;
const STEPS: usize = 4096;

/// What may be there at any time: the quota, a quarter of it, and what is applied before it is looked at again.
const MOST: u64 = QUOTA / 4 * 5 + 17 * VALUE as u64;

/// A state of some small keys, many enough that a scan of them does not end with its first step.
fn store() -> Store {
    let mut store = store_at(2);
    for number in 0..100 {
        let request = pb::PutRequest { key: format!("small-{number}").into(), ..pb::PutRequest::default() };
        apply_put(&mut store, request).expect("a plain put");
    }
    store
}

fn all() -> pb::RangeRequest {
    pb::RangeRequest { key: vec![0].into(), range_end: vec![0].into(), ..pb::RangeRequest::default() }
}

/// A scan that has begun, and a transaction that was applied and whose range was not read.
fn readers(store: &mut Store) -> (RangeScan, Reply) {
    let mut scan = store.scan(all()).expect("it can be read");
    assert_eq!(scan.advance(store, 1), Ok(false));
    let op = |request| pb::RequestOp { request: Some(request) };
    let put = pb::PutRequest { key: "by-txn".into(), ..pb::PutRequest::default() };
    let success =
        vec![op(pb::request_op::Request::RequestPut(put)), op(pb::request_op::Request::RequestRange(all()))];
    let txn = Operation::Txn(pb::TxnRequest { success, ..pb::TxnRequest::default() });
    let mut applying = Applying::new(txn, &bytes::Bytes::new(), true);
    let reply = applying.step(store, usize::MAX).expect("it ends").expect("it is a good one");
    assert!(!reply.is_whole());
    (scan, reply)
}

/// Writes one key eight times, and gives up what was before.
fn rewrite(store: &mut Store) {
    for _ in 0..8 {
        let request =
            pb::PutRequest { key: "large".into(), value: vec![7; VALUE].into(), ..pb::PutRequest::default() };
        apply_put(store, request).expect("a plain put");
    }
    let revision = store.revision();
    let compact = Operation::Compact(pb::CompactionRequest { revision, physical: false });
    store.apply(&compact).expect("it is above the last one");
}

/// Does what is to be done before more is applied.
fn make_room(store: &mut Store) -> Garbage {
    loop {
        match hold(|| store.bound_garbage(QUOTA, STEPS)) {
            Garbage::Removing => {}
            end => return end,
        }
    }
}

/// Written again and again, 64 MiB in all, with nothing else that removes: there is never more than the quota and a quarter.
fn rewrite_often(store: &mut Store) -> u64 {
    let mut most = 0;
    for _ in 0..512 {
        assert_eq!(make_room(store), Garbage::Little);
        rewrite(store);
        most = most.max(store.size());
    }
    most
}

#[test]
fn what_compactions_leave_is_removed_before_more_is_applied() {
    let mut store = store();
    let most = rewrite_often(&mut store);
    assert!((QUOTA..MOST).contains(&most), "{most} bytes");
}

#[test]
fn readers_lose_what_they_have_pinned_when_it_is_too_much() {
    let mut store = store();
    let (mut scan, mut reply) = readers(&mut store);
    // A little is kept for them.
    for _ in 0..8 {
        make_room(&mut store);
        rewrite(&mut store);
    }
    assert_eq!(scan.advance(&store, 1), Ok(false));
    let most = rewrite_often(&mut store);
    assert!((QUOTA..MOST).contains(&most), "{most} bytes");
    assert_eq!(scan.advance(&store, 1), Err(KvError::Compacted));
    let read = |reply: &mut Reply, store: &Store| loop {
        match reply.advance(store, 1) {
            Ok(true) => break Ok(()),
            Ok(false) => {}
            Err(error) => break Err(error),
        }
    };
    assert_eq!(
        read(&mut reply, &store),
        Err(KvError::Compacted),
        "its client is told that the answer is lost"
    );
    // Those that come later are not concerned.
    let (mut scan, mut reply) = readers(&mut store);
    rewrite(&mut store);
    assert_eq!((scan.advance(&store, usize::MAX), read(&mut reply, &store)), (Ok(true), Ok(())));
}

#[test]
fn a_snapshot_is_waited_for() {
    let mut store = store();
    let mut source = store.snapshot(64 << 10).expect("there is no other");
    let (mut scan, _) = readers(&mut store);
    let mut most = 0;
    for _ in 0..512 {
        if make_room(&mut store) == Garbage::Held {
            break;
        }
        rewrite(&mut store);
        most = most.max(store.size());
    }
    assert!((QUOTA..MOST).contains(&most), "{most} bytes");
    assert!(store.waits_for_snapshot(QUOTA));
    assert_eq!(scan.advance(&store, 1), Ok(false), "nothing would be won by it");
    let store = RwLock::new(store);
    while source.next_piece(&store).expect("it lost nothing").is_some() {}
    assert!(store.read().waits_for_snapshot(QUOTA), "it is not durable yet");
    drop(source);
    let mut store = store.into_inner();
    assert!(!store.waits_for_snapshot(QUOTA));
    assert_eq!(make_room(&mut store), Garbage::Little);
    assert!(store.size() < MOST, "{} bytes", store.size());
    assert_eq!(scan.advance(&store, 1), Err(KvError::Compacted));
}
