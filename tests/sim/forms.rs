//! Other forms of what clients ask, in some runs: with ranges and previous values that are read after the command was applied, at its own point of
//! the history, in pieces and a while later, beside compactions and all that is written meanwhile; and nested in another transaction.

use quorate_api::etcdserverpb::request_op::Request as InRequest;
use quorate_api::etcdserverpb::response_op::Response as InResponse;
use quorate_api::etcdserverpb::{
    DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest, TxnResponse,
};
use quorate_api::log::command::Operation;
use quorate_api::mvccpb::KeyValue;
use quorate_node::kv::{KvError, Reply, Response, Store};
use quorate_raft::MemberId;
use quorate_tests::linearizability::kv::{Input, Key, Output, Value};
use quorate_tests::requests;
use rand::RngExt;

use crate::clients;
use crate::host::Pending;
use crate::time::MILLI;
use crate::world::{Event, World};

/// How something is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// As all clients do.
    Usual,
    /// What was there before is asked for by ranges.
    Ranges,
    /// The same, within a transaction.
    Nested,
}

impl Form {
    /// Of the operation of this number of a client.
    pub(crate) fn of(token: u64) -> Self {
        [Self::Usual, Self::Ranges, Self::Nested][(token % 3) as usize]
    }
}

/// A reply that is read piece by piece.
pub(crate) type Late = (Reply, Pending);

/// The most that passes between two pieces.
const REST: u64 = 150 * MILLI;

/// What is asked for in this form; none if it only reads.
pub(crate) fn operation(input: &Input, form: Form) -> Option<Operation> {
    let plain = |success| TxnRequest { success, ..TxnRequest::default() };
    let txn = match input {
        Input::Get(_) => return None,
        Input::Put(keys, value) => {
            let puts = keys.iter().map(|key| put(*key, *value));
            plain(std::iter::once(range(keys)).chain(puts).collect())
        }
        Input::Delete(key) if form == Form::Ranges => return Some(Operation::DeleteRange(deletion(*key))),
        Input::Delete(key) => plain(vec![asks(InRequest::RequestDeleteRange(deletion(*key)))]),
        Input::Swap { key, expected, new } => TxnRequest {
            compare: vec![requests::holds(*key, *expected)],
            success: vec![range(&[*key]), put(*key, *new)],
            failure: vec![range(&[*key])],
        },
    };
    Some(Operation::Txn(match form {
        Form::Nested => plain(vec![asks(InRequest::RequestTxn(txn))]),
        Form::Usual | Form::Ranges => txn,
    }))
}

fn asks(request: InRequest) -> RequestOp {
    RequestOp { request: Some(request) }
}

/// Keys that stand side by side.
fn range(keys: &[Key]) -> RequestOp {
    let (first, last) = (keys[0], keys[keys.len() - 1]);
    let (key, range_end) = (requests::name(first), behind(last));
    asks(InRequest::RequestRange(RangeRequest { key, range_end, ..RangeRequest::default() }))
}

fn put(key: Key, value: Value) -> RequestOp {
    let (key, value) = (requests::name(key), requests::text(value));
    asks(InRequest::RequestPut(PutRequest { key, value, ..PutRequest::default() }))
}

fn deletion(key: Key) -> DeleteRangeRequest {
    DeleteRangeRequest { key: requests::name(key), range_end: behind(key), prev_kv: true }
}

/// The first key behind this one.
fn behind(key: Key) -> bytes::Bytes {
    [&requests::name(key)[..], &[0]].concat().into()
}

/// What the answer tells.
pub(crate) fn output(input: &Input, response: Response) -> Output {
    let (header, found, done) = match response {
        Response::DeleteRange(deleted) => (deleted.header, deleted.prev_kvs, true),
        Response::Txn(txn) => {
            let (header, (found, done)) = (txn.header, innermost(txn));
            (header, found, done)
        }
        other => panic!("a transaction, or a deletion, is answered by {other:?}"),
    };
    let of = |key: &Key| {
        let held: Vec<KeyValue> = found.iter().filter(|kv| kv.key == requests::name(*key)).cloned().collect();
        requests::cell(&held).expect("a response that fits its request")
    };
    let seen = input.keys().iter().map(of).collect();
    Output { revision: header.expect("an answer has a header").revision, seen, done }
}

/// What the innermost transaction has found, and whether its compares held.
fn innermost(txn: TxnResponse) -> (Vec<KeyValue>, bool) {
    match txn.responses.into_iter().next().and_then(|first| first.response) {
        Some(InResponse::ResponseTxn(inner)) => innermost(inner),
        Some(InResponse::ResponseRange(range)) => (range.kvs, txn.succeeded),
        Some(InResponse::ResponseDeleteRange(deleted)) => (deleted.prev_kvs, txn.succeeded),
        other => panic!("a transaction that begins with a range answers {other:?}"),
    }
}

/// Reads one key as it was at an earlier revision, which is drawn from `number`. None if that is compacted.
pub(crate) fn read_past(store: &Store, input: &Input, number: u64) -> Option<Output> {
    let [key] = input.keys() else { return Some(clients::read(store, input)) };
    #[allow(clippy::cast_possible_wrap, reason = "less than a revision")]
    let revision = 1 + (number % store.revision().unsigned_abs()) as i64;
    let request = RangeRequest { key: requests::name(*key), revision, ..RangeRequest::default() };
    match store.range(&request) {
        Ok(found) => {
            let output = requests::ranged(found).expect("a response that fits its request");
            Some(Output { revision, ..output })
        }
        Err(KvError::Compacted) => None,
        Err(error) => panic!("a revision of the past cannot be read: {error}"),
    }
}

impl World {
    /// A command was applied, and something is still to be read for its answer.
    pub(crate) fn read_later(&mut self, id: MemberId, number: u64, late: Late) {
        let host = self.hosts.get_mut(&id).expect("a member");
        let (life, rest) = (host.life, host.random.random_range(0..REST));
        let process = host.process_mut().expect("it has applied it");
        process.late.insert(number, late);
        self.agenda.after(rest, Event::ReadLate(id, life, number));
    }

    /// The next piece is read.
    pub(crate) fn on_read_late(&mut self, id: MemberId, life: u32, number: u64) {
        let Some(process) =
            self.hosts.get_mut(&id).filter(|host| host.life == life).and_then(|host| host.process_mut())
        else {
            return;
        };
        let Some((mut reply, pending)) = process.late.remove(&number) else { return };
        let advanced = reply.advance(&process.applier.store().read(), 1);
        match advanced {
            Ok(false) => self.read_later(id, number, (reply, pending)),
            Ok(true) => {
                self.coverage.count("answers read a while after they were applied");
                let output = output(&pending.input, reply.finish());
                self.invariants.acknowledged(id, number, output.revision);
                self.tell(&pending, clients::Reply::Done(output));
            }
            Err(KvError::Compacted) => {
                self.coverage.count("answers whose point another state has taken away");
                self.tell(&pending, clients::Reply::Unknown);
            }
            Err(error) => panic!("what a command has read fails: {error}"),
        }
    }
}
