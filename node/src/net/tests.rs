//! Connections on loopback, and clients that do what they should not.

use std::future::{Ready, ready};
use std::net::{SocketAddr, TcpListener as StdListener};

use http_body_util::{BodyExt as _, Empty, StreamBody};
use hyper::client::conn::http2::{SendRequest, handshake};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::*;
use crate::net::handshake::Handshakes;
use crate::net::table::{Connections, Limits};
use crate::net::{accept, lane};

/// More than what waits in buffers between a server and a client that does not read.
const LARGE: usize = 64 << 20;
const PIECE: usize = 64 << 10;

/// Answers `/large` with [`LARGE`] bytes, and everything else with none.
#[derive(Clone)]
struct Large;

impl Service<Request<Incoming>> for Large {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Incoming>) -> Self::Future {
        let pieces = match request.uri().path() {
            "/large" => LARGE / PIECE,
            "/piece" => 1,
            _ => 0,
        };
        let pieces = (0..pieces).map(|_| Ok::<_, Infallible>(Frame::data(Bytes::from(vec![0; PIECE]))));
        ready(Ok(Response::new(Body::new(StreamBody::new(futures::stream::iter(pieces))))))
    }
}

fn limits(most: usize) -> Limits {
    Limits {
        port: "test",
        flag: None,
        most,
        members: 0,
        requests: 1000,
        silence: Duration::from_millis(200),
        unread: Duration::from_millis(200),
        unread_when_full: Duration::from_millis(200),
        grace: Duration::from_mins(1),
        life: None,
    }
}

fn start(limits: Limits) -> (SocketAddr, Connections) {
    let listener = StdListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let connections = Connections::new(limits);
    let (lane, mut accepted) = lane();
    tokio::spawn(connections.clone().sweep());
    tokio::spawn(accept(listener, connections.clone(), vec![lane]));
    tokio::spawn(async move {
        let settings = Http2 {
            streams: 8,
            window: 1 << 20,
            keepalive: Duration::from_secs(30),
            keepalive_timeout: Duration::from_secs(20),
            is_stream: |path| path == "/stream",
        };
        while let Some(accepted) = accepted.recv().await {
            let settings = settings.clone();
            tokio::spawn(async move {
                let opened = Handshakes::new("test", None).open(accepted).await;
                if let Some((connection, slot)) = opened {
                    serve(connection, slot, &settings, Large).await;
                }
            });
        }
    });
    (address, connections)
}

type Requests = SendRequest<Empty<Bytes>>;

/// A client, and its connection, which ends when the server ends it.
async fn client(address: SocketAddr) -> (Requests, JoinHandle<hyper::Result<()>>) {
    let socket = TcpStream::connect(address).await.unwrap();
    let (requests, connection) = handshake(TokioExecutor::new(), TokioIo::new(socket)).await.unwrap();
    (requests, tokio::spawn(connection))
}

async fn ask(requests: &mut Requests, path: &str) -> hyper::Result<Response<Incoming>> {
    let request = Request::get(format!("http://server{path}")).body(Empty::new()).unwrap();
    requests.send_request(request).await
}

#[tokio::test]
async fn a_connection_that_does_not_speak_http2_is_closed_and_an_idle_one_lives_on() {
    let (address, connections) = start(limits(8));
    let (mut idle, _connection) = client(address).await;
    let mut silent = TcpStream::connect(address).await.unwrap();
    let mut slow = TcpStream::connect(address).await.unwrap();
    slow.write_all(b"PRI * HTTP/2.0\r\n\r\nSM").await.unwrap();
    let mut word = Vec::new();
    silent.read_to_end(&mut word).await.unwrap();
    let _ = slow.read_to_end(&mut word).await;
    assert!(ask(&mut idle, "/").await.unwrap().status().is_success());
    assert_eq!(connections.counts().cut, 2);
}

#[tokio::test]
async fn a_client_that_reads_no_answer_loses_its_connection() {
    let (address, _) = start(limits(8));
    let (mut stuck, connection) = client(address).await;
    let unread = ask(&mut stuck, "/large").await.unwrap();
    connection.await.unwrap().unwrap_err();
    drop(unread);
    // One that reads, however much it is, keeps it.
    let (mut reader, _connection) = client(address).await;
    let answer = ask(&mut reader, "/large").await.unwrap().into_body().collect().await.unwrap();
    assert_eq!(answer.to_bytes().len(), LARGE);
    assert!(ask(&mut reader, "/").await.is_ok());
}

/// The server's library takes a part of an answer for sent when it has taken it over: that is not when it was read.
#[tokio::test]
async fn a_client_that_reads_no_small_answer_loses_its_connection_too() {
    let (address, connections) = start(limits(8));
    let socket = TcpStream::connect(address).await.unwrap();
    let mut builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    builder.initial_stream_window_size(1).initial_connection_window_size(1 << 24);
    let (mut stuck, connection) = builder.handshake(TokioIo::new(socket)).await.unwrap();
    let connection = tokio::spawn(connection);
    let unread = ask(&mut stuck, "/piece").await.unwrap();
    let ended = tokio::time::timeout(Duration::from_mins(1), connection).await;
    ended.expect("it is cut off").unwrap().unwrap_err();
    drop(unread);
    assert_eq!(connections.counts().cut, 1);
}

#[tokio::test]
async fn a_full_port_tells_an_idle_connection_to_go_and_serves_a_new_one() {
    let (address, connections) = start(limits(2));
    let (mut first, ended) = client(address).await;
    let (mut second, _second) = client(address).await;
    ask(&mut first, "/").await.unwrap();
    ask(&mut second, "/").await.unwrap();
    let (mut third, _third) = client(address).await;
    ask(&mut third, "/").await.unwrap();
    ended.await.unwrap().expect("it is closed in order");
    ask(&mut second, "/").await.unwrap();
    assert_eq!(connections.counts().evicted, 1);
}

#[tokio::test]
async fn what_is_under_way_is_finished_when_a_port_closes() {
    let (address, connections) = start(Limits { unread: Duration::from_mins(1), ..limits(8) });
    let (mut requests, connection) = client(address).await;
    let answer = ask(&mut requests, "/large").await.unwrap();
    let closing = tokio::spawn(async move { connections.close(Duration::from_mins(1)).await });
    let answer = answer.into_body().collect().await.unwrap();
    assert_eq!(answer.to_bytes().len(), LARGE);
    assert!(closing.await.unwrap());
    connection.await.unwrap().unwrap();
}
