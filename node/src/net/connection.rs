//! One connection that came in, in the clear or over TLS, and its way from one runtime to another.

use std::io::{self, IoSlice};
use std::net::{SocketAddr, TcpStream as StdStream};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use super::caller::Caller;

/// A TCP connection that can move to another runtime: a socket wakes the thread of the runtime that it is registered with.
#[derive(Debug)]
pub(crate) enum Socket {
    /// Registered with a runtime.
    Here(TcpStream),
    /// On its way.
    Between(StdStream),
    /// It broke on the way.
    Gone,
}

impl Socket {
    /// Registers an accepted socket with the runtime of now. Small messages are sent at once.
    pub(crate) fn register(socket: StdStream) -> io::Result<Self> {
        socket.set_nodelay(true)?;
        Ok(Socket::Here(TcpStream::from_std(socket)?))
    }

    fn leave(&mut self) -> io::Result<()> {
        if let Socket::Here(socket) = std::mem::replace(self, Socket::Gone) {
            *self = Socket::Between(socket.into_std()?);
        }
        Ok(())
    }

    fn arrive(&mut self) -> io::Result<()> {
        if let Socket::Between(socket) = std::mem::replace(self, Socket::Gone) {
            *self = Socket::Here(TcpStream::from_std(socket)?);
        }
        Ok(())
    }

    fn peer_address(&self) -> Option<SocketAddr> {
        match self {
            Socket::Here(socket) => socket.peer_addr().ok(),
            Socket::Between(socket) => socket.peer_addr().ok(),
            Socket::Gone => None,
        }
    }

    fn stream(&mut self) -> io::Result<Pin<&mut TcpStream>> {
        match self {
            Socket::Here(socket) => Ok(Pin::new(socket)),
            Socket::Between(_) | Socket::Gone => Err(io::ErrorKind::NotConnected.into()),
        }
    }
}

/// One connection.
#[derive(Debug)]
pub(crate) enum Connection {
    /// In the clear.
    Plain(Socket),
    /// Over TLS, after the handshake.
    Tls(Box<TlsStream<Socket>>),
}

impl Connection {
    /// The other side, as far as it has shown itself.
    pub(crate) fn caller(&self) -> Caller {
        match self {
            Connection::Plain(socket) => Caller::new(socket.peer_address(), None),
            Connection::Tls(stream) => {
                let (socket, session) = stream.get_ref();
                Caller::new(socket.peer_address(), session.peer_certificates().and_then(<[_]>::first))
            }
        }
    }

    /// Takes it out of its runtime, so that another can [`Self::arrive`] it. It must not be used in between.
    pub(crate) fn leave(&mut self) -> io::Result<()> {
        self.socket().leave()
    }

    /// Registers it with the runtime of now.
    pub(crate) fn arrive(&mut self) -> io::Result<()> {
        self.socket().arrive()
    }

    fn socket(&mut self) -> &mut Socket {
        match self {
            Connection::Plain(socket) => socket,
            Connection::Tls(stream) => stream.get_mut().0,
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.get_mut().stream()?.poll_read(cx, buffer)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().stream()?.poll_write(cx, buffer)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().stream()?.poll_write_vectored(cx, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().stream()?.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().stream()?.poll_shutdown(cx)
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
