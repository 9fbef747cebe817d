//! `etcdserverpb.Lease/LeaseKeepAlive`: a stream of renewals, each answered before the next is taken, as in etcd.
//!
//! A call is one body, which reads a request, asks the leader, and tells what it has said: no task and no queue. Renewals of all streams of
//! a runtime that wait at the same time go to the leader together.

use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::body::{Body as HttpBody, Bytes, Frame};
use quorate_api::etcdserverpb as pb;
use tonic::body::Body;
use tonic::codegen::StdError;
use tonic::metadata::MetadataMap;
use tonic::{Request, Status};

use super::arrival::{Budget, Share};
use super::error;
use super::member::Member;
use super::messages::Messages;
use super::pieces::{encode, failure, success};
use super::streams::{Ends, Streams};
use super::unary::{compression, respond};
use crate::doors::gateway::RequestError;
use crate::replica::TimeLeft;

/// After so many answers others of the thread have their turn.
const TURN: usize = 64;

/// The renewals of one connection.
#[derive(Debug, Clone)]
pub(super) struct KeepAlive {
    pub(super) member: Member,
    pub(super) streams: Streams,
    /// Bytes of requests that are on their way in.
    pub(super) arriving: Budget,
}

impl KeepAlive {
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
        let place = match self.member.admit(&asked, false).and_then(|()| self.streams.place()) {
            Ok(place) => place,
            Err(refused) => return refused.into_http(),
        };
        let call = Call {
            member: self.member.clone(),
            requests: Messages::new(body, self.arriving.clone()),
            asking: None,
            ends: self.streams.ends(Member::requires_leader(&asked)),
            answered: 0,
            ended: false,
            _place: place,
        };
        respond(Ok(Body::new(call)))
    }
}

/// The leader's answer that is waited for.
type Asking = Pin<Box<dyn Future<Output = Result<TimeLeft, RequestError>> + Send>>;

/// A call.
struct Call<B> {
    member: Member,
    requests: Messages<B, pb::LeaseKeepAliveRequest>,
    /// The renewal under way, and its answer as far as it is known.
    asking: Option<(pb::LeaseKeepAliveResponse, Asking)>,
    ends: Ends,
    /// Since others had their turn.
    answered: usize,
    ended: bool,
    _place: Share,
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
        if this.ended {
            return Poll::Ready(None);
        }
        if this.answered == TURN {
            this.answered = 0;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if let Poll::Ready(status) = this.ends.as_mut().poll(cx) {
            return Poll::Ready(Some(Ok(this.end(Err(status)))));
        }
        let frame = match this.poll_answer(cx) {
            Poll::Ready(Ok(Some(answer))) => {
                this.answered += 1;
                Frame::data(encode(&answer))
            }
            Poll::Ready(Ok(None)) => this.end(Ok(())),
            Poll::Ready(Err(status)) => this.end(Err(status)),
            Poll::Pending => {
                this.answered = 0;
                return Poll::Pending;
            }
        };
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }
}

impl<B> Call<B>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<StdError>,
{
    /// The next answer; none when the client asks nothing more.
    fn poll_answer(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<pb::LeaseKeepAliveResponse>, Status>> {
        if self.asking.is_none() {
            match self.requests.poll_next(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(None) => return Poll::Ready(Ok(None)),
                Poll::Ready(Some(Err(status))) => return Poll::Ready(Err(status)),
                Poll::Ready(Some(Ok(pb::LeaseKeepAliveRequest { id }))) => self.ask(id),
            }
        }
        let Some((_, asking)) = &mut self.asking else { return Poll::Pending };
        let Poll::Ready(time) = asking.as_mut().poll(cx) else { return Poll::Pending };
        let answer = self.asking.take().map(|(answer, _)| answer);
        Poll::Ready(match time {
            Ok(time) => Ok(answer.map(|answer| pb::LeaseKeepAliveResponse { ttl: time.ttl, ..answer })),
            Err(error) => Err(error.into()),
        })
    }

    /// Asks the leader. The header is of the time before, as in etcd: a client may see a watch that is further.
    fn ask(&mut self, id: i64) {
        let gateway = self.member.gateway.clone();
        let header = Some(self.member.header(gateway.store().read().revision()));
        let answer = pb::LeaseKeepAliveResponse { header, id, ttl: 0 };
        self.asking = Some((answer, Box::pin(async move { gateway.lease_time(id, true).await })));
    }

    fn end(&mut self, outcome: Result<(), Status>) -> Frame<Bytes> {
        self.ended = true;
        outcome.map_or_else(|status| failure(&status), |()| success())
    }
}
