//! The HTTP port: health for kubelets and monitoring, metrics for Prometheus, and for programs beside the node who leads.
//!
//! | path | answers |
//! |---|---|
//! | `/livez` | 200 from the first moment of the process, also while it reads its log; 503 when its loop stands still, or its applier is stuck |
//! | `/startupz` | 200 when the log is read and the ports are open; until then 503, with how much has been read |
//! | `/readyz` | 200 when clients are served, 503 with the reason and how far the node is when not; `?verbose` says more |
//! | `/health` | the same in etcd's JSON: `{"health":"true","reason":""}` |
//! | `/version` | etcd's JSON: the version of etcd that the API is that of |
//! | `/metrics` | `OpenMetrics` where `Accept` asks for it, or else Prometheus' text |
//! | `/role` | always 200: `leader`, `follower`, `candidate`, `learner`, `waiting` or `removed` |
//! | `/leader` | 200 on a leader that a quorum has answered within the last rounds, 503 elsewhere; the body says who leads |
//!
//! `/role` and `/leader` answer in JSON where `Accept` asks for it, and always say role, term, leader and member in headers.
//!
//! A connection lasts for one request, and for five seconds at most. When there are too many, the oldest goes.

mod answer;
mod etcd;
mod leadership;
mod reading;
mod scrape;

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Request, Response, header};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use self::answer::{Answer, Asked};
use crate::doors::health::Health;
use crate::metrics::Scrape;
use crate::net::table::Word;
use crate::net::{self, Accepted, Connections, Limits, Listeners, descriptors};

pub(crate) use self::reading::Reading;

/// How long a connection may last.
const LIFE: Duration = Duration::from_secs(5);

/// The limits of the port.
pub(crate) fn limits() -> Limits {
    Limits {
        port: "http",
        flag: None,
        most: descriptors::HTTP,
        members: 0,
        requests: descriptors::HTTP,
        silence: LIFE,
        unread: LIFE,
        unread_when_full: LIFE,
        grace: Duration::ZERO,
        life: Some(LIFE),
    }
}

/// What the port answers from.
#[derive(Debug, Clone)]
pub(crate) struct Shown {
    pub(crate) health: Health,
    pub(crate) scrape: Arc<Scrape>,
    /// How much of the log has been read.
    pub(crate) reading: Reading,
}

/// Serves `listeners`, which must not block, on the runtime of now, until `connections` is closed.
pub(crate) fn serve(
    listeners: impl Into<Listeners>,
    connections: Connections,
    shown: Shown,
) -> impl Future<Output = io::Result<()>> {
    let (lane, mut accepted) = net::lane();
    let shown = Arc::new(shown);
    tokio::spawn(connections.clone().sweep());
    tokio::spawn(async move {
        while let Some(accepted) = accepted.recv().await {
            tokio::spawn(converse(accepted, Arc::clone(&shown)));
        }
    });
    net::accept(listeners, connections, vec![lane])
}

/// Answers one request, unless the connection's place is wanted before.
async fn converse(accepted: Accepted, shown: Arc<Shown>) {
    let Accepted { socket, slot } = accepted;
    let Ok(socket) = TcpStream::from_std(socket) else { return };
    let service = service_fn(move |request| {
        let shown = Arc::clone(&shown);
        async move { Ok::<_, Infallible>(respond(&request, &shown).await) }
    });
    let mut server = http1::Builder::new();
    server.keep_alive(false);
    tokio::select! {
        result = server.serve_connection(TokioIo::new(socket), service) => {
            if let Err(error) = result {
                tracing::debug!(%error, "a connection to the HTTP port has ended");
            }
        }
        _ = slot.told(Word::Stay) => {}
    }
}

async fn respond(request: &Request<Incoming>, shown: &Shown) -> Response<Full<Bytes>> {
    let accept = request.headers().get_all(header::ACCEPT);
    let accept: Vec<&str> = accept.iter().filter_map(|value| value.to_str().ok()).collect();
    let progress = if shown.health.has_started() { String::new() } else { shown.reading.progress().await };
    let (uri, accept) = (request.uri(), &accept.join(","));
    let asked = Asked { method: request.method(), uri, accept, progress: &progress };
    let Answer { status, content_type, body, headers: more } = answer::answer(&asked, shown);
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if status == http::StatusCode::METHOD_NOT_ALLOWED {
        headers.insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
    }
    for (name, value) in more {
        // A name that people gave to a member may hold what no header can.
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(name, value);
        }
    }
    response
}

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, TcpListener as StdListener};

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::doors::view::{NodeStatus, NodeView};

    fn start() -> SocketAddr {
        let listener = StdListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let health = Health::default();
        health.shows(NodeView::new(NodeStatus::default()));
        let shown = Shown { health, scrape: Arc::default(), reading: Reading::of("/nowhere".into()) };
        tokio::spawn(serve(listener, Connections::new(limits()), shown));
        address
    }

    async fn get(address: SocketAddr, path: &str) -> String {
        let mut socket = TcpStream::connect(address).await.unwrap();
        socket.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).await.unwrap();
        let mut text = String::new();
        socket.read_to_string(&mut text).await.unwrap();
        text
    }

    #[tokio::test]
    async fn a_connection_lasts_for_one_request() {
        let text = get(start(), "/role").await;
        assert!(text.starts_with("HTTP/1.1 200 OK\r\n") && text.ends_with("\r\n\r\nwaiting\n"), "{text}");
        assert!(text.contains("connection: close\r\n"), "{text}");
    }

    #[tokio::test]
    async fn connections_that_say_nothing_do_not_keep_others_out() {
        let address = start();
        let mut idle = Vec::new();
        for _ in 0..3 * descriptors::HTTP {
            idle.push(TcpStream::connect(address).await.unwrap());
        }
        assert!(get(address, "/livez").await.ends_with("\r\n\r\nok\n"));
        let mut nothing = Vec::new();
        idle[0].read_to_end(&mut nothing).await.unwrap();
        assert!(nothing.is_empty(), "the oldest is closed without a word");
    }
}
