//! Our side: validity by itself, then the store.

use quorate_api::log::command::Operation;
use quorate_node::kv::check::{self, Invalid};
use quorate_node::kv::{KvError, ReadTxn, Response, Store};
use tonic::Status;

use crate::request::{Answer, Request};

/// Asks the store, as the services do.
pub(crate) fn ask(store: &mut Store, request: &Request) -> Answer {
    match answer(store, request) {
        Ok(answer) => answer,
        Err(status) => Answer::Error(status.code(), status.message().to_owned()),
    }
}

fn answer(store: &mut Store, request: &Request) -> Result<Answer, Status> {
    check(request)?;
    let operation = match request {
        Request::Range(range) => return Ok(Answer::Range(store.range(range)?)),
        Request::Txn(txn) if check::reads_only(txn) => return Ok(Answer::Txn(ReadTxn::run(store, txn)?)),
        Request::Txn(txn) => Operation::Txn(txn.clone()),
        Request::Put(put) => Operation::Put(put.clone()),
        Request::DeleteRange(delete) => Operation::DeleteRange(delete.clone()),
        Request::Compact(compact) => Operation::Compact(*compact),
    };
    Ok(apply(store, &operation)?)
}

fn check(request: &Request) -> Result<(), Invalid> {
    match request {
        Request::Range(range) => check::range(range),
        Request::Put(put) => check::put(put),
        Request::DeleteRange(delete) => check::delete_range(delete),
        Request::Txn(txn) => check::txn(txn),
        Request::Compact(_) => Ok(()),
    }
}

fn apply(store: &mut Store, operation: &Operation) -> Result<Answer, KvError> {
    Ok(match store.apply(operation)? {
        Response::Put(put) => Answer::Put(put),
        Response::DeleteRange(delete) => Answer::DeleteRange(delete),
        Response::Txn(txn) => Answer::Txn(txn),
        Response::Compact(compact) => Answer::Compact(compact),
        Response::Alarm(_) | Response::LeaseGrant(_) | Response::LeaseRevoke(_) | Response::RaiseLevel(_) => {
            unreachable!("nothing asks for that")
        }
    })
}
