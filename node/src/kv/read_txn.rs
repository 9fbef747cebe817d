//! Transactions that only read, in pieces.

use std::sync::Arc;

use quorate_api::etcdserverpb as pb;
use quorate_api::etcdserverpb::request_op::Request;
use quorate_api::etcdserverpb::response_op::Response;

use super::compares::Compares;
use super::pins::Pin;
use super::range::RangeScan;
use super::revision::Revision;
use super::steps::Steps;
use super::txn::check_revision;
use super::{KvError, Store, header};

/// A transaction that only reads, at the revision that was current when it began. It pins that revision.
#[derive(Debug)]
pub struct ReadTxn<'r> {
    request: &'r pb::TxnRequest,
    revision: i64,
    compares: Compares,
    succeeded: bool,
    pin: Arc<Pin>,
}

impl<'r> ReadTxn<'r> {
    /// Begins it. First of all its branch is to be chosen.
    pub fn new(store: &Store, request: &'r pb::TxnRequest) -> Self {
        let revision = store.revision();
        let pin = Arc::new(store.pin(revision));
        Self { request, revision, compares: Compares::default(), succeeded: false, pin }
    }

    /// Compares on for about so many steps. Whether the branch is chosen, and found nothing against.
    pub fn choose(&mut self, store: &Store, steps: usize) -> Result<bool, KvError> {
        let point = Revision::end_of(self.revision);
        if !store.can_read(point, Some(&self.pin)) {
            return Err(KvError::Compacted);
        }
        let decided = self.compares.advance(store, &self.request.compare, point, &mut Steps::new(steps));
        let Some(succeeded) = decided else { return Ok(false) };
        self.succeeded = succeeded;
        for range in self.ranges() {
            check_revision(store, range.revision, self.revision)?;
        }
        Ok(true)
    }

    /// Does all of it in one piece.
    pub fn run(store: &Store, request: &'r pb::TxnRequest) -> Result<pb::TxnResponse, KvError> {
        let mut txn = Self::new(store, request);
        while !txn.choose(store, usize::MAX)? {}
        let ranges: Result<_, _> = txn.ranges().map(|range| txn.scan(store, range)?.run(store)).collect();
        Ok(txn.finish(ranges?))
    }

    /// The ranges to be read, in order, once the branch is chosen.
    pub fn ranges(&self) -> impl Iterator<Item = &'r pb::RangeRequest> + use<'r> {
        let branch = if self.succeeded { &self.request.success } else { &self.request.failure };
        branch.iter().filter_map(|operation| match &operation.request {
            Some(Request::RequestRange(request)) => Some(request),
            _ => None,
        })
    }

    /// Begins to read one of them.
    pub fn scan(&self, store: &Store, request: &pb::RangeRequest) -> Result<RangeScan, KvError> {
        let (point, request) = (Revision::end_of(self.revision), request.clone());
        if request.revision > 0 {
            return RangeScan::new(store, request, point, self.revision);
        }
        Ok(RangeScan::pinned(request, point, self.revision, Some(Arc::clone(&self.pin))))
    }

    /// The answer, made of what was read.
    pub fn finish(&self, ranges: Vec<pb::RangeResponse>) -> pb::TxnResponse {
        let responses =
            ranges.into_iter().map(|range| pb::ResponseOp { response: Some(Response::ResponseRange(range)) });
        pb::TxnResponse {
            header: Some(header(self.revision)),
            succeeded: self.succeeded,
            responses: responses.collect(),
        }
    }
}
