//! `etcdserverpb.KV/RangeStream`: a Range whose answer comes in chunks, each of which is read when its client has room for it.
//!
//! A call is one body, which reads on at the revision that it has pinned: it holds a chunk and no more, however large the range is and however slowly it is read. As
//! in etcd the last chunk alone has a header, and says how many keys there are.

use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::body::{Body as HttpBody, Bytes, Frame};
use quorate_api::etcdserverpb as pb;
use quorate_api::etcdserverpb::range_request::{SortOrder, SortTarget};
use quorate_api::mvccpb::KeyValue;
use tonic::body::Body;
use tonic::{Code, Request, Status};

use super::arrival::Share;
use super::error::too_many_requests;
use super::kv::KvService;
use super::member::Member;
use super::pieces::{counted, encode, failure, success};
use super::streams::Ends;
use crate::kv::RangeScan;
use crate::kv::check;

/// Steps that are taken under one hold of the state's lock.
const PIECE: usize = 512;

/// A chunk takes in keys and values until it has so many bytes.
const CHUNK: usize = 128 << 10;

/// So many pieces are read before others of the thread have their turn.
const TURN: usize = 16;

impl KvService {
    /// The body of the answer, once it is known from which point of the history it is read.
    pub(super) async fn range_stream(&self, request: Request<pb::RangeRequest>) -> Result<Body, Status> {
        let member = self.member();
        member.admit(&request, request.get_ref().serializable)?;
        let requires_leader = Member::requires_leader(&request);
        let request = request.into_inner();
        check::range(&request)?;
        check_order(&request)?;
        let place = self.streams().place()?;
        if request.serializable {
            member.has_state()?;
        } else {
            member.gateway.read_barrier().await?;
        }
        let scan = member.gateway.store().read().scan(request)?.in_chunks();
        Ok(Body::new(Chunks {
            member: member.clone(),
            scan,
            chunk: Vec::new(),
            bytes: 0,
            ends: self.streams().ends(requires_leader),
            read: false,
            ended: false,
            _place: place,
        }))
    }
}

/// Keys come in their order, and all of them: etcd refuses anything else.
fn check_order(request: &pb::RangeRequest) -> Result<(), Status> {
    let by_key = request.sort_target() == SortTarget::Key && request.sort_order() == SortOrder::Ascend;
    if request.sort_order() != SortOrder::None && !by_key {
        return Err(Status::new(Code::Unimplemented, "RangeStream does not support custom sort orders"));
    }
    let filters = [
        request.min_mod_revision,
        request.max_mod_revision,
        request.min_create_revision,
        request.max_create_revision,
    ];
    if filters.iter().any(|revision| *revision != 0) {
        return Err(Status::new(Code::Unimplemented, "RangeStream does not support revision filters"));
    }
    Ok(())
}

/// An answer in the making.
struct Chunks {
    member: Member,
    scan: RangeScan,
    /// What has been read and is not told yet, and its bytes.
    chunk: Vec<KeyValue>,
    bytes: usize,
    ends: Ends,
    /// The range has been read to its end.
    read: bool,
    ended: bool,
    _place: Share,
}

impl HttpBody for Chunks {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        if this.ended {
            return Poll::Ready(None);
        }
        if this.read {
            return Poll::Ready(Some(Ok(this.end(Ok(())))));
        }
        if let Poll::Ready(status) = this.ends.as_mut().poll(cx) {
            return Poll::Ready(Some(Ok(this.end(Err(status)))));
        }
        for _ in 0..TURN {
            match this.read_some() {
                Ok(false) => {}
                Ok(true) => {
                    let told = this.tell();
                    return Poll::Ready(Some(Ok(told.unwrap_or_else(|status| this.end(Err(status))))));
                }
                Err(status) => return Poll::Ready(Some(Ok(this.end(Err(status))))),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }
}

impl Chunks {
    /// Reads a piece. Whether there is a chunk to tell.
    fn read_some(&mut self) -> Result<bool, Status> {
        self.read = self.scan.advance(&self.member.gateway.store().read(), PIECE)?;
        let more = self.scan.take();
        self.bytes +=
            more.iter().map(|kv| kv.key.len() + kv.value.len() + size_of::<KeyValue>()).sum::<usize>();
        self.chunk.extend(more);
        Ok(self.read || self.bytes >= CHUNK)
    }

    /// The chunk, encoded; its bytes count until they have been sent.
    fn tell(&mut self) -> Result<Frame<Bytes>, Status> {
        self.bytes = 0;
        let kvs = std::mem::take(&mut self.chunk);
        let response = if self.read {
            let (revision, count, more) = self.scan.told();
            pb::RangeResponse { header: Some(self.member.header(revision)), kvs, more, count }
        } else {
            pb::RangeResponse { kvs, ..pb::RangeResponse::default() }
        };
        let bytes = encode(&pb::RangeStreamResponse { range_response: Some(response) });
        let mut share = self.member.answers.share();
        if !share.grow(bytes.len()) {
            return Err(too_many_requests());
        }
        Ok(Frame::data(counted(bytes, Some(share))))
    }

    fn end(&mut self, outcome: Result<(), Status>) -> Frame<Bytes> {
        self.ended = true;
        outcome.map_or_else(|status| failure(&status), |()| success())
    }
}
