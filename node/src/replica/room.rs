//! What a member does whose disk is full: it takes in nothing that makes the data grow, long before the log has no room left. Reads,
//! deletions and compactions go on, and so do elections and changes of membership. When there is room again it goes on as before.

use bytes::Bytes;
use prost::Message as _;
use quorate_api::etcdserverpb::request_op::Request;
use quorate_api::etcdserverpb::{RequestOp, TxnRequest};
use quorate_api::log;
use quorate_api::log::command::Operation;
use quorate_raft::{self as raft, Body};

/// How much room a member's disk has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Room {
    /// As much as is needed.
    #[default]
    Enough,
    /// So little that what is left is for making more: deletions, compactions, the snapshot and the log that these need.
    Low,
    /// Next to none: for what keeps the member alive and a member.
    Out,
}

impl Room {
    /// Whether the command in `bytes` may be taken in.
    pub(super) fn admits(self, bytes: &Bytes) -> bool {
        match self {
            Room::Enough => true,
            Room::Low => !grows(bytes),
            Room::Out => false,
        }
    }

    /// Whether a message is taken in. A follower without room takes no entries: it falls behind, as if it were away, and comes back
    /// when there is room, instead of ending over a log that it cannot write.
    pub(super) fn receives(self, message: &raft::Message) -> bool {
        let brings_entries =
            matches!(&message.body, Body::AppendEntries { entries, .. } if !entries.is_empty());
        self != Room::Out || !brings_entries
    }
}

/// Whether a command makes the data larger.
fn grows(bytes: &Bytes) -> bool {
    let command = log::Command::decode(bytes.clone());
    match command.ok().and_then(|command| command.operation) {
        Some(Operation::Put(_)) => true,
        Some(Operation::Txn(txn)) => puts(&txn),
        Some(Operation::DeleteRange(_) | Operation::Compact(_)) | None => false,
    }
}

/// Whether a transaction may put something, in either branch.
fn puts(txn: &TxnRequest) -> bool {
    let puts = |operation: &RequestOp| match &operation.request {
        Some(Request::RequestPut(_)) => true,
        Some(Request::RequestTxn(inner)) => puts(inner),
        Some(Request::RequestRange(_) | Request::RequestDeleteRange(_)) | None => false,
    };
    txn.success.iter().chain(&txn.failure).any(puts)
}

#[cfg(test)]
mod tests {
    use quorate_api::etcdserverpb::{DeleteRangeRequest, PutRequest};

    use super::*;

    fn bytes(operation: Operation) -> Bytes {
        log::Command { origin: 1, request: 1, operation: Some(operation) }.encode_to_vec().into()
    }

    fn operation(request: Request) -> RequestOp {
        RequestOp { request: Some(request) }
    }

    #[test]
    fn what_makes_room_is_admitted_for_as_long_as_possible() {
        let put = bytes(Operation::Put(PutRequest::default()));
        let delete = bytes(Operation::DeleteRange(DeleteRangeRequest::default()));
        assert!(Room::Enough.admits(&put) && !Room::Low.admits(&put));
        assert!(Room::Low.admits(&delete) && !Room::Out.admits(&delete));
    }

    #[test]
    fn a_put_is_found_wherever_it_is() {
        let delete = operation(Request::RequestDeleteRange(DeleteRangeRequest::default()));
        let put = operation(Request::RequestPut(PutRequest::default()));
        let inner = TxnRequest { failure: vec![put], ..TxnRequest::default() };
        let outer = TxnRequest {
            success: vec![delete.clone(), operation(Request::RequestTxn(inner))],
            ..TxnRequest::default()
        };
        assert!(!Room::Low.admits(&bytes(Operation::Txn(outer))));
        let deletes = TxnRequest { success: vec![delete], ..TxnRequest::default() };
        assert!(Room::Low.admits(&bytes(Operation::Txn(deletes))));
    }
}
