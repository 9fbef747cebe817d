use super::requests::*;
use quorate_api::etcdserverpb as pb;

#[test]
fn deleting_nothing_makes_no_revision() {
    let mut store = store_with(&["b"]);
    for request in [delete("a", ""), delete("c", "z"), delete("c", "b"), delete("c", "\0")] {
        let response = apply_delete(&mut store, request);
        assert_eq!((response.deleted, revision(response.header.as_ref())), (0, 2));
    }
}

#[test]
fn a_range_goes_in_one_revision() {
    let mut store = store_with(&["a", "b", "c"]);
    let response = apply_delete(&mut store, pb::DeleteRangeRequest { prev_kv: true, ..delete("a", "c") });
    assert_eq!((response.deleted, revision(response.header.as_ref())), (2, 5));
    let previous: Vec<_> = response.prev_kvs.iter().map(|kv| (kv.key.clone(), kv.mod_revision)).collect();
    assert_eq!(previous, [(bytes("a"), 2), (bytes("b"), 3)]);
    assert_eq!(keys(&store.range(&range("a", "\0")).expect("a plain range")), ["c"]);
}

#[test]
fn what_was_deleted_is_still_there_at_older_revisions() {
    let mut store = store_with(&["a", "b"]);
    apply_delete(&mut store, delete("a", "\0"));
    let old = store.range(&pb::RangeRequest { revision: 3, ..range("a", "\0") }).expect("a past revision");
    assert_eq!((keys(&old), revision(old.header.as_ref())), (vec!["a", "b"], 4));
    assert_eq!(apply_delete(&mut store, delete("a", "\0")).deleted, 0);
}
