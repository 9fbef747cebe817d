//! Answers on their way out: a small one as a whole, a large one encoded and sent a piece at a time.
//!
//! A large message that is encoded as a whole takes its size once more beside the state, and its thread for as long as that takes. Here the keys and
//! values stay where they are, shared with the state, until their piece goes out: the client's own window sets the pace, and between
//! pieces the other clients of the thread have their turn.
//!
//! Protobuf allows it: a message is the concatenation of its fields, repeated ones in their order and the others in any.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::vec;

use bytes::{BufMut as _, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};
use hyper::body::{Body as HttpBody, Bytes, Frame};
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len, message};
use quorate_api::etcdserverpb::response_op::Response as Op;
use quorate_api::etcdserverpb::{
    CompactionResponse, DeleteRangeResponse, LeaseGrantResponse, LeaseLeasesResponse, LeaseRevokeResponse,
    LeaseTimeToLiveResponse, PutResponse, RangeResponse, ResponseOp, TxnResponse,
};
use quorate_api::mvccpb::KeyValue;
use tonic::Status;
use tonic::body::Body;

use super::arrival::Share;
use super::error;
use crate::kv::check::MAX_REQUEST_BYTES;

/// Bytes before a message: whether it is compressed, and its length.
pub(super) const HEADER_BYTES: usize = 5;

/// From how many bytes on an answer is sent in pieces. What is smaller is handed over as a whole.
const LARGE: usize = 128 << 10;

/// What is smaller is not counted until it is sent: the port's table bounds how many there are.
const SMALL: usize = 1024;

/// What is encoded at a time.
const PIECE: usize = 128 << 10;

/// Keys that are measured at a time.
const MEASURED_AT_ONCE: usize = 4096;

/// The largest message that etcd sends, and that clients can be asked to take.
const MAX_MESSAGE: usize = i32::MAX as usize;

/// An answer that may be large.
pub(super) trait InPieces: Message + 'static {
    /// What it takes in memory or when it is encoded, in bytes, rather more than less; it may stop counting beyond `enough`.
    fn weight(&self, enough: usize) -> usize;
    /// Adds its parts to `plan`.
    fn plan(self, plan: &mut Plan) -> impl Future<Output = ()> + Send;
}

/// An answer, and what it holds of the memory until it has been sent.
#[derive(Debug)]
pub(super) struct Answer<M> {
    message: M,
    share: Share,
    /// It answers what was done: then a refusal must not say that it was not.
    done: bool,
}

impl<M: InPieces> Answer<M> {
    /// The answer to a question.
    pub(super) fn new(message: M, share: Share) -> Self {
        Answer { message, share, done: false }
    }

    /// The answer to a command that was applied.
    pub(super) fn done(message: M, share: Share) -> Self {
        Answer { message, share, done: true }
    }

    /// The answer as it is sent: a large one in pieces.
    pub(super) async fn into_body(self) -> Result<Body, Status> {
        let done = self.done;
        let body = self.encoded().await;
        if done { body.map_err(|refusal| error::answer_refused(&refusal)) } else { body }
    }

    async fn encoded(self) -> Result<Body, Status> {
        let Answer { message, mut share, .. } = self;
        let weight = message.weight(LARGE);
        if weight < LARGE {
            let mut held = None;
            if weight >= SMALL {
                share.reach(weight)?;
                held = Some(share);
            }
            let encoded = counted(encode(&message), held);
            return Ok(Body::new(Whole { message: Some(encoded), ended: false }));
        }
        let mut plan = Plan::default();
        message.plan(&mut plan).await;
        if plan.bytes > MAX_MESSAGE {
            return Err(error::answer_too_large(plan.bytes, MAX_MESSAGE));
        }
        // One piece waits to be sent while the next is encoded, and each may end with a whole value.
        share.reach(share.bytes() + plan.bytes.min(2 * (PIECE + MAX_REQUEST_BYTES)))?;
        Ok(Body::new(Pieces { plan, share: Some(share), begun: false, rest: false, ended: false }))
    }

    #[cfg(test)]
    pub(super) fn into_inner(self) -> M {
        self.message
    }
}

/// Bytes on their way out that hold a share until they have been sent: the connection keeps them longer than the body that they came of.
struct Counted {
    bytes: Bytes,
    _share: Share,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

pub(super) fn counted(bytes: Bytes, share: Option<Share>) -> Bytes {
    match share {
        Some(share) => Bytes::from_owner(Counted { bytes, _share: share }),
        None => bytes,
    }
}

/// `message` with its header, in a buffer of their size.
pub(super) fn encode(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut bytes = BytesMut::with_capacity(HEADER_BYTES + length);
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    // It has room for all of it.
    let _ = message.encode(&mut bytes);
    bytes.freeze()
}

/// What follows the message of a call that has succeeded.
pub(super) fn success() -> Frame<Bytes> {
    let mut trailers = HeaderMap::with_capacity(1);
    trailers.insert(HeaderName::from_static("grpc-status"), HeaderValue::from_static("0"));
    Frame::trailers(trailers)
}

/// What ends a call that has failed, whatever was told before.
pub(super) fn failure(status: &Status) -> Frame<Bytes> {
    let mut trailers = HeaderMap::new();
    match status.add_header(&mut trailers) {
        Ok(()) => Frame::trailers(trailers),
        Err(_) => success(),
    }
}

/// An encoded message on its way out, and the status behind it.
struct Whole {
    message: Option<Bytes>,
    ended: bool,
}

impl HttpBody for Whole {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        if let Some(message) = this.message.take() {
            return Poll::Ready(Some(Ok(Frame::data(message))));
        }
        let ended = std::mem::replace(&mut this.ended, true);
        Poll::Ready((!ended).then(|| Ok(success())))
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }
}

/// What is to be encoded, in order.
#[derive(Debug, Default)]
pub(super) struct Plan {
    parts: VecDeque<Part>,
    bytes: usize,
}

#[derive(Debug)]
enum Part {
    Encoded(Vec<u8>),
    KeyValues { field: u32, rest: vec::IntoIter<KeyValue> },
}

impl Plan {
    fn encoded(&mut self, encode: impl FnOnce(&mut Vec<u8>)) {
        if !matches!(self.parts.back(), Some(Part::Encoded(_))) {
            self.parts.push_back(Part::Encoded(Vec::new()));
        }
        if let Some(Part::Encoded(bytes)) = self.parts.back_mut() {
            let before = bytes.len();
            encode(bytes);
            self.bytes += bytes.len() - before;
        }
    }

    async fn key_values(&mut self, field: u32, values: Vec<KeyValue>) {
        for some in values.chunks(MEASURED_AT_ONCE) {
            self.bytes += some.iter().map(|value| message::encoded_len(field, value)).sum::<usize>();
            tokio::task::yield_now().await;
        }
        self.parts.push_back(Part::KeyValues { field, rest: values.into_iter() });
    }

    /// Adds a field that holds what `inner` holds.
    fn nested(&mut self, field: u32, inner: Plan) {
        self.encoded(|bytes| {
            encode_key(field, WireType::LengthDelimited, bytes);
            encode_varint(inner.bytes as u64, bytes);
        });
        self.bytes += inner.bytes;
        self.parts.extend(inner.parts);
    }
}

fn weight(values: &[KeyValue], enough: usize) -> usize {
    let mut sum = 0;
    for value in values {
        sum += size_of::<KeyValue>() + value.key.len() + value.value.len();
        if sum >= enough {
            break;
        }
    }
    sum
}

impl InPieces for PutResponse {
    fn weight(&self, enough: usize) -> usize {
        weight(self.prev_kv.as_slice(), enough)
    }

    async fn plan(mut self, plan: &mut Plan) {
        let previous = self.prev_kv.take();
        plan.encoded(|bytes| self.encode_raw(bytes));
        plan.key_values(2, previous.into_iter().collect()).await;
    }
}

/// Answers that are never large.
macro_rules! small {
    ($($answer:ty),+) => {$(
        impl InPieces for $answer {
            fn weight(&self, _: usize) -> usize {
                0
            }

            async fn plan(self, plan: &mut Plan) {
                plan.encoded(|bytes| self.encode_raw(bytes));
            }
        }
    )+};
}

small!(CompactionResponse, LeaseGrantResponse, LeaseRevokeResponse);

impl InPieces for LeaseTimeToLiveResponse {
    fn weight(&self, _: usize) -> usize {
        self.keys.iter().map(|key| size_of::<Bytes>() + key.len()).sum()
    }

    async fn plan(mut self, plan: &mut Plan) {
        let keys = std::mem::take(&mut self.keys);
        plan.encoded(|bytes| self.encode_raw(bytes));
        for some in keys.chunks(MEASURED_AT_ONCE) {
            let part = LeaseTimeToLiveResponse { keys: some.to_vec(), ..LeaseTimeToLiveResponse::default() };
            plan.encoded(|bytes| part.encode_raw(bytes));
            tokio::task::yield_now().await;
        }
    }
}

impl InPieces for LeaseLeasesResponse {
    fn weight(&self, _: usize) -> usize {
        // The ID and two bytes before it, at most ten bytes.
        self.leases.len() * 13
    }

    async fn plan(mut self, plan: &mut Plan) {
        let leases = std::mem::take(&mut self.leases);
        plan.encoded(|bytes| self.encode_raw(bytes));
        for some in leases.chunks(MEASURED_AT_ONCE) {
            let part = LeaseLeasesResponse { leases: some.to_vec(), ..LeaseLeasesResponse::default() };
            plan.encoded(|bytes| part.encode_raw(bytes));
            tokio::task::yield_now().await;
        }
    }
}

impl InPieces for RangeResponse {
    fn weight(&self, enough: usize) -> usize {
        weight(&self.kvs, enough)
    }

    async fn plan(mut self, plan: &mut Plan) {
        let values = std::mem::take(&mut self.kvs);
        plan.encoded(|bytes| self.encode_raw(bytes));
        plan.key_values(2, values).await;
    }
}

impl InPieces for DeleteRangeResponse {
    fn weight(&self, enough: usize) -> usize {
        weight(&self.prev_kvs, enough)
    }

    async fn plan(mut self, plan: &mut Plan) {
        let values = std::mem::take(&mut self.prev_kvs);
        plan.encoded(|bytes| self.encode_raw(bytes));
        plan.key_values(3, values).await;
    }
}

impl InPieces for TxnResponse {
    fn weight(&self, enough: usize) -> usize {
        let mut sum = 0;
        for op in &self.responses {
            sum += match &op.response {
                Some(Op::ResponseRange(range)) => range.weight(enough),
                Some(Op::ResponseDeleteRange(deletion)) => deletion.weight(enough),
                Some(Op::ResponseTxn(txn)) => txn.weight(enough),
                Some(Op::ResponsePut(put)) => put.weight(enough),
                None => 0,
            };
            if sum >= enough {
                break;
            }
        }
        sum
    }

    async fn plan(mut self, plan: &mut Plan) {
        let responses = std::mem::take(&mut self.responses);
        plan.encoded(|bytes| self.encode_raw(bytes));
        for op in responses {
            let mut inner = Plan::default();
            let field = match op.response {
                Some(Op::ResponsePut(put)) => {
                    put.plan(&mut inner).await;
                    2
                }
                Some(Op::ResponseRange(range)) => {
                    range.plan(&mut inner).await;
                    1
                }
                Some(Op::ResponseDeleteRange(deletion)) => {
                    deletion.plan(&mut inner).await;
                    3
                }
                Some(Op::ResponseTxn(txn)) => {
                    nested(txn, &mut inner).await;
                    4
                }
                None => {
                    plan.encoded(|bytes| message::encode(3, &ResponseOp::default(), bytes));
                    continue;
                }
            };
            let length = key_len(field) + encoded_len_varint(inner.bytes as u64) + inner.bytes;
            plan.encoded(|bytes| {
                encode_key(3, WireType::LengthDelimited, bytes);
                encode_varint(length as u64, bytes);
            });
            plan.nested(field, inner);
        }
    }
}

/// A transaction in a transaction: how deep they go is not known here.
fn nested(txn: TxnResponse, plan: &mut Plan) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
    Box::pin(txn.plan(plan))
}

/// A message on its way out.
struct Pieces {
    plan: Plan,
    /// Until the last piece has taken it.
    share: Option<Share>,
    begun: bool,
    /// Others of the thread have their turn before the next piece.
    rest: bool,
    /// The status has been sent, too.
    ended: bool,
}

impl Pieces {
    /// The next bytes. None at the end.
    fn next(&mut self) -> Option<Bytes> {
        let mut piece = Vec::with_capacity(PIECE.min(self.plan.bytes + HEADER_BYTES));
        if !std::mem::replace(&mut self.begun, true) {
            piece.push(0);
            piece.extend(u32::try_from(self.plan.bytes).unwrap_or(u32::MAX).to_be_bytes());
        }
        while piece.len() < PIECE
            && let Some(part) = self.plan.parts.front_mut()
        {
            match part {
                Part::Encoded(bytes) => piece.append(bytes),
                Part::KeyValues { field, rest } => {
                    if let Some(value) = rest.next() {
                        message::encode(*field, &value, &mut piece);
                    }
                    // With the last value the part has ended: whether more follows must be known when the piece goes out.
                    if rest.len() > 0 {
                        continue;
                    }
                }
            }
            self.plan.parts.pop_front();
        }
        let share = if self.plan.parts.is_empty() { self.share.take() } else { None };
        (!piece.is_empty()).then(|| counted(piece.into(), share))
    }
}

impl HttpBody for Pieces {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        if std::mem::take(&mut this.rest) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if let Some(piece) = this.next() {
            this.rest = true;
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        let ended = std::mem::replace(&mut this.ended, true);
        Poll::Ready((!ended).then(|| Ok(success())))
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;
    use quorate_api::etcdserverpb::ResponseHeader;

    use super::*;
    use crate::rpc::arrival::Budget;

    fn values(count: usize, bytes: usize) -> Vec<KeyValue> {
        let value = |n: usize| KeyValue {
            key: format!("key/{n:06}").into(),
            value: vec![n as u8; bytes].into(),
            version: i64::try_from(n).unwrap(),
            ..KeyValue::default()
        };
        (0..count).map(value).collect()
    }

    /// Room for one large answer that is being sent.
    const ONE: usize = 2 * (PIECE + MAX_REQUEST_BYTES);

    /// One that takes all of it.
    fn large() -> RangeResponse {
        range(8, 1 << 20)
    }

    fn range(count: usize, bytes: usize) -> RangeResponse {
        let header = Some(ResponseHeader { revision: 7, ..ResponseHeader::default() });
        RangeResponse { header, kvs: values(count, bytes), more: true, count: 99 }
    }

    async fn body<M: InPieces>(answer: M, budget: &Budget) -> Result<Body, Status> {
        Answer::new(answer, budget.share()).into_body().await
    }

    /// What a client reads of it, and in how many pieces.
    async fn sent<M: InPieces + Clone + Default>(answer: &M) -> (M, usize) {
        let mut body = body(answer.clone(), &Budget::new(usize::MAX)).await.unwrap();
        let (mut bytes, mut pieces, mut status) = (Vec::new(), 0, None);
        while let Some(frame) = body.frame().await {
            match frame.unwrap().into_data() {
                Ok(data) => {
                    bytes.extend(data);
                    pieces += 1;
                }
                Err(frame) => status = frame.into_trailers().unwrap().get("grpc-status").cloned(),
            }
        }
        assert_eq!(status.unwrap(), "0");
        let (header, message) = bytes.split_at(5);
        assert_eq!(header, [&[0][..], &(message.len() as u32).to_be_bytes()].concat());
        (M::decode(message).unwrap(), pieces)
    }

    #[tokio::test]
    async fn a_large_range_arrives_whole_and_in_order() {
        let answer = range(30_000, 100);
        let (read, pieces) = sent(&answer).await;
        assert_eq!(read, answer);
        assert!(pieces > 10, "{pieces}");
    }

    #[tokio::test]
    async fn a_large_deletion_and_a_large_transaction_arrive_whole() {
        let deletion = DeleteRangeResponse { header: None, deleted: 3, prev_kvs: values(3, 1 << 20) };
        assert_eq!(sent(&deletion).await.0, deletion);
        let op = |response| ResponseOp { response: Some(response) };
        let inner = TxnResponse {
            header: None,
            succeeded: false,
            responses: vec![
                op(Op::ResponseDeleteRange(deletion)),
                op(Op::ResponsePut(PutResponse::default())),
            ],
        };
        let txn = TxnResponse {
            header: Some(ResponseHeader { revision: 8, ..ResponseHeader::default() }),
            succeeded: true,
            responses: vec![
                op(Op::ResponseRange(range(2, 10))),
                op(Op::ResponseTxn(inner)),
                op(Op::ResponseRange(range(0, 0))),
                ResponseOp { response: None },
                op(Op::ResponseRange(range(9, 1 << 18))),
            ],
        };
        assert_eq!(sent(&txn).await.0, txn);
    }

    #[tokio::test]
    async fn a_small_answer_is_one_piece_and_large_ones_have_a_bound() {
        assert_eq!(sent(&range(10, 100)).await, (range(10, 100), 1));
        let prev_kv = values(1, 1 << 20).pop();
        let put = PutResponse { prev_kv, ..PutResponse::default() };
        assert_eq!(sent(&put).await.0, put);
        let budget = Budget::new(ONE);
        let first = body(large(), &budget).await.unwrap();
        for _ in 0..2 {
            let refused = body(large(), &budget).await.map(drop).unwrap_err();
            assert_eq!(refused.message(), "etcdserver: too many requests");
        }
        drop(first);
        body(large(), &budget).await.unwrap();
    }

    /// Previous values of puts weigh what any value does.
    #[tokio::test]
    async fn an_answer_to_what_was_done_is_refused_as_one_that_may_have_been() {
        let budget = Budget::new(2 << 20);
        let mut other = budget.share();
        assert!(other.grow(2 << 20));
        let put = PutResponse { prev_kv: values(1, 2048).pop(), ..PutResponse::default() };
        let op = ResponseOp { response: Some(Op::ResponsePut(put.clone())) };
        let txn = TxnResponse { responses: vec![op; 3], ..TxnResponse::default() };
        let refused = [
            Answer::done(put, budget.share()).into_body().await.map(drop),
            Answer::done(txn, budget.share()).into_body().await.map(drop),
            Answer::done(range(3, 1 << 20), budget.share()).into_body().await.map(drop),
        ];
        for refused in refused {
            assert_eq!(refused.unwrap_err().message(), "etcdserver: request timed out");
        }
    }

    #[tokio::test]
    async fn an_answer_counts_until_its_last_byte_is_gone() {
        for answer in [range(30, 1 << 10), range(30, 1 << 14), range(1, 1 << 20)] {
            let budget = Budget::new(ONE);
            let mut sending = body(answer, &budget).await.unwrap();
            let mut last = Bytes::new();
            while let Some(frame) = sending.frame().await {
                if let Ok(data) = frame.unwrap().into_data() {
                    last = data;
                }
            }
            drop(sending);
            let next = body(large(), &budget).await;
            assert!(next.is_err(), "it is kept: {} bytes", last.len());
            drop(last);
            body(large(), &budget).await.unwrap();
        }
    }
}
