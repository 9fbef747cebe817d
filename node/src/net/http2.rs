//! Serves one connection over HTTP/2.
//!
//! hyper speaks the protocol. What it cannot know stands here: who is at the other side, what the connection's [`Slot`] is to hear of its
//! requests, and the word of the table that ends it.

use std::convert::Infallible;
use std::future::{Future as _, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Buf;
use http::{Request, Response};
use hyper::body::{Body as HttpBody, Bytes, Frame, Incoming, SizeHint};
use hyper::server::conn::http2::Builder;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::Service;

use super::connection::Connection;
use super::gathered::gather;
use super::table::{Asked, Slot, Waiting, Word};

/// The most bytes of a request's headers.
const HEADER_BYTES: u32 = 16 << 10;

/// What waits to be sent of one answer, in bytes, before more of it is asked for: there may be thousands whose clients do not read.
const UNSENT_BYTES: usize = 64 << 10;

/// How a port speaks HTTP/2.
#[derive(Debug, Clone)]
pub(crate) struct Http2 {
    /// The most requests of one connection at a time. More wait at the client.
    pub(crate) streams: u32,
    /// How many bytes of a request may come before the service has taken them: of one, and of all of a connection.
    pub(crate) window: u32,
    /// After how long a silent connection is asked whether it lives.
    pub(crate) keepalive: Duration,
    /// How long the answer to that may take.
    pub(crate) keepalive_timeout: Duration,
    /// Whether the answer to a path is a stream that goes on, and whose reader may be as slow as it likes.
    pub(crate) is_stream: fn(&str) -> bool,
}

/// Serves `connection` on the runtime of now, until it ends or its table wants it to.
pub(crate) async fn serve<S>(connection: Connection, slot: Slot, settings: &Http2, service: S)
where
    S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible> + Clone,
    S::Future: Send + 'static,
{
    let slot = Arc::new(slot);
    let caller = connection.caller();
    slot.speaks_for(caller.clone());
    let (io, mut sender) = gather(connection, Arc::clone(&slot));
    let (asking, is_stream) = (Arc::clone(&slot), settings.is_stream);
    let answer = service_fn(move |mut request: Request<Incoming>| {
        let asked = asking.asks(is_stream(request.uri().path())).map(Arc::new);
        request.extensions_mut().insert(caller.clone());
        let response = asked.map(|asked| (asked, service.clone().call(request)));
        async move {
            let Some((asked, response)) = response else { return Ok(too_many_requests()) };
            let response = response.await?;
            Ok::<_, Infallible>(response.map(|body| Answer { body, asked: Some(asked) }))
        }
    });
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        // No client of gRPC asks for it, nor does gRPC's own server tell it.
        .auto_date_header(false)
        .keep_alive_interval(settings.keepalive)
        .keep_alive_timeout(settings.keepalive_timeout)
        .max_concurrent_streams(settings.streams)
        .max_header_list_size(HEADER_BYTES)
        .max_send_buf_size(UNSENT_BYTES)
        .initial_stream_window_size(settings.window)
        .initial_connection_window_size(settings.window);
    let mut server = pin!(builder.serve_connection(TokioIo::new(io), answer));
    let mut known = Word::Stay;
    loop {
        tokio::select! {
            biased;
            result = poll_fn(|cx| {
                let result = server.as_mut().poll(cx);
                sender.send(cx);
                result
            }) => {
                if let Err(error) = result {
                    tracing::debug!(%error, "a connection has ended");
                }
                return;
            }
            word = slot.told(known) => {
                if word == Word::Cut {
                    return;
                }
                server.as_mut().graceful_shutdown();
                known = word;
            }
        }
    }
}

/// The port has as many requests as it may have: etcd's words.
fn too_many_requests() -> Response<Answer> {
    let status = Status::resource_exhausted("etcdserver: too many requests");
    status.into_http::<Body>().map(|body| Answer { body, asked: None })
}

/// An answer on its way.
struct Answer {
    body: Body,
    asked: Option<Arc<Asked>>,
}

impl HttpBody for Answer {
    type Data = Part;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Part>, Status>>> {
        let this = self.get_mut();
        let frame = ready!(Pin::new(&mut this.body).poll_frame(cx));
        let part = |bytes| Part { bytes, _waiting: this.asked.as_ref().map(Asked::waits) };
        Poll::Ready(frame.map(|frame| Ok(frame?.map_data(part))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A part of an answer. It is dropped when its last byte is on its way to the socket: the connection keeps it while the client's window is
/// closed, longer than the body that it came of.
struct Part {
    bytes: Bytes,
    _waiting: Option<Waiting>,
}

impl Buf for Part {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
