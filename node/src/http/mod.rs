//! The HTTP port: health for kubelets, metrics for Prometheus, and for programs beside the node who leads.
//!
//! | path | answers |
//! |---|---|
//! | `/livez` | 200 while the process works |
//! | `/readyz` | 200 when clients are served, 503 with the reason when not; `?verbose` says more |
//! | `/metrics` | OpenMetrics text |
//! | `/role` | always 200: `leader`, `follower`, `candidate`, `learner`, `waiting` or `removed` |
//! | `/leader` | 200 on the leader, 503 elsewhere; the body says who leads |

mod answer;

use std::convert::Infallible;
use std::net::TcpListener as StdListener;
use std::sync::Arc;
use std::time::Duration;
use std::{future, io};

use http::{Request, Response, header};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::doors::view::NodeView;
use crate::metrics::Metrics;

/// The most connections at a time; more wait to be accepted.
const MAX_CONNECTIONS: usize = 64;

/// How long a client may take to send a request's head. An idle connection is closed after it too.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// How long to wait when a connection cannot be accepted, such as when too many files are open.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves `listener`, which must not block, for ever.
pub async fn serve(listener: StdListener, view: NodeView, metrics: &Metrics) -> io::Result<()> {
    let registry = Arc::new(metrics.registry(view.clone()));
    let listener = TcpListener::from_std(listener)?;
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let slot = Arc::clone(&slots).acquire_owned().await.map_err(io::Error::other)?;
        let socket = match listener.accept().await {
            Ok((socket, _)) => socket,
            Err(error) => {
                tracing::debug!(%error, "cannot accept a connection to the HTTP port");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (view, registry) = (view.clone(), Arc::clone(&registry));
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                future::ready(Ok::<_, Infallible>(respond(&request, &view, &registry)))
            });
            let mut server = http1::Builder::new();
            server.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
            if let Err(error) = server.serve_connection(TokioIo::new(socket), service).await {
                tracing::debug!(%error, "a connection to the HTTP port has ended");
            }
            drop(slot);
        });
    }
}

fn respond(request: &Request<Incoming>, view: &NodeView, registry: &Registry) -> Response<Full<Bytes>> {
    let answer = answer::answer(request.method(), request.uri(), view, registry);
    let mut response = Response::new(Full::from(answer.body));
    *response.status_mut() = answer.status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static(answer.content_type));
    headers.insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-store"));
    if answer.status == http::StatusCode::METHOD_NOT_ALLOWED {
        headers.insert(header::ALLOW, header::HeaderValue::from_static("GET, HEAD"));
    }
    response
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;
    use crate::doors::view::NodeStatus;

    #[tokio::test]
    async fn it_speaks_http() {
        let listener = StdListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let view = NodeView::new(NodeStatus::default());
        let server = tokio::spawn(async move { serve(listener, view, &Metrics::default()).await });
        let mut socket = TcpStream::connect(address).await.unwrap();
        socket.write_all(b"GET /role HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
        let mut text = String::new();
        socket.read_to_string(&mut text).await.unwrap();
        assert!(text.starts_with("HTTP/1.1 200 OK\r\n") && text.ends_with("\r\n\r\nwaiting\n"), "{text}");
        server.abort();
    }
}
