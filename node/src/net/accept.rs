//! Accepts connections of a port, and deals them out to the threads that serve them.

use std::future::poll_fn;
use std::io;
use std::net::{SocketAddr, TcpStream as StdStream};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use futures::future::select_all;
use rustix::io::Errno;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::listen::Listeners;
use super::table::{Connections, NoPlace, Slot};

/// The most connections that wait for one thread to take them.
const WAITING: usize = 1024;

/// How long to wait after an error of which nothing is known.
const PAUSE: Duration = Duration::from_millis(100);

/// How often the log repeats that a port is full.
const SAY_AGAIN: Duration = Duration::from_mins(1);

/// A connection of which nothing was read yet.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) socket: StdStream,
    pub(crate) slot: Slot,
}

/// The way to a thread that serves connections.
pub(crate) type Lane = mpsc::Sender<Accepted>;

/// A lane, and where its connections come out.
pub(crate) fn lane() -> (Lane, mpsc::Receiver<Accepted>) {
    mpsc::channel(WAITING)
}

/// Accepts from `listeners` until `table` is closed, and deals the connections out to `lanes` in turn. One that cannot take more is passed
/// over; when none can, nothing is accepted until one of them does.
pub(crate) async fn accept(
    listeners: impl Into<Listeners>,
    table: Connections,
    lanes: Vec<Lane>,
) -> io::Result<()> {
    let listeners = listeners.into().all().into_iter().map(TcpListener::from_std);
    let listeners = listeners.collect::<io::Result<Vec<_>>>()?;
    let closing = table.clone();
    let mut closed = pin!(closing.closed());
    let mut turn = 0;
    let mut full = Seldom::default();
    loop {
        let accepted = tokio::select! {
            accepted = next(&listeners, turn) => accepted,
            // Dropping the listeners closes the port.
            () = &mut closed => return Ok(()),
        };
        let socket = match accepted.and_then(|(socket, _)| socket.into_std()) {
            Ok(socket) => socket,
            Err(error) => {
                recover(&error, &table, &mut full).await;
                continue;
            }
        };
        let slot = match table.admit().await {
            Ok(slot) => slot,
            Err(NoPlace::Closed) => return Ok(()),
            Err(NoPlace::Busy) => {
                say_busy(&table, &mut full);
                continue;
            }
        };
        turn += 1;
        if !deal(Accepted { socket, slot }, &lanes, turn).await {
            return Ok(());
        }
    }
}

/// The next connection, of whichever address: they are asked from the `turn`th on, so that none is forgotten for another.
async fn next(listeners: &[TcpListener], turn: usize) -> io::Result<(TcpStream, SocketAddr)> {
    let (before, from) = listeners.split_at(turn % listeners.len().max(1));
    poll_fn(|cx| {
        let mut all = from.iter().chain(before);
        let accepted = all.find_map(|listener| match listener.poll_accept(cx) {
            Poll::Ready(accepted) => Some(accepted),
            Poll::Pending => None,
        });
        accepted.map_or(Poll::Pending, Poll::Ready)
    })
    .await
}

/// Gives `accepted` to the first lane from `turn` on that has room. False when nobody serves any more.
async fn deal(mut accepted: Accepted, lanes: &[Lane], turn: usize) -> bool {
    for offset in 0..lanes.len() {
        match lanes[(turn + offset) % lanes.len()].try_send(accepted) {
            Ok(()) => return true,
            Err(mpsc::error::TrySendError::Full(back) | mpsc::error::TrySendError::Closed(back)) => {
                accepted = back;
            }
        }
    }
    let room = select_all(lanes.iter().map(|lane| Box::pin(lane.reserve())));
    match room.await.0 {
        Ok(permit) => {
            permit.send(accepted);
            true
        }
        Err(_) => false,
    }
}

/// An error of `accept` is never the end of the port.
async fn recover(error: &io::Error, table: &Connections, full: &mut Seldom) {
    match Errno::from_io_error(error) {
        // The other side has given up while it waited.
        Some(Errno::CONNABORTED | Errno::INTR) => {}
        Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => {
            if full.may_say() {
                let port = table.limits().port;
                tracing::warn!(port, %error, "cannot accept more connections; closing idle ones");
            }
            table.make_room().await;
        }
        _ => {
            tracing::debug!(%error, "cannot accept a connection");
            tokio::time::sleep(PAUSE).await;
        }
    }
}

fn say_busy(table: &Connections, full: &mut Seldom) {
    let limits = table.limits();
    if !full.may_say() {
        return;
    }
    let (port, most, flag) = (limits.port, limits.most, limits.flag.unwrap_or("fixed"));
    tracing::warn!(port, most, flag, "all connections are busy: one more was turned away");
}

/// What may be said once in [`SAY_AGAIN`].
#[derive(Debug, Default)]
struct Seldom {
    said: Option<Instant>,
}

impl Seldom {
    fn may_say(&mut self) -> bool {
        let may = self.said.is_none_or(|said| said.elapsed() >= SAY_AGAIN);
        if may {
            self.said = Some(Instant::now());
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener as StdListener;

    use super::*;
    use crate::net::table::Limits;

    fn limits() -> Limits {
        let forever = Duration::from_hours(1);
        Limits {
            port: "test",
            flag: None,
            most: 100,
            members: 0,
            requests: 100,
            silence: forever,
            unread: forever,
            unread_when_full: Duration::from_mins(1),
            grace: forever,
            life: None,
        }
    }

    /// A thread that is busy with one long answer takes no connections: those of the others go on.
    #[tokio::test]
    async fn a_lane_that_is_full_holds_up_no_other() {
        let listener = StdListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let ((full, _stuck), (free, mut taken)) = (mpsc::channel(1), mpsc::channel(100));
        tokio::spawn(accept(listener, Connections::new(limits()), vec![full, free]));
        let clients: Vec<_> = (0..10).map(|_| StdStream::connect(address).unwrap()).collect();
        // One waits for the first lane, and all others come by the second.
        let mut came = Vec::new();
        while came.len() < clients.len() - 1 {
            came.push(
                tokio::time::timeout(Duration::from_mins(1), taken.recv()).await.expect("it is dealt out"),
            );
        }
    }
}
