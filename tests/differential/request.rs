//! Requests and answers of the key-value service, and how revisions in them are shifted.

use quorate_api::etcdserverpb as pb;
use quorate_api::etcdserverpb::compare::TargetUnion;
use quorate_api::etcdserverpb::request_op::Request as Op;
use quorate_api::etcdserverpb::response_op::Response as OpAnswer;
use tonic::Code;

/// What is asked. Revisions in it count from the start of the sequence, where the state is empty at revision 1.
#[derive(Debug, Clone)]
pub(crate) enum Request {
    Range(pb::RangeRequest),
    Put(pb::PutRequest),
    DeleteRange(pb::DeleteRangeRequest),
    Txn(pb::TxnRequest),
    Compact(pb::CompactionRequest),
}

/// What is answered.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Answer {
    Range(pb::RangeResponse),
    Put(pb::PutResponse),
    DeleteRange(pb::DeleteRangeResponse),
    Txn(pb::TxnResponse),
    Compact(pb::CompactionResponse),
    Error(Code, String),
}

impl Request {
    /// The same request, for a state that started at another revision. Zero means the current revision and negative numbers
    /// mean nothing: neither is shifted.
    pub(crate) fn shifted(&self, by: i64) -> Self {
        let mut request = self.clone();
        match &mut request {
            Self::Range(range) => shift_range(range, by),
            Self::Txn(txn) => shift_txn(txn, by),
            Self::Compact(compact) => shift(&mut compact.revision, by),
            Self::Put(_) | Self::DeleteRange(_) => {}
        }
        request
    }
}

impl Answer {
    /// The same answer with its revisions shifted, and without what differs from cluster to cluster.
    pub(crate) fn shifted(mut self, by: i64) -> Self {
        match &mut self {
            Self::Range(range) => shift_range_answer(range, by),
            Self::Put(put) => shift_put_answer(put, by),
            Self::DeleteRange(delete) => shift_delete_answer(delete, by),
            Self::Txn(txn) => shift_txn_answer(txn, by),
            Self::Compact(compact) => shift_header(&mut compact.header, by),
            Self::Error(..) => {}
        }
        self
    }

    /// What sort of answer it is; the text, if an error.
    pub(crate) fn kind(&self) -> &str {
        match self {
            Self::Range(_) => "range",
            Self::Put(_) => "put",
            Self::DeleteRange(_) => "deletion",
            Self::Txn(txn) if txn.succeeded => "transaction, success",
            Self::Txn(_) => "transaction, failure",
            Self::Compact(_) => "compaction",
            Self::Error(_, text) => text,
        }
    }

    /// The revision in the answer's header.
    pub(crate) fn revision(&self) -> Option<i64> {
        let header = match self {
            Self::Range(range) => range.header,
            Self::Put(put) => put.header,
            Self::DeleteRange(delete) => delete.header,
            Self::Txn(txn) => txn.header,
            Self::Compact(compact) => compact.header,
            Self::Error(..) => None,
        };
        header.map(|header| header.revision)
    }
}

fn shift(revision: &mut i64, by: i64) {
    if *revision > 0 {
        *revision += by;
    }
}

fn shift_range(range: &mut pb::RangeRequest, by: i64) {
    shift(&mut range.revision, by);
    shift(&mut range.min_mod_revision, by);
    shift(&mut range.max_mod_revision, by);
    shift(&mut range.min_create_revision, by);
    shift(&mut range.max_create_revision, by);
}

fn shift_txn(txn: &mut pb::TxnRequest, by: i64) {
    for compare in &mut txn.compare {
        if let Some(TargetUnion::CreateRevision(revision) | TargetUnion::ModRevision(revision)) =
            &mut compare.target_union
        {
            shift(revision, by);
        }
    }
    for operation in txn.success.iter_mut().chain(&mut txn.failure) {
        match &mut operation.request {
            Some(Op::RequestRange(range)) => shift_range(range, by),
            Some(Op::RequestTxn(txn)) => shift_txn(txn, by),
            _ => {}
        }
    }
}

fn shift_header(header: &mut Option<pb::ResponseHeader>, by: i64) {
    if let Some(header) = header {
        shift(&mut header.revision, by);
        (header.cluster_id, header.member_id, header.raft_term) = (0, 0, 0);
    }
}

fn shift_kvs<'a>(kvs: impl IntoIterator<Item = &'a mut quorate_api::mvccpb::KeyValue>, by: i64) {
    for kv in kvs {
        shift(&mut kv.create_revision, by);
        shift(&mut kv.mod_revision, by);
    }
}

fn shift_range_answer(range: &mut pb::RangeResponse, by: i64) {
    shift_header(&mut range.header, by);
    shift_kvs(&mut range.kvs, by);
}

fn shift_put_answer(put: &mut pb::PutResponse, by: i64) {
    shift_header(&mut put.header, by);
    shift_kvs(&mut put.prev_kv, by);
}

fn shift_delete_answer(delete: &mut pb::DeleteRangeResponse, by: i64) {
    shift_header(&mut delete.header, by);
    shift_kvs(&mut delete.prev_kvs, by);
}

fn shift_txn_answer(txn: &mut pb::TxnResponse, by: i64) {
    shift_header(&mut txn.header, by);
    for operation in &mut txn.responses {
        match &mut operation.response {
            Some(OpAnswer::ResponseRange(range)) => shift_range_answer(range, by),
            Some(OpAnswer::ResponsePut(put)) => shift_put_answer(put, by),
            Some(OpAnswer::ResponseDeleteRange(delete)) => shift_delete_answer(delete, by),
            Some(OpAnswer::ResponseTxn(txn)) => shift_txn_answer(txn, by),
            None => {}
        }
    }
}
