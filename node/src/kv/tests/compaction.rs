use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use quorate_api::etcdserverpb as pb;

use super::requests::*;
use crate::kv::{Collected, KvError, Store};

fn at(store: &Store, key: &str, revision: i64) -> Result<Vec<Bytes>, KvError> {
    let response = store.range(&pb::RangeRequest { revision, ..range(key, "") })?;
    Ok(response.kvs.into_iter().map(|kv| kv.value).collect())
}

#[test]
fn it_is_refused_as_in_etcd() {
    let mut store = store_with(&["a", "b"]);
    assert_eq!(apply_compact(&mut store, -1), Err(KvError::Compacted));
    assert_eq!(apply_compact(&mut store, 4), Err(KvError::FutureRevision));
    let answer = apply_compact(&mut store, 2).expect("a revision that exists");
    assert_eq!(revision(answer.header.as_ref()), 3, "the current revision");
    assert_eq!(apply_compact(&mut store, 2), Err(KvError::Compacted));
    assert_eq!(apply_compact(&mut store, 0), Err(KvError::Compacted));
    assert_eq!(store.compacted(), 2);
    apply_compact(&mut store, 3).expect("the current revision");
}

#[test]
fn the_newest_version_stays_unless_it_is_a_deletion() {
    let mut store = store_with(&["a", "b"]);
    apply_put(&mut store, put("a", "second")).expect("a plain put");
    apply_delete(&mut store, delete("b", ""));
    apply_put(&mut store, put("a", "third")).expect("a plain put");
    apply_put(&mut store, put("b", "again")).expect("a plain put");
    apply_compact(&mut store, 5).expect("a revision that exists");
    for _ in 0..2 {
        assert_eq!(at(&store, "a", 4), Err(KvError::Compacted));
        assert_eq!(at(&store, "a", 5), Ok(vec![bytes("second")]));
        assert_eq!(at(&store, "a", 0), Ok(vec![bytes("third")]));
        assert_eq!(at(&store, "b", 5), Ok(vec![]));
        assert_eq!(at(&store, "b", 7), Ok(vec![bytes("again")]));
        // The same once more when everything is removed.
        assert_eq!(store.collect(100), Collected::All);
    }
    assert_eq!(store.history.iter_from(0).count(), 3, "two versions of a, one of b");
}

/// etcd reads in one go, so that no compaction comes between.
#[test]
fn scan_that_was_begun_ends_with_its_revision() {
    let mut store = store_with(&["a", "b", "c"]);
    let request = pb::RangeRequest { revision: 3, ..range("a", "\0") };
    let whole = store.range(&request).expect("a revision that exists");
    let mut scan = store.scan(&request).expect("a revision that exists");
    assert_eq!(scan.advance(&store, 1), Ok(false));
    apply_put(&mut store, put("b", "new")).expect("a plain put");
    apply_compact(&mut store, 5).expect("a revision that exists");
    assert_eq!(store.range(&request), Err(KvError::Compacted), "for those that come later");
    assert_eq!(store.collect(100), Collected::Held);
    while scan.advance(&store, 1) == Ok(false) {}
    assert_eq!(scan.finish().kvs, whole.kvs);
    assert_eq!(store.collect(100), Collected::All);
    assert_eq!(store.size(), store.size_in_use());
}

#[test]
fn scan_whose_state_was_replaced_by_a_newer_one_is_told() {
    let mut store = store_with(&["a", "b", "c"]);
    let request = pb::RangeRequest { revision: 3, ..range("a", "\0") };
    let mut scan = store.scan(&request).expect("a revision that exists");
    assert_eq!(scan.advance(&store, 1), Ok(false));
    let mut other = store_with(&["a", "b", "c", "d"]);
    apply_compact(&mut other, 4).expect("a revision that exists");
    std::mem::swap(&mut store, &mut other);
    assert_eq!(scan.advance(&store, 1), Err(KvError::Compacted));
    assert_eq!(scan.advance(&other, 10), Ok(true), "where it was begun it can go on");
}

/// A watch may begin at the compacted revision, and is to see the deletion (etcd#18089).
#[test]
fn deletion_at_the_compacted_revision_stays_until_the_next_compaction() {
    let mut store = store_at(2);
    for key in ["a", "b"] {
        apply_put(&mut store, put(key, key)).expect("a plain put");
    }
    apply_delete(&mut store, delete("a", ""));
    apply_put(&mut store, put("c", "")).expect("a plain put");
    let in_revision_4 =
        |store: &Store| store.history.iter_from(0).filter(|(_, v)| v.modified().main == 4).count();
    apply_compact(&mut store, 4).expect("a revision that exists");
    assert_eq!(store.collect(1_000), Collected::All);
    assert_eq!(in_revision_4(&store), 1);
    assert_eq!(store.history.iter_from(0).count(), 3, "what was deleted is gone");
    assert_eq!(store.size(), store.size_in_use());
    apply_compact(&mut store, 5).expect("a revision that exists");
    assert_eq!(store.collect(1_000), Collected::All);
    assert_eq!((in_revision_4(&store), store.history.iter_from(0).count()), (0, 2));
    assert_eq!(store.size(), store.size_in_use());
}

/// A buffer that says when it is given back.
struct Counted(Vec<u8>, Arc<AtomicUsize>);

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.1.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Puts share the buffer of the message that brought them. One that stays must not keep all of it, nor may a key that is always written
/// again keep the message that brought it first.
#[test]
fn no_buffer_is_kept_for_a_part_of_it() {
    let (mut store, held) = (Store::new(), Arc::new(AtomicUsize::new(0)));
    for round in 0..50_u32 {
        held.fetch_add(1, Ordering::Relaxed);
        let cold = format!("cold{round:04}");
        let message = Bytes::from_owner(Counted([cold.as_bytes(), b"hotvalue"].concat(), Arc::clone(&held)));
        let (cold, hot, value) = (message.slice(..8), message.slice(8..11), message.slice(11..));
        for key in [cold, hot] {
            let request = pb::PutRequest { key, value: value.clone(), ..pb::PutRequest::default() };
            apply_put(&mut store, request).expect("a plain put");
        }
        if round.is_multiple_of(5) {
            let before = store.revision() - 3;
            if before > store.compacted() {
                apply_compact(&mut store, before).expect("a revision that exists");
            }
            while store.collect(7) == Collected::More {}
            assert!(held.load(Ordering::Relaxed) <= 7, "{held:?} messages are held");
        }
    }
    let current = store.revision();
    apply_compact(&mut store, current).expect("the current revision");
    while store.collect(usize::MAX) == Collected::More {}
    assert_eq!(held.load(Ordering::Relaxed), 0);
    assert_eq!(store.range(&range("a", "\0")).expect("a plain range").count, 51);
}

/// Segments follow what is kept, whatever was written in between, and old positions still lead to their versions.
#[test]
fn room_is_given_back() {
    let mut store = Store::new();
    let versions = 40_000_u32;
    for number in 0..versions {
        let key =
            if number.is_multiple_of(100) { format!("cold{number}") } else { format!("hot{}", number % 7) };
        apply_put(&mut store, put(&key, "value")).expect("a plain put");
        if number.is_multiple_of(3_000) && number > 0 {
            let before = store.revision() - 500;
            apply_compact(&mut store, before).expect("a revision that exists");
            while store.collect(64) == Collected::More {}
        }
    }
    let (kept, slots, segments) = store.history.room();
    assert!(kept < 4_000, "{kept} versions");
    assert!(slots <= 2 * kept + 2_048, "{slots} slots for {kept} versions");
    assert!(segments <= 3 + slots / 256, "{segments} segments for {slots} slots");
    for number in (0..versions).step_by(100) {
        assert_eq!(at(&store, &format!("cold{number}"), 0), Ok(vec![bytes("value")]));
    }
    for hot in 0..7 {
        let read = at(&store, &format!("hot{hot}"), store.compacted());
        assert_eq!(read, Ok(vec![bytes("value")]));
    }
}
