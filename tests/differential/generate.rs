//! Random sequences over so few keys, values and revisions that they collide all the time; a part of them invalid.

use bytes::Bytes;
use quorate_api::etcdserverpb as pb;
use quorate_api::etcdserverpb::compare::TargetUnion;
use quorate_api::etcdserverpb::request_op::Request as Op;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::request::Request;

/// Requests in the longest sequence.
pub(crate) const LONGEST: usize = 60;

/// At most 12 keys: up to there, etcd's sorting keeps equal elements in the order of their keys.
const KEYS: [&[u8]; 9] = [b"a", b"a\0", b"aa", b"ab", b"b", b"ba", b"c", b"\0", b"\xff"];
const VALUES: [&[u8]; 5] = [b"", b"0", b"1", b"10", b"\xff\0"];
/// A lease that nobody granted.
const NO_LEASE: i64 = 0x1234;

/// The sequence of a seed.
pub(crate) fn sequence(seed: u64) -> Vec<Request> {
    let mut generator = Generator { random: ChaCha8Rng::seed_from_u64(seed) };
    let length = generator.random.random_range(1..=LONGEST);
    (0..length).map(|_| generator.request()).collect()
}

struct Generator {
    random: ChaCha8Rng,
}

impl Generator {
    fn request(&mut self) -> Request {
        if self.random.random_ratio(1, 30) {
            return Request::Compact(self.compact());
        }
        match self.random.random_range(0..10) {
            0..3 => Request::Put(self.put()),
            3 => Request::DeleteRange(self.delete_range()),
            4..7 => Request::Range(self.range()),
            _ => Request::Txn(self.txn()),
        }
    }

    fn rarely(&mut self) -> bool {
        self.random.random_ratio(1, 40)
    }

    fn sometimes(&mut self) -> bool {
        self.random.random_ratio(1, 4)
    }

    fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        *choices.choose(&mut self.random).expect("choices to choose from")
    }

    fn key(&mut self) -> Bytes {
        if self.rarely() { Bytes::new() } else { Bytes::from_static(self.one_of(&KEYS)) }
    }

    fn range_end(&mut self) -> Bytes {
        if self.random.random_bool(0.5) { Bytes::new() } else { Bytes::from_static(self.one_of(&KEYS)) }
    }

    fn value(&mut self) -> Bytes {
        Bytes::from_static(self.one_of(&VALUES))
    }

    /// Mostly one that the sequence may have reached.
    fn revision(&mut self) -> i64 {
        if self.rarely() { self.one_of(&[-1, -2, -100]) } else { self.random.random_range(1..30) }
    }

    fn revision_or_none(&mut self) -> i64 {
        if self.sometimes() { self.revision() } else { 0 }
    }

    /// A number of an enum, rarely one that it does not have.
    fn variant(&mut self, count: i32) -> i32 {
        if self.rarely() { self.one_of(&[-1, count, 99]) } else { self.random.random_range(0..count) }
    }

    fn compact(&mut self) -> pb::CompactionRequest {
        let revision = if self.rarely() { 0 } else { self.revision() };
        pb::CompactionRequest { revision, physical: self.sometimes() }
    }

    fn put(&mut self) -> pb::PutRequest {
        let ignore_value = self.random.random_ratio(1, 8);
        let ignore_lease = self.random.random_ratio(1, 8);
        pb::PutRequest {
            key: self.key(),
            value: if ignore_value && !self.rarely() { Bytes::new() } else { self.value() },
            lease: if self.rarely() { NO_LEASE } else { 0 },
            prev_kv: self.random.random(),
            ignore_value,
            ignore_lease,
        }
    }

    fn delete_range(&mut self) -> pb::DeleteRangeRequest {
        pb::DeleteRangeRequest { key: self.key(), range_end: self.range_end(), prev_kv: self.random.random() }
    }

    fn range(&mut self) -> pb::RangeRequest {
        let filtered = self.sometimes();
        let filter = |generator: &mut Self| if filtered { generator.revision_or_none() } else { 0 };
        pb::RangeRequest {
            min_mod_revision: filter(self),
            max_mod_revision: filter(self),
            min_create_revision: filter(self),
            max_create_revision: filter(self),
            key: self.key(),
            range_end: self.range_end(),
            limit: self.one_of(&[0, 0, 0, 1, 2, 3, -1, i64::MAX]),
            revision: self.revision_or_none(),
            sort_order: if self.sometimes() { self.variant(3) } else { 0 },
            sort_target: if self.sometimes() { self.variant(5) } else { 0 },
            serializable: self.random.random(),
            keys_only: self.sometimes(),
            count_only: self.random.random_ratio(1, 8),
        }
    }

    fn txn(&mut self) -> pb::TxnRequest {
        let mut txn = match self.random.random_range(0..60) {
            0 => self.crowded_txn(),
            1 => self.reading_txn(),
            _ => self.txn_of_depth(3),
        };
        // etcd itself ends when a transaction deletes a key and then is to keep its value.
        if deletes_from_key_on(&txn) {
            keep_nothing(&mut txn);
        }
        txn
    }

    fn txn_of_depth(&mut self, depth: u32) -> pb::TxnRequest {
        pb::TxnRequest {
            compare: self.several(3, Self::compare),
            success: self.several(4, |generator| generator.operation(depth)),
            failure: self.several(4, |generator| generator.operation(depth)),
        }
    }

    fn reading_txn(&mut self) -> pb::TxnRequest {
        let range =
            |generator: &mut Self| pb::RequestOp { request: Some(Op::RequestRange(generator.range())) };
        pb::TxnRequest {
            compare: self.several(3, Self::compare),
            success: self.several(4, range),
            failure: self.several(4, range),
        }
    }

    /// Around the number of operations that may be in one transaction; a nested one shares what is left.
    fn crowded_txn(&mut self) -> pb::TxnRequest {
        let range = pb::RequestOp { request: Some(Op::RequestRange(self.range())) };
        let outer = self.random.random_range(1..=130);
        let inner = (128_usize + 1).saturating_sub(outer).saturating_sub(self.random.random_range(0..3));
        let nested = pb::TxnRequest { success: vec![range.clone(); inner], ..pb::TxnRequest::default() };
        let mut success = vec![range; outer - 1];
        success.push(pb::RequestOp { request: Some(Op::RequestTxn(nested)) });
        pb::TxnRequest { success, ..pb::TxnRequest::default() }
    }

    fn several<T>(&mut self, most: usize, mut one: impl FnMut(&mut Self) -> T) -> Vec<T> {
        let count = self.random.random_range(0..=most);
        (0..count).map(|_| one(self)).collect()
    }

    fn operation(&mut self, depth: u32) -> pb::RequestOp {
        let request = match self.random.random_range(0..8) {
            _ if self.random.random_ratio(1, 200) => None,
            0..3 => Some(Op::RequestPut(self.put())),
            3 => Some(Op::RequestDeleteRange(self.delete_range())),
            4 if depth > 0 => Some(Op::RequestTxn(self.txn_of_depth(depth - 1))),
            _ => Some(Op::RequestRange(self.range())),
        };
        pb::RequestOp { request }
    }

    fn compare(&mut self) -> pb::Compare {
        let target = self.variant(5);
        let operand = if self.rarely() { self.random.random_range(0..5) } else { target };
        pb::Compare {
            result: self.variant(4),
            target,
            key: self.key(),
            range_end: if self.sometimes() { self.range_end() } else { Bytes::new() },
            target_union: self.operand(operand),
        }
    }

    fn operand(&mut self, target: i32) -> Option<TargetUnion> {
        Some(match target {
            0 => TargetUnion::Version(self.random.random_range(0..4)),
            1 => TargetUnion::CreateRevision(self.revision_or_none()),
            2 => TargetUnion::ModRevision(self.revision_or_none()),
            3 => TargetUnion::Value(self.value()),
            4 => TargetUnion::Lease(self.one_of(&[0, 0, NO_LEASE])),
            _ => return None,
        })
    }
}

fn operations(txn: &pb::TxnRequest) -> impl Iterator<Item = &Op> {
    txn.success.iter().chain(&txn.failure).filter_map(|operation| operation.request.as_ref())
}

fn deletes_from_key_on(txn: &pb::TxnRequest) -> bool {
    operations(txn).any(|operation| match operation {
        Op::RequestDeleteRange(delete) => *delete.range_end == [0],
        Op::RequestTxn(txn) => deletes_from_key_on(txn),
        _ => false,
    })
}

fn keep_nothing(txn: &mut pb::TxnRequest) {
    for operation in txn.success.iter_mut().chain(&mut txn.failure) {
        match &mut operation.request {
            Some(Op::RequestPut(put)) => (put.ignore_value, put.ignore_lease) = (false, false),
            Some(Op::RequestTxn(txn)) => keep_nothing(txn),
            _ => {}
        }
    }
}
