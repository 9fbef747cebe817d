//! Transactions: compares choose the branches, the chosen operations are checked, then all of them are done.

use std::collections::VecDeque;

use quorate_api::etcdserverpb as pb;
use quorate_api::etcdserverpb::request_op::Request;
use quorate_api::etcdserverpb::response_op::Response;

use super::compares::Compares;
use super::keys::Keys;
use super::revision::Revision;
use super::steps::Steps;
use super::writer::{Deletion, Writer};
use super::{KvError, Store, header};
use crate::level::Level;

/// The most keys that the compares of a writing transaction may look at, in all ranges together: every member does it. Part of the
/// protocol, from level 2 on. Keys that do not exist do not count, so that all members count alike. A few tens of milliseconds; etcd has no such limit,
/// and comes to a stand instead. Transactions that only read have none either: they cost the one member that is asked.
pub(super) const MAX_COMPARED_KEYS: usize = 100_000;

/// The level from which on that holds.
const BOUNDS_COMPARES: Level = 2;

/// A transaction that is being applied.
#[derive(Debug)]
pub(super) enum Transaction {
    Choosing(Choosing),
    Executing(Executing),
}

/// The branch that a transaction takes.
#[derive(Debug)]
struct Branch {
    succeeded: bool,
    operations: Vec<pb::RequestOp>,
    /// The branches of those operations that are transactions, in order.
    nested: Vec<usize>,
}

/// The branches are being chosen, nested ones included. All of them are chosen in the state before the transaction.
#[derive(Debug)]
pub(super) struct Choosing {
    /// What is not chosen yet, in the order in which branches are added.
    requests: VecDeque<pb::TxnRequest>,
    /// The outermost first.
    branches: Vec<Branch>,
    compares: Compares,
    /// Keys that decided compares have looked at.
    compared: usize,
}

/// What was chosen and checked is being done. Each operation sees what those before it did.
#[derive(Debug)]
pub(super) struct Executing {
    branches: Vec<Branch>,
    /// From the outermost transaction to the one whose operations are being done.
    stack: Vec<Frame>,
    deletion: Option<Deletion>,
}

#[derive(Debug, Default)]
struct Frame {
    branch: usize,
    /// The operation that is next.
    next: usize,
    /// How many of those before it were transactions.
    nested: usize,
    responses: Vec<pb::ResponseOp>,
}

impl Transaction {
    pub(super) fn new(request: pb::TxnRequest) -> Self {
        Self::Choosing(Choosing {
            requests: VecDeque::from([request]),
            branches: Vec::new(),
            compares: Compares::default(),
            compared: 0,
        })
    }

    /// Goes on, for about as many steps as there are. The answer, when it is done and committed.
    pub(super) fn advance(
        &mut self,
        store: &mut Store,
        writer: &mut Writer,
        steps: &mut Steps,
    ) -> Option<Result<pb::TxnResponse, KvError>> {
        if let Self::Choosing(choosing) = self {
            let branches = match choosing.advance(store, steps)? {
                Ok(branches) => branches,
                Err(error) => return Some(Err(error)),
            };
            if let Err(error) = check(store, &branches, 0, &mut None, steps) {
                return Some(Err(error));
            }
            *self = Self::Executing(Executing { branches, stack: vec![Frame::default()], deletion: None });
        }
        let Self::Executing(executing) = self else { return None };
        let response = executing.advance(store, writer, steps)?;
        Some(Ok(pb::TxnResponse { header: Some(header(writer.commit(store))), ..response }))
    }
}

impl Choosing {
    fn advance(&mut self, store: &Store, steps: &mut Steps) -> Option<Result<Vec<Branch>, KvError>> {
        let point = Revision::end_of(store.revision);
        while let Some(request) = self.requests.front() {
            let succeeded = self.compares.advance(store, &request.compare, point, steps);
            let compared = self.compared + self.compares.keys;
            if compared > MAX_COMPARED_KEYS && store.level >= BOUNDS_COMPARES {
                return Some(Err(KvError::TooManyCompared));
            }
            let succeeded = succeeded?;
            self.compared += std::mem::take(&mut self.compares).keys;
            if let Some(request) = self.requests.pop_front() {
                self.choose(request, succeeded);
            }
        }
        Some(Ok(std::mem::take(&mut self.branches)))
    }

    fn choose(&mut self, request: pb::TxnRequest, succeeded: bool) {
        let mut operations = if succeeded { request.success } else { request.failure };
        let mut nested = Vec::new();
        for operation in &mut operations {
            if let Some(Request::RequestTxn(inner)) = &mut operation.request {
                // Behind this branch, and behind those that wait.
                nested.push(self.branches.len() + 1 + self.requests.len());
                self.requests.push_back(std::mem::take(inner));
            }
        }
        self.branches.push(Branch { succeeded, operations, nested });
    }
}

/// Checks every chosen operation, so that the transaction fails before it has changed anything, or not at all.
///
/// `deleted` is the lowest start of the deletions "from a key on" that come before: the one kind of deletion that may
/// meet a put of the same transaction. In one piece: a transaction has some hundred operations.
fn check<'b>(
    store: &Store,
    branches: &'b [Branch],
    at: usize,
    deleted: &mut Option<&'b [u8]>,
    steps: &mut Steps,
) -> Result<(), KvError> {
    let branch = &branches[at];
    let mut nested = branch.nested.iter();
    for operation in &branch.operations {
        steps.take(1);
        match &operation.request {
            Some(Request::RequestRange(request)) => {
                check_revision(store, request.revision, store.revision)?;
            }
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
                if let Some(inner) = nested.next() {
                    check(store, branches, *inner, deleted, steps)?;
                }
            }
            None => {}
        }
    }
    Ok(())
}

/// A transaction's Range is checked more strictly than one by itself: a negative revision other than -1 counts as compacted.
pub(super) fn check_revision(store: &Store, revision: i64, current: i64) -> Result<(), KvError> {
    match revision {
        0 => Ok(()),
        future if future > current => Err(KvError::FutureRevision),
        past if past < store.compacted() => Err(KvError::Compacted),
        _ => Ok(()),
    }
}

impl Executing {
    /// Goes on. The answer's header is left to the caller; those of nested transactions stay empty, as etcd's do.
    fn advance(
        &mut self,
        store: &mut Store,
        writer: &mut Writer,
        steps: &mut Steps,
    ) -> Option<pb::TxnResponse> {
        loop {
            let frame = self.stack.last()?;
            if frame.next == self.branches[frame.branch].operations.len() {
                let response = self.leave()?;
                let Some(outer) = self.stack.last_mut() else { return Some(response) };
                outer.responses.push(pb::ResponseOp { response: Some(Response::ResponseTxn(response)) });
                continue;
            }
            if steps.are_used_up() {
                return None;
            }
            if !self.operate(store, writer, steps) {
                return None;
            }
        }
    }

    /// Ends the innermost transaction.
    fn leave(&mut self) -> Option<pb::TxnResponse> {
        let Frame { branch, responses, .. } = self.stack.pop()?;
        let (header, succeeded) = (Some(pb::ResponseHeader::default()), self.branches[branch].succeeded);
        Some(pb::TxnResponse { header, succeeded, responses })
    }

    /// Does the next operation. False if a part of it is left.
    fn operate(&mut self, store: &mut Store, writer: &mut Writer, steps: &mut Steps) -> bool {
        let path = || self.stack.iter().map(|frame| frame.responses.len()).collect();
        let Some(frame) = self.stack.last() else { return true };
        let branch = &self.branches[frame.branch];
        steps.take(1);
        let response = match &branch.operations[frame.next].request {
            Some(Request::RequestRange(request)) => {
                Some(Response::ResponseRange(writer.range(store, request, path(), steps)))
            }
            Some(Request::RequestPut(request)) => {
                Some(Response::ResponsePut(writer.put(store, request, steps)))
            }
            Some(Request::RequestDeleteRange(request)) => {
                let deletion = self.deletion.get_or_insert_with(|| writer.begin_deletion(store));
                if !writer.delete(store, request, deletion, steps) {
                    return false;
                }
                let deletion = *deletion;
                self.deletion = None;
                Some(Response::ResponseDeleteRange(writer.deleted(store, request, deletion, path(), steps)))
            }
            Some(Request::RequestTxn(_)) => {
                let inner = Frame { branch: branch.nested[frame.nested], ..Frame::default() };
                self.entered();
                self.stack.push(inner);
                return true;
            }
            None => None,
        };
        if let Some(frame) = self.stack.last_mut() {
            frame.next += 1;
            frame.responses.push(pb::ResponseOp { response });
        }
        true
    }

    /// The next operation is a transaction, whose own are next.
    fn entered(&mut self) {
        if let Some(frame) = self.stack.last_mut() {
            frame.next += 1;
            frame.nested += 1;
        }
    }
}
