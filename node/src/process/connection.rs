//! Connections that come in, in the clear or over TLS.

use std::io::{self, IoSlice};
use std::net::{SocketAddr, TcpListener as StdListener, TcpStream as StdStream};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

use crate::tls::Tls;

/// The most connections that wait to be served.
const BACKLOG: usize = 1024;

/// How long a client may take to agree on TLS.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long to wait when the process has too many files open.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// One connection.
#[derive(Debug)]
pub(crate) enum Connection {
    /// In the clear.
    Plain(TcpStream),
    /// Over TLS.
    Tls(Box<TlsStream<TcpStream>>),
}

/// Where connections come out, for a server to serve.
#[derive(Debug)]
pub(crate) struct Incoming {
    connections: mpsc::Receiver<Connection>,
}

/// Where accepted sockets are put, from any thread.
#[derive(Debug, Clone)]
pub(crate) struct Sockets {
    sockets: mpsc::Sender<StdStream>,
}

/// Accepts from `listener` for ever, and deals the sockets out in turn.
pub(crate) async fn accept(listener: StdListener, lanes: Vec<Sockets>) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    for lane in lanes.iter().cycle() {
        let socket = loop {
            match listener.accept().await.and_then(|(socket, _)| socket.into_std()) {
                Ok(socket) => break socket,
                // The client gave up, or there are too many files: neither is the end.
                Err(error) => {
                    tracing::debug!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        };
        if lane.sockets.send(socket).await.is_err() {
            break;
        }
    }
    Ok(())
}

/// A lane from an acceptor to a server on the runtime of now.
pub(crate) fn lane(tls: Option<Tls>) -> (Sockets, Incoming) {
    let (socket_sender, sockets) = mpsc::channel(BACKLOG);
    let (connection_sender, connections) = mpsc::channel(BACKLOG);
    tokio::spawn(prepare(sockets, connection_sender, tls));
    (Sockets { sockets: socket_sender }, Incoming { connections })
}

/// Makes connections of sockets. A slow handshake holds up nobody else.
async fn prepare(mut sockets: mpsc::Receiver<StdStream>, ready: mpsc::Sender<Connection>, tls: Option<Tls>) {
    while let Some(socket) = sockets.recv().await {
        let socket = match socket.set_nodelay(true).and_then(|()| TcpStream::from_std(socket)) {
            Ok(socket) => socket,
            Err(error) => {
                tracing::debug!(%error, "a connection broke before it was served");
                continue;
            }
        };
        match &tls {
            None => {
                let _ = ready.send(Connection::Plain(socket)).await;
            }
            Some(tls) => {
                let (acceptor, ready) = (tls.acceptor(), ready.clone());
                tokio::spawn(async move {
                    match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(socket)).await {
                        Ok(Ok(stream)) => {
                            let _ = ready.send(Connection::Tls(Box::new(stream))).await;
                        }
                        Ok(Err(error)) => tracing::debug!(%error, "a client did not agree on TLS"),
                        Err(_) => tracing::debug!("a client did not finish its TLS handshake"),
                    }
                });
            }
        }
    }
}

impl Stream for Incoming {
    type Item = io::Result<Connection>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.connections.poll_recv(context).map(|connection| connection.map(Ok))
    }
}

impl Connected for Connection {
    type ConnectInfo = Option<SocketAddr>;

    fn connect_info(&self) -> Self::ConnectInfo {
        match self {
            Connection::Plain(socket) => socket.peer_addr().ok(),
            Connection::Tls(stream) => stream.get_ref().0.peer_addr().ok(),
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Connection::Plain(socket) => Pin::new(socket).poll_read(cx, buffer),
            Connection::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Connection::Plain(socket) => Pin::new(socket).poll_write(cx, buffer),
            Connection::Tls(stream) => Pin::new(stream).poll_write(cx, buffer),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Connection::Plain(socket) => Pin::new(socket).poll_write_vectored(cx, buffers),
            Connection::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, buffers),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Connection::Plain(socket) => socket.is_write_vectored(),
            Connection::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Connection::Plain(socket) => Pin::new(socket).poll_flush(cx),
            Connection::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Connection::Plain(socket) => Pin::new(socket).poll_shutdown(cx),
            Connection::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
