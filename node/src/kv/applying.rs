//! Applying one operation, in as many pieces as its work asks for.
//!
//! A deletion of a million keys is one revision, and a transaction may compare, and delete, as much. The versions that it makes are
//! appended as it goes on, under a revision that is not the current one yet: so readers, snapshots and copies that come between its
//! pieces see the state before it. When it is done the revision moves, in one step. What can fail is checked before the first change.

use bytes::Bytes;
use quorate_api::etcdserverpb as pb;
use quorate_api::log::CheckQuota;
use quorate_api::log::command::Operation;

use super::growth::growth;
use super::late::Reply;
use super::leasing::Ending;
use super::steps::Steps;
use super::txn::Transaction;
use super::writer::{Deletion, Writer};
use super::{KvError, Response, Store, header};
use crate::level::Level;

/// One operation that is being applied. It is to be brought to its end in the state that it was begun in, before the next one.
#[derive(Debug)]
pub struct Applying {
    work: Work,
    /// It may make the state larger.
    grows: bool,
    writer: Writer,
}

#[derive(Debug)]
enum Work {
    Put(pb::PutRequest),
    Delete(pb::DeleteRangeRequest, Option<Deletion>),
    Txn(Box<Transaction>),
    Compact(i64),
    RaiseLevel(Level),
    Alarm(pb::AlarmRequest),
    CheckQuota(CheckQuota),
    LeaseGrant(pb::LeaseGrantRequest),
    LeaseEnd(Ending),
}

impl Applying {
    /// Begins to apply `operation`, which came in the command `message`. It was found valid (see [`super::check`]) before it was proposed;
    /// one that was not does no harm, but its outcome is only defined to be the same everywhere.
    ///
    /// Only the member whose client waits `answers`: the others do what changes the state, and read nothing.
    pub fn new(operation: Operation, message: &Bytes, answers: bool) -> Self {
        let grows = growth(&operation) > 0;
        let work = match operation {
            Operation::Put(request) => Work::Put(request),
            Operation::DeleteRange(request) => Work::Delete(request, None),
            Operation::Txn(request) => Work::Txn(Box::new(Transaction::new(request))),
            Operation::Compact(request) => Work::Compact(request.revision),
            Operation::RaiseLevel(raise) => Work::RaiseLevel(raise.to),
            Operation::Alarm(request) => Work::Alarm(request),
            Operation::CheckQuota(check) => Work::CheckQuota(check),
            Operation::LeaseGrant(request) => Work::LeaseGrant(request),
            Operation::LeaseRevoke(request) => Work::LeaseEnd(Ending::asked_for(request)),
            Operation::ExpireLease(expire) => Work::LeaseEnd(Ending::expired(&expire)),
        };
        Self { work, grows, writer: Writer::new(message, answers) }
    }

    /// Goes on for about so many steps (at most [`super::MAX_STEPS`] where others wait for the state). The outcome, when it is done: the
    /// same on every member and however it was cut into pieces, but for what is read for an answer.
    pub fn step(&mut self, store: &mut Store, mut steps: usize) -> Option<Result<Reply, KvError>> {
        self.step_within(store, &mut steps)
    }

    /// The same of a `budget` of steps that several operations share: those that were taken are taken off.
    pub fn step_within(&mut self, store: &mut Store, budget: &mut usize) -> Option<Result<Reply, KvError>> {
        store.unfinished.get_or_insert(store.history.end());
        let mut steps = Steps::new(*budget);
        let outcome = self.advance(store, &mut steps);
        *budget = steps.left();
        let outcome = outcome?;
        store.unfinished = None;
        let late = std::mem::take(&mut self.writer.late);
        Some(outcome.map(|response| Reply::new(store, response, late)))
    }

    fn advance(&mut self, store: &mut Store, steps: &mut Steps) -> Option<Result<Response, KvError>> {
        let Self { work, grows, writer } = self;
        // Before anything else is looked at, as in etcd; and no alarm is raised in the middle of an entry.
        if *grows && store.is_full() {
            steps.take(1);
            return Some(Err(KvError::NoSpace));
        }
        // What has pieces takes its steps with each of them.
        if !matches!(work, Work::Delete(..) | Work::Txn(_) | Work::LeaseEnd(_)) {
            steps.take(1);
        }
        match work {
            Work::Put(request) => {
                if let Err(error) = store.check_put(request) {
                    return Some(Err(error));
                }
                let response = writer.put(store, request, steps);
                writer.commit(store);
                Some(Ok(Response::Put(response)))
            }
            Work::Delete(request, deletion) => {
                let deletion = deletion.get_or_insert_with(|| writer.begin_deletion(store));
                if !writer.delete(store, request, deletion, steps) {
                    return None;
                }
                let response = writer.deleted(store, request, *deletion, Vec::new(), steps);
                writer.commit(store);
                Some(Ok(Response::DeleteRange(response)))
            }
            Work::Txn(transaction) => Some(transaction.advance(store, writer, steps)?.map(Response::Txn)),
            Work::Compact(revision) => Some(store.compact(*revision, steps).map(Response::Compact)),
            Work::Alarm(request) => Some(store.alarm(request).map(Response::Alarm)),
            Work::CheckQuota(check) => Some(Ok(Response::Alarm(store.check_quota(*check)))),
            Work::LeaseGrant(request) => Some(store.grant_lease(request).map(Response::LeaseGrant)),
            Work::LeaseEnd(ending) => {
                let ended = ending.advance(store, writer, steps)?;
                Some(ended.map(|()| {
                    let header = Some(header(writer.commit(store)));
                    Response::LeaseRevoke(pb::LeaseRevokeResponse { header })
                }))
            }
            Work::RaiseLevel(to) => {
                store.level = store.level.max(*to);
                Some(Ok(Response::RaiseLevel(store.level)))
            }
        }
    }
}
