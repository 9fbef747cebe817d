//! `etcdserverpb.KV`.

use prost::Message;
use quorate_api::etcdserverpb as pb;
use quorate_api::log::command::Operation;
use tonic::{Request, Status};

use super::arrival::Share;
use super::error::mismatched;
use super::member::Member;
use super::pieces::Answer;
use super::read;
use super::streams::Streams;
use crate::kv::{self, check};

/// The most ranges of one client runtime that are answered in chunks: each takes a chunk, for as long as its client likes.
const MOST_RANGES: usize = 1 << 12;

/// The key-value service of one client runtime.
#[derive(Debug, Clone)]
pub(super) struct KvService {
    member: Member,
    /// Ranges whose answers come in chunks.
    streams: Streams,
}

impl KvService {
    pub(super) fn new(member: Member) -> Self {
        let streams = Streams::new(member.view.clone(), MOST_RANGES);
        Self { member, streams }
    }

    /// The same for one more connection.
    pub(super) fn of_connection(&self, member: Member) -> Self {
        Self { member, streams: self.streams.of_connection() }
    }

    pub(super) fn member(&self) -> &Member {
        &self.member
    }

    pub(super) fn streams(&self) -> &Streams {
        &self.streams
    }

    /// Has a checked operation done, and reads the rest of its answer. What that holds grows `share`.
    async fn propose(
        &self,
        operation: Operation,
        encoded: usize,
        share: &mut Share,
    ) -> Result<kv::Response, Status> {
        check::size(encoded)?;
        let reply = self.member.gateway.propose(operation).await?;
        read::rest(self.member.gateway.store(), reply, share).await
    }

    /// Answers a transaction that only reads from the local state, without an entry in the log.
    async fn read_txn(&self, request: &pb::TxnRequest, share: &mut Share) -> Result<pb::TxnResponse, Status> {
        if check::is_serializable(request) {
            self.member.has_state()?;
        } else {
            self.member.gateway.read_barrier().await?;
        }
        read::txn(self.member.gateway.store(), request, share).await
    }
}

impl KvService {
    pub(super) async fn range(
        &self,
        request: Request<pb::RangeRequest>,
    ) -> Result<Answer<pb::RangeResponse>, Status> {
        self.member.admit(&request, request.get_ref().serializable)?;
        let request = request.into_inner();
        check::range(&request)?;
        if request.serializable {
            self.member.has_state()?;
        } else {
            self.member.gateway.read_barrier().await?;
        }
        let mut share = self.member.answers.share();
        let mut response = read::range(self.member.gateway.store(), request, &mut share).await?;
        self.member.complete(&mut response.header);
        Ok(Answer::new(response, share))
    }

    pub(super) async fn put(
        &self,
        request: Request<pb::PutRequest>,
    ) -> Result<Answer<pb::PutResponse>, Status> {
        self.member.admit(&request, false)?;
        let request = request.into_inner();
        check::put(&request)?;
        let encoded = request.encoded_len();
        let mut share = self.member.answers.share();
        let operation = Operation::Put(request);
        let kv::Response::Put(mut response) = self.propose(operation, encoded, &mut share).await? else {
            return Err(mismatched());
        };
        self.member.complete(&mut response.header);
        Ok(Answer::done(response, share))
    }

    pub(super) async fn delete_range(
        &self,
        request: Request<pb::DeleteRangeRequest>,
    ) -> Result<Answer<pb::DeleteRangeResponse>, Status> {
        self.member.admit(&request, false)?;
        let request = request.into_inner();
        check::delete_range(&request)?;
        let encoded = request.encoded_len();
        let mut share = self.member.answers.share();
        let kv::Response::DeleteRange(mut response) =
            self.propose(Operation::DeleteRange(request), encoded, &mut share).await?
        else {
            return Err(mismatched());
        };
        self.member.complete(&mut response.header);
        Ok(Answer::done(response, share))
    }

    pub(super) async fn txn(
        &self,
        request: Request<pb::TxnRequest>,
    ) -> Result<Answer<pb::TxnResponse>, Status> {
        self.member.admit(&request, false)?;
        let request = request.into_inner();
        check::txn(&request)?;
        let mut share = self.member.answers.share();
        let reads_only = check::reads_only(&request);
        let mut response = if reads_only {
            self.read_txn(&request, &mut share).await?
        } else {
            let encoded = request.encoded_len();
            let kv::Response::Txn(response) =
                self.propose(Operation::Txn(request), encoded, &mut share).await?
            else {
                return Err(mismatched());
            };
            response
        };
        self.member.complete(&mut response.header);
        Ok(if reads_only { Answer::new(response, share) } else { Answer::done(response, share) })
    }

    /// With `physical`, waits until this member has removed what the compaction gives up.
    pub(super) async fn compact(
        &self,
        request: Request<pb::CompactionRequest>,
    ) -> Result<Answer<pb::CompactionResponse>, Status> {
        self.member.admit(&request, false)?;
        let request = request.into_inner();
        let mut share = self.member.answers.share();
        let kv::Response::Compact(mut response) =
            self.propose(Operation::Compact(request), request.encoded_len(), &mut share).await?
        else {
            return Err(mismatched());
        };
        if request.physical {
            self.member.remove_compacted().await;
        }
        self.member.complete(&mut response.header);
        Ok(Answer::done(response, share))
    }
}
