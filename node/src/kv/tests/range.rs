use super::requests::*;
use crate::kv::KvError;
use quorate_api::etcdserverpb as pb;
use quorate_api::etcdserverpb::range_request::{SortOrder, SortTarget};

const ALL: (&str, &str) = ("a", "\0");

#[test]
fn range_end_says_which_keys() {
    let store = store_with(&["a", "aa", "b", "c"]);
    let cases: [(&str, &str, &[&str]); 7] = [
        ("a", "", &["a"]),
        ("ab", "", &[]),
        ("a", "b", &["a", "aa"]),
        ("aa", "\0", &["aa", "b", "c"]),
        ("d", "\0", &[]),
        ("b", "b", &[]),
        ("c", "a", &[]),
    ];
    for (key, range_end, expected) in cases {
        let response = store.range(&range(key, range_end)).expect("a plain range");
        assert_eq!(keys(&response), expected, "{key:?} to {range_end:?}");
        assert_eq!(usize::try_from(response.count), Ok(expected.len()));
    }
}

#[test]
fn count_ignores_limit_and_filters() {
    let store = store_with(&["a", "b", "c", "d"]);
    let response = store.range(&pb::RangeRequest { limit: 2, ..range("b", "\0") }).expect("a plain range");
    assert_eq!((keys(&response), response.more, response.count), (vec!["b", "c"], true, 3));
    let filtered = pb::RangeRequest { min_mod_revision: 4, limit: 1, ..range(ALL.0, ALL.1) };
    let response = store.range(&filtered).expect("a plain range");
    assert_eq!((keys(&response), response.more, response.count), (vec!["c"], true, 4));
    let counted = pb::RangeRequest { count_only: true, limit: 1, ..range(ALL.0, ALL.1) };
    let response = store.range(&counted).expect("a plain range");
    assert_eq!((keys(&response).len(), response.more, response.count), (0, false, 4));
}

#[test]
fn an_open_order_sorts_what_lies_before_the_cut() {
    let store = store_with(&["d", "c", "b", "a"]);
    let by_creation = |order: SortOrder| pb::RangeRequest {
        limit: 2,
        sort_order: order as i32,
        sort_target: SortTarget::Create as i32,
        ..range(ALL.0, ALL.1)
    };
    let sorted = |order| store.range(&by_creation(order)).expect("a plain range");
    assert_eq!(keys(&sorted(SortOrder::None)), ["c", "b"], "of a, b and c");
    assert_eq!(keys(&sorted(SortOrder::Ascend)), ["d", "c"]);
    assert_eq!(keys(&sorted(SortOrder::Descend)), ["a", "b"]);
}

#[test]
fn keys_only_leaves_values_out_but_may_sort_by_them() {
    let mut store = store_with(&["a"]);
    apply_put(&mut store, put("b", "0")).expect("a plain put");
    let request = pb::RangeRequest {
        keys_only: true,
        sort_target: SortTarget::Value as i32,
        sort_order: SortOrder::Ascend as i32,
        ..range(ALL.0, ALL.1)
    };
    let response = store.range(&request).expect("a plain range");
    assert_eq!(keys(&response), ["b", "a"]);
    assert!(response.kvs.iter().all(|kv| kv.value.is_empty()));
}

#[test]
fn revisions_that_do_not_exist_are_refused() {
    let store = store_with(&["a"]);
    let at = |revision| store.range(&pb::RangeRequest { revision, ..range("a", "") });
    assert_eq!(at(3), Err(KvError::FutureRevision));
    assert_eq!(at(1).expect("the first revision").count, 0);
    assert_eq!(at(-5).expect("as if none was asked for").count, 1);
}

#[test]
fn a_scan_in_pieces_reads_one_revision() {
    let mut store = store_with(&["a", "b", "c", "d"]);
    let request = range(ALL.0, ALL.1);
    let whole = store.range(&request).expect("a plain range");
    let mut scan = store.scan(&request).expect("a plain range");
    assert_eq!(scan.advance(&store, 2), Ok(false));
    apply_delete(&mut store, delete("a", "\0"));
    apply_put(&mut store, put("c", "new")).expect("a plain put");
    apply_put(&mut store, put("bb", "new")).expect("a plain put");
    while scan.advance(&store, 1) == Ok(false) {}
    assert_eq!(scan.finish(), whole);
}
