//! `etcdserverpb.Watch`: requests in, changes out.
//!
//! A call is one body, which reads the client's requests and tells what has changed in the same turn: no task, no queue and no buffer of its own. What a
//! client does not read stays where it is, in the history.

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{BufMut as _, BytesMut};
use hyper::body::{Body as HttpBody, Bytes, Frame};
use prost::Message as _;
use quorate_api::etcdserverpb as pb;
use quorate_api::etcdserverpb::watch_create_request::FilterType;
use quorate_api::etcdserverpb::watch_request::RequestUnion;
use tonic::body::Body;
use tonic::codegen::StdError;
use tonic::metadata::MetadataMap;
use tonic::{Request, Status};

use super::arrival::{Budget, Share};
use super::error;
use super::member::Member;
use super::messages::Messages;
use super::pieces::{HEADER_BYTES, counted, encode, failure};
use super::services::MAX_MESSAGE_BYTES;
use super::unary::{compression, respond};
use crate::doors::watches::{End, Events, Filter, NotCreated, Told, Wanted, WatchStream, Watches};

/// The ID of no watch: an answer is about all of a stream, or about one that there is not.
const NO_WATCH: i64 = -1;

/// What a watch takes beside its keys, in bytes.
const WATCH_BYTES: usize = 512;

/// Answers that are smaller are copied into one buffer.
const COPIED: usize = 4 << 10;

/// So many requests are taken at a time.
const REQUESTS: usize = 64;

/// After so many bytes others of the thread have their turn.
const TURN: usize = 64 << 10;

/// The watch service of one connection.
#[derive(Debug, Clone)]
pub(super) struct WatchService {
    pub(super) member: Member,
    pub(super) watches: Watches,
    /// Bytes of watches.
    pub(super) held: Budget,
    /// Bytes of requests that are on their way in.
    pub(super) arriving: Budget,
}

impl WatchService {
    /// Answers a call. What follows is told by the body.
    pub(super) fn call<B>(&self, request: http::Request<B>) -> http::Response<Body>
    where
        B: HttpBody<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<StdError>,
    {
        let (parts, body) = request.into_parts();
        if let Some(encoding) = compression(&parts.headers) {
            return error::compressed(encoding).into_http();
        }
        let asked = Request::from_parts(MetadataMap::from_headers(parts.headers), parts.extensions, ());
        if let Err(refused) = self.member.admit(&asked, false).and_then(|()| self.member.has_state()) {
            return refused.into_http();
        }
        let requires_leader = Member::requires_leader(&asked);
        let call = Call {
            service: self.clone(),
            stream: self.watches.open(requires_leader),
            requests: Some(Messages::new(body, self.arriving.clone())),
            held: HashMap::new(),
            out: VecDeque::new(),
            sent: 0,
            refused: None,
            ended: false,
        };
        respond(Ok(Body::new(call)))
    }
}

/// A call.
struct Call<B> {
    service: WatchService,
    stream: WatchStream,
    /// None when the client sends no more.
    requests: Option<Messages<B, pb::WatchRequest>>,
    /// What each watch takes.
    held: HashMap<i64, Share>,
    /// What is to be sent next.
    out: VecDeque<Bytes>,
    /// Since others had their turn, in bytes.
    sent: usize,
    /// There is no memory for what is to be told: it ends.
    refused: Option<Status>,
    ended: bool,
}

impl<B> HttpBody for Call<B>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<StdError>,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        loop {
            if this.sent >= TURN {
                this.sent = 0;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            if let Some(bytes) = this.out.pop_front() {
                this.sent += bytes.len();
                return Poll::Ready(Some(Ok(Frame::data(bytes))));
            }
            if this.ended {
                return Poll::Ready(None);
            }
            if let Some(status) = this.refused.take() {
                return Poll::Ready(Some(Ok(this.end(&status))));
            }
            if let Err(status) = this.read_requests(cx) {
                return Poll::Ready(Some(Ok(this.end(&status))));
            }
            match this.stream.poll_next(cx) {
                Poll::Ready(Told::End(error)) => return Poll::Ready(Some(Ok(this.end(&error.into())))),
                Poll::Ready(told) => this.tell(told),
                Poll::Pending => {
                    this.sent = 0;
                    return Poll::Pending;
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ended && self.out.is_empty()
    }
}

impl<B> Call<B>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<StdError>,
{
    /// Takes the requests that have come.
    fn read_requests(&mut self, cx: &mut Context<'_>) -> Result<(), Status> {
        let mut taken = 0;
        while self.stream.takes_requests()
            && let Some(requests) = &mut self.requests
            && let Poll::Ready(request) = requests.poll_next(cx)
        {
            match request {
                None => self.requests = None,
                Some(request) => self.asked(request?),
            }
            taken += 1;
            if taken == REQUESTS {
                cx.waker().wake_by_ref();
                break;
            }
        }
        Ok(())
    }

    fn asked(&mut self, request: pb::WatchRequest) {
        match request.request_union {
            Some(RequestUnion::CreateRequest(request)) => self.create(&request),
            Some(RequestUnion::CancelRequest(request)) => {
                self.held.remove(&request.watch_id);
                self.stream.cancel(request.watch_id);
            }
            Some(RequestUnion::ProgressRequest(_)) => self.stream.ask_progress(),
            None => {}
        }
    }

    fn create(&mut self, request: &pb::WatchCreateRequest) {
        let wanted = wanted(request);
        let mut share = self.service.held.share();
        if !share.grow(WATCH_BYTES + wanted.filter.bytes()) {
            return self.stream.refuse(NotCreated::TooMany);
        }
        if let Some(id) = self.stream.create(&wanted) {
            self.held.insert(id, share);
        }
    }

    /// Has something told.
    fn tell(&mut self, told: Told) {
        let answer = match told {
            Told::Events { id, revision, events, fragment } => {
                return self.tell_events(id, revision, &events, fragment);
            }
            Told::Created(Ok(watch_id), revision) => {
                pb::WatchResponse { watch_id, created: true, ..self.answer(revision) }
            }
            Told::Created(Err(reason), revision) => pb::WatchResponse {
                watch_id: NO_WATCH,
                created: true,
                canceled: true,
                cancel_reason: reason.to_string(),
                ..self.answer(revision)
            },
            Told::Cancelled(watch_id, revision) => {
                pb::WatchResponse { watch_id, canceled: true, ..self.answer(revision) }
            }
            Told::Compacted(watch_id, compact_revision) => {
                pb::WatchResponse { watch_id, canceled: true, compact_revision, ..self.answer(0) }
            }
            Told::TooLarge(watch_id, revision) => {
                let cancel_reason =
                    "etcdserver: one revision changes more than this member has memory to tell".into();
                pb::WatchResponse { watch_id, canceled: true, cancel_reason, ..self.answer(revision) }
            }
            Told::Progress(watch, revision) => {
                pb::WatchResponse { watch_id: watch.unwrap_or(NO_WATCH), ..self.answer(revision) }
            }
            Told::End(_) => unreachable!("it has ended the call"),
        };
        self.out.push_back(encode(&answer));
    }

    fn answer(&self, revision: i64) -> pb::WatchResponse {
        pb::WatchResponse {
            header: Some(self.service.member.header(revision)),
            ..pb::WatchResponse::default()
        }
    }

    /// Has changes told: in one answer, unless they may be divided and are too large for that.
    fn tell_events(&mut self, watch_id: i64, revision: i64, events: &[Events], divide: bool) {
        let bytes = events.iter().map(|events| events.fields.len()).sum();
        let mut share = self.service.member.answers.share();
        if bytes > COPIED && !share.grow(bytes) {
            return self.refused = Some(error::too_many_requests());
        }
        let answer = pb::WatchResponse { watch_id, ..self.answer(revision) };
        if divide {
            self.send_divided(answer, events);
        } else {
            let parts: Vec<Bytes> = events.iter().map(|events| events.fields.clone()).collect();
            self.send(&answer, &parts);
        }
        // What waits for a client that does not read it is given back when the last of it has gone.
        if bytes > COPIED
            && let Some(last) = self.out.pop_back()
        {
            self.out.push_back(counted(last, Some(share)));
        }
    }

    fn send_divided(&mut self, answer: pb::WatchResponse, events: &[Events]) {
        let mut pieces = divided(events, MAX_MESSAGE_BYTES, answer.encoded_len() + 2);
        let last = pieces.pop();
        let fragment = pb::WatchResponse { fragment: true, ..answer };
        for parts in &pieces {
            self.send(&fragment, parts);
        }
        self.send(&pb::WatchResponse { fragment: false, ..fragment }, &last.unwrap_or_default());
    }

    /// Sends an answer whose events are these fields: with few bytes of its own before what is shared.
    fn send(&mut self, answer: &pb::WatchResponse, parts: &[Bytes]) {
        let length = answer.encoded_len() + parts.iter().map(Bytes::len).sum::<usize>();
        let is_small = length <= COPIED;
        let copied = if is_small { length } else { answer.encoded_len() };
        let mut bytes = BytesMut::with_capacity(HEADER_BYTES + copied);
        bytes.put_u8(0);
        bytes.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
        // It has room for all of it.
        let _ = answer.encode(&mut bytes);
        if is_small {
            for part in parts {
                bytes.put_slice(part);
            }
        }
        self.out.push_back(bytes.freeze());
        if !is_small {
            self.out.extend(parts.iter().cloned());
        }
    }

    /// Ends the call with `status`.
    fn end(&mut self, status: &Status) -> Frame<Bytes> {
        self.ended = true;
        failure(status)
    }
}

/// What a client means. No key means the first one there can be.
fn wanted(request: &pb::WatchCreateRequest) -> Wanted {
    let has = |kind: FilterType| request.filters.contains(&kind.into());
    let (puts, deletions) = (!has(FilterType::Noput), !has(FilterType::Nodelete));
    let end = match &request.range_end[..] {
        [] => End::One,
        [0] => End::Never,
        _ => End::Before(owned(&request.range_end)),
    };
    let start = if request.key.is_empty() { Bytes::from_static(&[0]) } else { owned(&request.key) };
    Wanted {
        filter: Filter { start, end, puts, deletions, previous: request.prev_kv },
        start: request.start_revision,
        id: request.watch_id,
        progress: request.progress_notify,
        fragment: request.fragment,
    }
}

/// In a buffer of its own: what a watch keeps must not keep more.
fn owned(bytes: &Bytes) -> Bytes {
    Bytes::copy_from_slice(bytes)
}

/// The fields of `events` in answers of less than `most` bytes each, of which `own` are theirs: or of one event, if that alone is larger.
fn divided(events: &[Events], most: usize, own: usize) -> Vec<Vec<Bytes>> {
    let mut answers = vec![Vec::new()];
    let mut bytes = own;
    for Events { fields, ends } in events {
        let mut from = 0;
        let mut begin = 0;
        for end in ends {
            let event = end - from;
            let is_first = begin == from && answers.last().is_none_or(Vec::is_empty);
            if bytes + event >= most && !is_first {
                if begin < from {
                    answers
                        .last_mut()
                        .into_iter()
                        .for_each(|parts: &mut Vec<Bytes>| parts.push(fields.slice(begin..from)));
                }
                answers.push(Vec::new());
                (bytes, begin) = (own, from);
            }
            bytes += event;
            from = *end;
        }
        if begin < from {
            answers.last_mut().into_iter().for_each(|parts| parts.push(fields.slice(begin..from)));
        }
    }
    answers
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(sizes: &[usize]) -> Events {
        let ends = sizes.iter().scan(0, |end, size| {
            *end += size;
            Some(*end)
        });
        let ends: Vec<usize> = ends.collect();
        Events { fields: vec![7; ends.last().copied().unwrap_or(0)].into(), ends }
    }

    fn sizes(events: &[Events], most: usize) -> Vec<Vec<usize>> {
        let lengths = |parts: Vec<Bytes>| parts.iter().map(Bytes::len).collect();
        divided(events, most, 10).into_iter().map(lengths).collect()
    }

    #[test]
    fn answers_are_divided_between_events() {
        let some = [events(&[20, 20]), events(&[20, 20, 20])];
        assert_eq!(sizes(&some, 1000), [[40, 60]]);
        assert_eq!(sizes(&some, 71), [vec![40, 20], vec![40]]);
        assert_eq!(sizes(&some, 70), [vec![40], vec![40], vec![20]]);
        assert_eq!(sizes(&some, 5), [[20], [20], [20], [20], [20]]);
        assert_eq!(sizes(&[events(&[90, 5])], 50), [[90], [5]]);
    }
}
