//! Transactions: compares choose the branches, the chosen operations are checked, then all of them are done.

use std::cmp::Ordering;

use quorate_api::etcdserverpb as pb;
use quorate_api::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use quorate_api::etcdserverpb::request_op::Request;
use quorate_api::etcdserverpb::response_op::Response;

use super::history::Version;
use super::keys::Keys;
use super::range::RangeScan;
use super::store::Writer;
use super::{KvError, Store, header};

/// The branches that a transaction takes, nested ones included. All of them are chosen in the state before it.
#[derive(Debug)]
pub(super) struct Plan<'r> {
    succeeded: bool,
    operations: &'r [pb::RequestOp],
    /// The plans of those operations that are transactions, in order.
    nested: Vec<Plan<'r>>,
}

impl<'r> Plan<'r> {
    /// Chooses.
    pub(super) fn new(store: &Store, request: &'r pb::TxnRequest) -> Self {
        let succeeded = request.compare.iter().all(|compare| holds(store, compare));
        let operations = if succeeded { &request.success } else { &request.failure };
        let nested = operations
            .iter()
            .filter_map(|operation| match &operation.request {
                Some(Request::RequestTxn(request)) => Some(Self::new(store, request)),
                _ => None,
            })
            .collect();
        Self { succeeded, operations, nested }
    }

    /// Checks every chosen operation, so that the transaction fails before it has changed anything, or not at all.
    pub(super) fn check(&self, store: &Store) -> Result<(), KvError> {
        self.check_after(store, &mut None)
    }

    /// `deleted` is the lowest start of the deletions "from a key on" that come before: the one kind of deletion that may
    /// meet a put of the same transaction.
    fn check_after(&self, store: &Store, deleted: &mut Option<&'r [u8]>) -> Result<(), KvError> {
        let mut nested = self.nested.iter();
        for operation in self.operations {
            match &operation.request {
                Some(Request::RequestRange(request)) => check_revision(store, request.revision)?,
                Some(Request::RequestPut(request)) => {
                    store.check_put(request)?;
                    let keeps = request.ignore_value || request.ignore_lease;
                    if keeps && deleted.is_some_and(|start| *start <= *request.key) {
                        return Err(KvError::KeyNotFound);
                    }
                }
                Some(Request::RequestDeleteRange(request)) => {
                    if let Keys::From(start) = Keys::new(&request.key, &request.range_end) {
                        *deleted = Some(deleted.map_or(start, |lowest| lowest.min(start)));
                    }
                }
                Some(Request::RequestTxn(_)) => {
                    if let Some(plan) = nested.next() {
                        plan.check_after(store, deleted)?;
                    }
                }
                None => {}
            }
        }
        Ok(())
    }

    /// Does what was chosen and checked. Each operation sees what those before it did. The header is left to the caller;
    /// those of nested transactions stay empty, as etcd's do.
    pub(super) fn execute(&self, writer: &mut Writer<'_>) -> Result<pb::TxnResponse, KvError> {
        let mut nested = self.nested.iter();
        let mut responses = Vec::with_capacity(self.operations.len());
        for operation in self.operations {
            let response = match &operation.request {
                Some(Request::RequestRange(request)) => Some(Response::ResponseRange(writer.range(request)?)),
                Some(Request::RequestPut(request)) => Some(Response::ResponsePut(writer.put(request))),
                Some(Request::RequestDeleteRange(request)) => {
                    Some(Response::ResponseDeleteRange(writer.delete_range(request)))
                }
                Some(Request::RequestTxn(_)) => {
                    nested.next().map(|plan| plan.execute(writer)).transpose()?.map(Response::ResponseTxn)
                }
                None => None,
            };
            responses.push(pb::ResponseOp { response });
        }
        Ok(pb::TxnResponse {
            header: Some(pb::ResponseHeader::default()),
            succeeded: self.succeeded,
            responses,
        })
    }
}

/// A transaction's Range is checked more strictly than one by itself: a negative revision other than -1 counts as compacted.
fn check_revision(store: &Store, revision: i64) -> Result<(), KvError> {
    match revision {
        0 => Ok(()),
        future if future > store.revision() => Err(KvError::FutureRevision),
        past if past < store.compacted() => Err(KvError::Compacted),
        _ => Ok(()),
    }
}

/// Whether a compare holds: for every key of its range, or for a key of zeros if there is none. What does not exist has no
/// value, so that a compare of values does not hold then.
fn holds(store: &Store, compare: &pb::Compare) -> bool {
    let keys = Keys::new(&compare.key, &compare.range_end);
    let revision = store.revision();
    if let Keys::One(key) = keys {
        return match store.version(key, revision) {
            Some(version) => holds_for(compare, Some(version)),
            None => holds_for_none(compare),
        };
    }
    let mut versions =
        store.index.range(keys, None).filter_map(|(_, at)| store.history.at(at, revision)).peekable();
    if versions.peek().is_none() {
        return holds_for_none(compare);
    }
    versions.all(|version| holds_for(compare, Some(version)))
}

fn holds_for_none(compare: &pb::Compare) -> bool {
    compare.target != CompareTarget::Value as i32 && holds_for(compare, None)
}

/// Compares one version, or zeros. A target that is unknown compares as equal, a result that is unknown holds, as in etcd.
fn holds_for(compare: &pb::Compare, version: Option<&Version>) -> bool {
    let number = |of: fn(&Version) -> i64| version.map_or(0, of).cmp(&operand(compare));
    let ordering = match CompareTarget::try_from(compare.target) {
        Ok(CompareTarget::Version) => number(|version| version.number),
        Ok(CompareTarget::Create) => number(|version| version.created),
        Ok(CompareTarget::Mod) => number(|version| version.modified.main),
        Ok(CompareTarget::Lease) => number(|version| version.lease),
        Ok(CompareTarget::Value) => {
            version.map_or(&[][..], |version| &version.value).cmp(value_operand(compare))
        }
        Err(_) => Ordering::Equal,
    };
    match CompareResult::try_from(compare.result) {
        Ok(CompareResult::Equal) => ordering.is_eq(),
        Ok(CompareResult::NotEqual) => ordering.is_ne(),
        Ok(CompareResult::Greater) => ordering.is_gt(),
        Ok(CompareResult::Less) => ordering.is_lt(),
        Err(_) => true,
    }
}

/// The number to compare with; 0 if the request carries one for another target.
fn operand(compare: &pb::Compare) -> i64 {
    match (compare.target(), &compare.target_union) {
        (CompareTarget::Version, Some(TargetUnion::Version(number)))
        | (CompareTarget::Create, Some(TargetUnion::CreateRevision(number)))
        | (CompareTarget::Mod, Some(TargetUnion::ModRevision(number)))
        | (CompareTarget::Lease, Some(TargetUnion::Lease(number))) => *number,
        _ => 0,
    }
}

/// The value to compare with; empty if the request carries something else.
fn value_operand(compare: &pb::Compare) -> &[u8] {
    match &compare.target_union {
        Some(TargetUnion::Value(value)) => value,
        _ => &[],
    }
}

/// A transaction that only reads, at the revision that was current when it began.
#[derive(Debug)]
pub struct ReadTxn<'r> {
    plan: Plan<'r>,
    revision: i64,
}

impl<'r> ReadTxn<'r> {
    /// Chooses the branch and checks it.
    pub fn new(store: &Store, request: &'r pb::TxnRequest) -> Result<Self, KvError> {
        let plan = Plan::new(store, request);
        plan.check(store)?;
        Ok(Self { plan, revision: store.revision() })
    }

    /// Does all of it in one piece.
    pub fn run(store: &Store, request: &'r pb::TxnRequest) -> Result<pb::TxnResponse, KvError> {
        let txn = Self::new(store, request)?;
        let ranges: Result<_, _> = txn.ranges().map(|range| txn.scan(store, range)?.run(store)).collect();
        Ok(txn.finish(ranges?))
    }

    /// The ranges to be read, in order.
    pub fn ranges(&self) -> impl Iterator<Item = &'r pb::RangeRequest> {
        self.plan.operations.iter().filter_map(|operation| match &operation.request {
            Some(Request::RequestRange(request)) => Some(request),
            _ => None,
        })
    }

    /// Begins to read one of them.
    pub fn scan<'q>(&self, store: &Store, request: &'q pb::RangeRequest) -> Result<RangeScan<'q>, KvError> {
        RangeScan::new(store, request, self.revision)
    }

    /// The answer, made of what was read.
    pub fn finish(&self, ranges: Vec<pb::RangeResponse>) -> pb::TxnResponse {
        let responses =
            ranges.into_iter().map(|range| pb::ResponseOp { response: Some(Response::ResponseRange(range)) });
        pb::TxnResponse {
            header: Some(header(self.revision)),
            succeeded: self.plan.succeeded,
            responses: responses.collect(),
        }
    }
}
