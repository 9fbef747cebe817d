//! What a command's answer tells beside what it has changed, read after it was applied.
//!
//! Ranges and previous values do not change the state. So applying does not read them: it notes the point of the history at which each
//! is to be read, and pins it. Later the client's own thread reads there, in pieces, on the one member that was asked; for the others such a
//! command costs no more than what it changes.

use std::sync::Arc;
use std::vec;

use quorate_api::etcdserverpb as pb;
use quorate_api::etcdserverpb::response_op::Response as InTxn;

use super::pins::Pin;
use super::range::RangeScan;
use super::revision::Revision;
use super::steps::Steps;
use super::{KvError, Response, Store};

/// A range to be read for an answer.
#[derive(Debug)]
pub(super) struct LateRead {
    request: pb::RangeRequest,
    /// The point at which it is read: between two changes of a transaction, as a rule.
    at: Revision,
    /// What its header says.
    revision: i64,
    /// Its place in the answer of a transaction: the number of an operation, and of one within that, and so on. Empty if the answer is not
    /// a transaction's.
    path: Vec<usize>,
}

impl LateRead {
    /// What a transaction's range finds at point `at`, or at the revision that it asks for.
    pub(super) fn range(request: &pb::RangeRequest, at: Revision, revision: i64, path: Vec<usize>) -> Self {
        let at = if request.revision > 0 { Revision::end_of(request.revision) } else { at };
        Self { request: request.clone(), at, revision, path }
    }

    /// Reads it at once, if it is of a single key.
    pub(super) fn look_up(self, store: &Store, steps: &mut Steps) -> pb::RangeResponse {
        RangeScan::pinned(self.request, self.at, self.revision, None).look_up(store, steps)
    }

    /// What a deletion has deleted that came behind point `before`.
    pub(super) fn deleted(
        request: &pb::DeleteRangeRequest,
        before: Revision,
        revision: i64,
        path: Vec<usize>,
    ) -> Self {
        let (key, range_end) = (request.key.clone(), request.range_end.clone());
        let request = pb::RangeRequest { key, range_end, ..pb::RangeRequest::default() };
        Self { request, at: before, revision, path }
    }
}

/// A command that was applied, and what is left to be read for its answer: nothing in most cases.
#[derive(Debug)]
pub struct Reply {
    response: Response,
    late: Option<Box<LateReads>>,
    /// What was read for it holds so many bytes.
    held: usize,
}

#[derive(Debug)]
struct LateReads {
    left: vec::IntoIter<LateRead>,
    /// The one under way, and its place.
    scan: Option<(RangeScan, Vec<usize>)>,
    pin: Arc<Pin>,
}

impl Reply {
    pub(super) fn new(store: &Store, response: Response, reads: Vec<LateRead>) -> Self {
        let lowest = reads.iter().map(|read| read.at.whole()).min();
        let late = lowest.map(|lowest| {
            let pin = Arc::new(store.pin(lowest));
            Box::new(LateReads { left: reads.into_iter(), scan: None, pin })
        });
        Self { response, late, held: 0 }
    }

    /// Whether the answer is whole: then [`Self::finish`] gives it.
    pub fn is_whole(&self) -> bool {
        self.late.is_none()
    }

    /// Reads on for about so many steps. Whether the answer is whole.
    ///
    /// Fails with [`KvError::Compacted`] if what is to be read is gone: another state has taken the place of the one that it was applied to, and
    /// does not reach back to it any more, or memory is short ([`super::garbage`]). The command was applied all the same.
    pub fn advance(&mut self, store: &Store, steps: usize) -> Result<bool, KvError> {
        let Some(late) = &mut self.late else { return Ok(true) };
        let Some((mut scan, path)) = late.scan.take().or_else(|| late.next()) else {
            self.late = None;
            return Ok(true);
        };
        let before = scan.held();
        let ended = scan.advance(store, steps)?;
        self.held += scan.held() - before;
        if ended {
            place(&mut self.response, &path, scan.finish());
        } else {
            late.scan = Some((scan, path));
        }
        Ok(false)
    }

    /// What it holds so far beside what it shares with the state, in bytes.
    pub fn held(&self) -> usize {
        self.held
    }

    /// The answer.
    pub fn finish(self) -> Response {
        self.response
    }
}

impl LateReads {
    fn next(&mut self) -> Option<(RangeScan, Vec<usize>)> {
        let LateRead { request, at, revision, path } = self.left.next()?;
        Some((RangeScan::pinned(request, at, revision, Some(Arc::clone(&self.pin))), path))
    }
}

/// Puts what was read into its place.
fn place(response: &mut Response, path: &[usize], found: pb::RangeResponse) {
    match response {
        Response::DeleteRange(deletion) => deletion.prev_kvs = found.kvs,
        Response::Txn(txn) => place_in(txn, path, found),
        Response::Put(_)
        | Response::Compact(_)
        | Response::Alarm(_)
        | Response::LeaseGrant(_)
        | Response::LeaseRevoke(_)
        | Response::RaiseLevel(_) => {}
    }
}

fn place_in(txn: &mut pb::TxnResponse, path: &[usize], found: pb::RangeResponse) {
    let Some((at, inner)) = path.split_first() else { return };
    match txn.responses.get_mut(*at).and_then(|operation| operation.response.as_mut()) {
        Some(InTxn::ResponseRange(range)) => *range = found,
        Some(InTxn::ResponseDeleteRange(deletion)) => deletion.prev_kvs = found.kvs,
        Some(InTxn::ResponseTxn(txn)) => place_in(txn, inner, found),
        Some(InTxn::ResponsePut(_)) | None => {}
    }
}
