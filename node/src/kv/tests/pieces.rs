//! Whatever is cut into pieces gives what it gives in one: entries that are applied, answers that are read afterwards, scans.

use std::collections::VecDeque;

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use prost::Message as _;
use quorate_api::etcdserverpb as pb;
use quorate_api::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use quorate_api::etcdserverpb::request_op::Request;
use quorate_api::log::command::Operation;

use super::model::{key, range_end};
use super::requests::*;
use crate::kv::{Applying, KvError, Reply, Response, Store};

fn compare() -> impl Strategy<Value = pb::Compare> {
    (key(), range_end(), any::<bool>(), 0..4_i64).prop_map(|(key, range_end, greater, number)| pb::Compare {
        result: if greater { CompareResult::Greater } else { CompareResult::Less } as i32,
        target: CompareTarget::Version as i32,
        key,
        range_end,
        target_union: Some(TargetUnion::Version(number)),
    })
}

fn put() -> impl Strategy<Value = pb::PutRequest> {
    (key(), "[0-9]?", any::<bool>(), any::<bool>()).prop_map(|(key, value, prev_kv, ignore_value)| {
        let value = if ignore_value { Bytes::new() } else { Bytes::from(value.into_bytes()) };
        pb::PutRequest { key, value, prev_kv, ignore_value, ..pb::PutRequest::default() }
    })
}

fn deletion() -> impl Strategy<Value = pb::DeleteRangeRequest> {
    (key(), range_end(), any::<bool>()).prop_map(|(key, range_end, prev_kv)| pb::DeleteRangeRequest {
        key,
        range_end,
        prev_kv,
    })
}

fn leaf() -> impl Strategy<Value = Request> {
    let range = (key(), range_end(), prop_oneof![3 => Just(0), 1 => 0..12_i64], 0..3_i64).prop_map(
        |(key, range_end, revision, limit)| pb::RangeRequest {
            key,
            range_end,
            revision,
            limit,
            ..pb::RangeRequest::default()
        },
    );
    prop_oneof![
        3 => put().prop_map(Request::RequestPut),
        2 => deletion().prop_map(Request::RequestDeleteRange),
        3 => range.prop_map(Request::RequestRange),
    ]
}

/// A transaction of these, nested ones among them.
fn transaction() -> impl Strategy<Value = pb::TxnRequest> {
    let of = |operation: BoxedStrategy<Request>| {
        let branch = vec(operation, 0..4).prop_map(operations);
        (vec(compare(), 0..3), branch.clone(), branch)
            .prop_map(|(compare, success, failure)| pb::TxnRequest { compare, success, failure })
    };
    let inner = of(leaf().boxed()).prop_map(Request::RequestTxn);
    of(prop_oneof![4 => leaf(), 1 => inner].boxed())
}

/// A command, or a compaction so many revisions back.
fn command() -> impl Strategy<Value = Result<Operation, i64>> {
    prop_oneof![
        2 => put().prop_map(|put| Ok(Operation::Put(put))),
        2 => deletion().prop_map(|deletion| Ok(Operation::DeleteRange(deletion))),
        6 => transaction().prop_map(|txn| Ok(Operation::Txn(txn))),
        1 => (0..4_i64).prop_map(Err),
    ]
}

fn all(store: &Store) -> pb::RangeResponse {
    store.range(&range("a", "\0")).expect("the current revision")
}

/// An operation as it comes from the log: it lies in its message.
fn decoded(operation: &Operation) -> (Operation, Bytes) {
    let command = quorate_api::log::Command { operation: Some(operation.clone()), ..Default::default() };
    let message = Bytes::from(command.encode_to_vec());
    let command = quorate_api::log::Command::decode(message.clone()).expect("what was encoded");
    (command.operation.expect("what was encoded"), message)
}

/// Applies an operation in pieces of so many steps, while the state before it is read.
fn apply_in_pieces(
    store: &mut Store,
    operation: &Operation,
    steps: usize,
    answers: bool,
) -> Result<Reply, KvError> {
    let (operation, message) = decoded(operation);
    let before = all(store);
    let mut applying = Applying::new(operation, &message, answers);
    loop {
        if let Some(result) = applying.step(store, steps) {
            return result;
        }
        assert_eq!(all(store), before, "it cannot be seen before its end");
        store.collect(steps);
    }
}

/// Reads the rest of an answer, and compares.
fn compare_late(store: &Store, (reply, expected): (Reply, Response)) {
    let mut reply = reply;
    while !reply.advance(store, 1).expect("its point is pinned") {}
    assert_eq!(reply.finish(), expected);
}

proptest! {
    #[test]
    fn pieces_give_what_the_whole_gives(
        commands in vec((command(), 1..40_usize, 0..3_usize), 1..25),
        level in 1..=2_u32,
    ) {
        let [mut whole, mut pieces, mut silent] = [(); 3].map(|()| store_at(level));
        let mut late = VecDeque::new();
        for (command, steps, lag) in commands {
            let operation = command.unwrap_or_else(|back| {
                let revision = whole.revision() - back;
                Operation::Compact(pb::CompactionRequest { revision, physical: false })
            });
            let expected = whole.apply(&operation);
            let reply = apply_in_pieces(&mut pieces, &operation, steps, true);
            let unanswered = apply_in_pieces(&mut silent, &operation, usize::MAX, false);
            prop_assert_eq!(unanswered.map(drop), expected.clone().map(drop));
            prop_assert_eq!(reply.as_ref().err(), expected.as_ref().err());
            late.extend(reply.ok().zip(expected.ok()));
            for store in [&pieces, &silent] {
                prop_assert_eq!(all(store), all(&whole));
                prop_assert_eq!(store.size_in_use(), whole.size_in_use());
            }
            // What else has to be read may come long after, when that point has been compacted.
            while late.len() > lag {
                compare_late(&pieces, late.pop_front().expect("there are some"));
            }
            pieces.collect(steps);
        }
        for reply in late {
            compare_late(&pieces, reply);
        }
        for store in [&mut whole, &mut pieces, &mut silent] {
            while store.collect(3) == crate::kv::Collected::More {}
            prop_assert_eq!(store.size(), store.size_in_use());
        }
    }
}

/// Another state may take the place of the one that a command was applied to. As long as that reaches back, it tells the same.
#[test]
fn rest_of_an_answer_is_read_from_another_state_or_not_at_all() {
    let deletion = Operation::DeleteRange(pb::DeleteRangeRequest { prev_kv: true, ..delete("a", "\0") });
    let applied = || {
        let mut store = store_with(&["a", "b"]);
        let reply = apply_in_pieces(&mut store, &deletion, 1, true).expect("a plain deletion");
        (store, reply)
    };
    let mut other = store_with(&["a", "b"]);
    let expected = other.apply(&deletion).expect("a plain deletion");
    apply_put(&mut other, super::requests::put("c", "")).expect("a plain put");
    let (_, mut reply) = applied();
    while !reply.advance(&other, 1).expect("nothing was compacted") {}
    assert_eq!(reply.finish(), expected);

    let (_, mut reply) = applied();
    apply_compact(&mut other, 4).expect("a revision that exists");
    assert_eq!(reply.advance(&other, 1), Err(KvError::Compacted));
}
