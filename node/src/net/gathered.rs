//! The bytes of one connection: what is ready together leaves together.
//!
//! HTTP/2 hands out each frame of more than some hundred bytes by itself and asks for it to be flushed, so that every answer would be a
//! system call, which costs more than the answer. Here a write only copies. What has been gathered is sent once the connection has had its
//! turn, by [`Sender::send`].

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::connection::Connection;
use super::table::{Slot, Waiting};

/// The most bytes that are gathered: two frames of data with their headers, and something small.
const MOST: usize = 2 * (9 + (16 << 10)) + 1024;

/// What most connections have to say at a time. More is taken only by those that have more.
const USUAL: usize = 4 << 10;

/// The preface, and the header of the first frame, which is SETTINGS. Less is no HTTP/2; and from there on keepalive finds out whether
/// the other side lives.
const FIRST_WORDS: usize = 24 + 9;

/// What reads and writes, and what sends.
pub(super) fn gather(connection: Connection, slot: Arc<Slot>) -> (Gathered, Sender) {
    let wire = Arc::new(Mutex::new(Wire { connection, buffer: Vec::new(), sent: 0, progress: 0 }));
    let gathered = Gathered { wire: Arc::clone(&wire), slot: Arc::clone(&slot), heard: 0 };
    (gathered, Sender { wire, slot, unsent: None })
}

/// The side that HTTP/2 has. A flush is for [`Sender::send`] to do.
pub(super) struct Gathered {
    wire: Arc<Mutex<Wire>>,
    slot: Arc<Slot>,
    /// How many of the first bytes have come.
    heard: usize,
}

/// The other side, of the task that serves the connection.
pub(super) struct Sender {
    wire: Arc<Mutex<Wire>>,
    slot: Arc<Slot>,
    unsent: Option<Unsent>,
}

/// Bytes that the socket does not take. HTTP/2 counts them as sent, so they are counted here: as a request whose answer is not read.
struct Unsent {
    /// [`Wire::progress`] when it was counted.
    progress: u64,
    _waiting: Option<Waiting>,
}

impl Sender {
    /// Sends what has been gathered, as far as the socket takes it. For what is left the task is woken. A connection that is broken says
    /// so when it is read.
    pub(super) fn send(&mut self, cx: &mut Context<'_>) {
        let mut wire = self.wire.lock();
        let _ = wire.poll_send(cx);
        let progress = wire.progress;
        if wire.is_empty() {
            self.unsent = None;
        } else if self.unsent.as_ref().is_none_or(|unsent| unsent.progress != progress) {
            let waiting = self.slot.asks(false).map(|asked| Arc::new(asked).waits());
            self.unsent = Some(Unsent { progress, _waiting: waiting });
        }
    }
}

/// Both sides are on one thread: the lock is never waited for.
struct Wire {
    connection: Connection,
    /// An idle connection keeps none.
    buffer: Vec<u8>,
    /// How many bytes of it the socket has taken.
    sent: usize,
    /// How often the socket has taken some.
    progress: u64,
}

impl Wire {
    fn is_empty(&self) -> bool {
        self.buffer.len() == self.sent
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.is_empty() {
            let sent = ready!(Pin::new(&mut self.connection).poll_write(cx, &self.buffer[self.sent..]))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent += sent;
            self.progress += 1;
        }
        (self.buffer, self.sent) = (Vec::new(), 0);
        Pin::new(&mut self.connection).poll_flush(cx)
    }

    /// Makes room for `bytes`, or for as many as there can ever be.
    fn poll_room(&mut self, cx: &mut Context<'_>, bytes: usize) -> Poll<io::Result<usize>> {
        if self.buffer.len() - self.sent + bytes > MOST {
            ready!(self.poll_send(cx))?;
        }
        self.buffer.drain(..std::mem::take(&mut self.sent));
        let room = bytes.min(MOST - self.buffer.len());
        let needed = self.buffer.len() + room;
        if needed > self.buffer.capacity() {
            let capacity = if needed <= USUAL { USUAL } else { MOST };
            self.buffer.reserve_exact(capacity - self.buffer.len());
        }
        Poll::Ready(Ok(room))
    }
}

impl AsyncRead for Gathered {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.wire.lock().connection).poll_read(cx, buffer))?;
        if this.heard < FIRST_WORDS {
            this.heard += buffer.filled().len() - before;
            if this.heard >= FIRST_WORDS {
                this.slot.speaks();
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Gathered {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut wire = self.wire.lock();
        let bytes = slices.iter().map(|slice| slice.len()).sum();
        let room = ready!(wire.poll_room(cx, bytes))?;
        let mut left = room;
        for slice in slices {
            let part = &slice[..slice.len().min(left)];
            wire.buffer.extend_from_slice(part);
            left -= part.len();
        }
        Poll::Ready(Ok(room - left))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut wire = self.wire.lock();
        ready!(wire.poll_send(cx))?;
        Pin::new(&mut wire.connection).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};

    use super::super::connection::Socket;
    use super::super::table::Connections;
    use super::super::table::tests::limits;
    use super::*;

    async fn connected() -> (Gathered, Sender, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let socket = listener.accept().await.unwrap().0.into_std().unwrap();
        let slot = Connections::new(limits(1)).admit().await.unwrap();
        let (gathered, sender) = gather(Connection::Plain(Socket::register(socket).unwrap()), Arc::new(slot));
        (gathered, sender, client)
    }

    async fn turn(sender: &mut Sender) {
        poll_fn(|cx| {
            sender.send(cx);
            Poll::Ready(())
        })
        .await;
    }

    /// Gives the sender its turns until the socket has taken all.
    async fn send(sender: &mut Sender) {
        poll_fn(|cx| {
            sender.send(cx);
            if sender.wire.lock().is_empty() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    #[tokio::test]
    async fn what_is_written_is_sent_at_once_and_not_before() {
        let (mut gathered, mut sender, mut client) = connected().await;
        for part in [b"one ", b"two ", b"more"] {
            gathered.write_all(part).await.unwrap();
            gathered.flush().await.unwrap();
        }
        let early = tokio::time::timeout(Duration::from_millis(50), client.readable()).await;
        assert!(early.is_err(), "something was sent");
        let mut read = [0; 64];
        send(&mut sender).await;
        assert_eq!(client.read(&mut read).await.unwrap(), 12);
        assert_eq!(&read[..12], b"one two more");
        assert_eq!(sender.wire.lock().buffer.capacity(), 0, "an idle connection keeps a buffer");
    }

    #[tokio::test]
    async fn a_reader_that_stops_holds_no_more_than_is_gathered_and_then_gets_all_in_order() {
        let (mut gathered, mut sender, mut client) = connected().await;
        let piece: Vec<u8> = (0..=250).cycle().take(20_000).collect();
        // Until the socket takes no more.
        let mut written = Vec::new();
        while let Ok(result) = tokio::time::timeout(Duration::from_millis(100), gathered.write(&piece)).await
        {
            written.extend_from_slice(&piece[..result.unwrap()]);
            assert!(sender.wire.lock().buffer.capacity() <= MOST);
        }
        turn(&mut sender).await;
        assert!(sender.unsent.is_some(), "nobody counts what is left");
        let reader = tokio::spawn(async move {
            let mut read = Vec::new();
            client.read_to_end(&mut read).await.unwrap();
            read
        });
        gathered.shutdown().await.unwrap();
        assert!(reader.await.unwrap() == written, "it is another, or has another order");
        turn(&mut sender).await;
        assert!(sender.unsent.is_none());
    }
}
