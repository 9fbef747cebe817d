//! Whether a transaction could change one key twice.

use std::collections::{BTreeMap, BTreeSet};

use quorate_api::etcdserverpb as pb;
use quorate_api::etcdserverpb::request_op::Request;

use super::check::Invalid;

/// Refuses a transaction that puts a key twice, or puts a key that it deletes, in branches that can be taken together.
/// Of two nested transactions, only the later one's puts are held against the earlier one's deletions, as in etcd.
pub(super) fn check(request: &pb::TxnRequest) -> Result<(), Invalid> {
    changes(&request.success)?;
    changes(&request.failure)?;
    Ok(())
}

/// What a list of operations may change.
#[derive(Debug, Default)]
struct Changes<'r> {
    puts: BTreeSet<&'r [u8]>,
    deletions: Deletions<'r>,
}

fn changes(operations: &[pb::RequestOp]) -> Result<Changes<'_>, Invalid> {
    let requests = || operations.iter().filter_map(|operation| operation.request.as_ref());
    let mut all = Changes::default();
    for request in requests() {
        if let Request::RequestDeleteRange(request) = request {
            all.deletions.add(&request.key, &request.range_end);
        }
    }
    for request in requests() {
        if let Request::RequestTxn(request) = request {
            all.add_either(changes(&request.success)?, changes(&request.failure)?)?;
        }
    }
    for request in requests() {
        if let Request::RequestPut(request) = request {
            all.add_put(&request.key)?;
        }
    }
    Ok(all)
}

impl<'r> Changes<'r> {
    /// Adds what a nested transaction may change: one branch or the other, so that both may put the same key.
    fn add_either(&mut self, success: Self, failure: Self) -> Result<(), Invalid> {
        for key in &success.puts {
            self.add_put(key)?;
        }
        for key in failure.puts {
            if !success.puts.contains(key) {
                self.add_put(key)?;
            }
        }
        self.deletions.append(success.deletions);
        self.deletions.append(failure.deletions);
        Ok(())
    }

    fn add_put(&mut self, key: &'r [u8]) -> Result<(), Invalid> {
        if self.deletions.cover(key) || !self.puts.insert(key) {
            return Err(Invalid::DuplicateKey);
        }
        Ok(())
    }
}

/// Deleted keys: single ones, and spans that neither touch nor overlap (start to end, the end excluded).
///
/// A deletion "from the key on" counts as empty, as in etcd: it may meet a put.
#[derive(Debug, Default)]
struct Deletions<'r> {
    keys: BTreeSet<&'r [u8]>,
    spans: BTreeMap<&'r [u8], &'r [u8]>,
}

impl<'r> Deletions<'r> {
    fn add(&mut self, key: &'r [u8], range_end: &'r [u8]) {
        if range_end.is_empty() {
            self.keys.insert(key);
        } else if key < range_end {
            self.add_span(key, range_end);
        }
    }

    fn add_span(&mut self, mut start: &'r [u8], mut end: &'r [u8]) {
        while let Some((&first, &last)) =
            self.spans.range(..=end).next_back().filter(|(_, last)| **last >= start)
        {
            self.spans.remove(first);
            start = start.min(first);
            end = end.max(last);
        }
        self.spans.insert(start, end);
    }

    fn append(&mut self, mut other: Self) {
        self.keys.append(&mut other.keys);
        for (start, end) in other.spans {
            self.add_span(start, end);
        }
    }

    fn cover(&self, key: &[u8]) -> bool {
        self.keys.contains(key) || self.spans.range(..=key).next_back().is_some_and(|(_, end)| key < *end)
    }
}
