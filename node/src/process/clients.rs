//! The client port: some threads with a runtime each, connections dealt out among them.
//!
//! No runtime steals work from another: that costs half as much again for each call.

use std::io;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::{Builder, Handle};
use tokio::sync::{mpsc, oneshot};

use crate::doors::gateway::Gateway;
use crate::doors::members::Members;
use crate::doors::view::NodeView;
use crate::net::handshake::Handshakes;
use crate::net::http2::{self, Http2};
use crate::net::{self, Accepted, Connections, Limits, Listeners};
use crate::rpc::{self, Bounds, PeerScheme, Services};
use crate::tls::Tls;

/// After how long a silent connection is asked whether it lives.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// How long the answer to that may take.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// How long a connection may take to speak HTTP/2, its TLS handshake included.
const SILENCE: Duration = Duration::from_secs(10);

/// How long an answer may wait until its client reads on.
const UNREAD: Duration = Duration::from_mins(1);

/// The same while others are refused for what such answers hold: as long as a client that lives takes to come back to its socket.
const UNREAD_WHEN_FULL: Duration = Duration::from_secs(5);

/// How long an idle connection may take to go after GOAWAY, before it is cut off.
const GRACE: Duration = Duration::from_secs(1);

/// The most requests at a time, whose clients may all be slow: each takes some KB.
const REQUESTS: usize = 1 << 15;

/// Bytes that a client may send before they are taken: hyper's own default. A request is at most twice as large.
const WINDOW_BYTES: u32 = 1 << 20;

/// How long requests that are under way may take when the node is going away.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// The threads beside each runtime that sort large answers: what more there is to sort waits for them.
const SORTING: usize = 1;

/// How long such a thread waits for work.
const FOREVER: Duration = Duration::from_hours(24 * 365);

/// How many runtimes serve clients.
pub(crate) fn runtimes() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    (cores / 2).clamp(1, 4)
}

/// The threads that serve clients.
#[derive(Debug)]
pub(crate) struct Clients {
    threads: Vec<Thread>,
    connections: Connections,
}

#[derive(Debug)]
struct Thread {
    handle: JoinHandle<()>,
    stop: oneshot::Sender<()>,
}

/// What is served, and within which limits.
#[derive(Debug, Clone)]
pub(crate) struct ClientPort {
    pub(crate) view: NodeView,
    pub(crate) members: Members,
    pub(crate) tls: Option<Tls>,
    pub(crate) peer_scheme: PeerScheme,
    /// From [`limits`].
    pub(crate) connections: Connections,
    /// The most requests of one connection at a time.
    pub(crate) streams: u32,
    /// What answers may hold of the memory, in bytes.
    pub(crate) answering: usize,
    /// How often watches that ask for it are told how far they are.
    pub(crate) progress: Duration,
    /// What the requests that are on their way in to one thread may hold of it.
    pub(crate) arriving: usize,
}

impl Clients {
    /// Starts one thread for each gateway. Connections are accepted on `ports`.
    pub(crate) fn start(
        listeners: Listeners,
        port: &ClientPort,
        gateways: Vec<Gateway>,
        ports: &Handle,
    ) -> io::Result<Self> {
        let connections = port.connections.clone();
        let settings = Http2 {
            streams: port.streams,
            window: WINDOW_BYTES,
            keepalive: KEEPALIVE,
            keepalive_timeout: KEEPALIVE_TIMEOUT,
            is_stream: rpc::is_stream,
        };
        let handshakes = Handshakes::new("client", port.tls.clone());
        let answering = port.answering / gateways.len().max(1);
        let bounds = Bounds { arriving: port.arriving, answering };
        let (mut lanes, mut threads) = (Vec::new(), Vec::new());
        for (number, gateway) in gateways.into_iter().enumerate() {
            let runtime = Builder::new_current_thread()
                .enable_all()
                .max_blocking_threads(SORTING)
                .thread_keep_alive(FOREVER)
                .build()?;
            // Started now: one that the system denies later would be a panic.
            runtime.spawn_blocking(|| ());
            let (lane, accepted) = net::lane();
            lanes.push(lane);
            let (view, members) = (port.view.clone(), port.members.clone());
            let services =
                Services::new(gateway.clone(), view, members, port.peer_scheme, bounds, port.progress);
            let (handshakes, settings) = (handshakes.clone(), settings.clone());
            let (stop, stopped) = oneshot::channel();
            let serve = move || {
                runtime.spawn(gateway.run());
                runtime.spawn(serve(accepted, handshakes, settings, services));
                // It goes on until the end, or until whoever would tell it has gone.
                let _ = runtime.block_on(stopped);
            };
            let handle = std::thread::Builder::new().name(format!("clients-{number}")).spawn(serve)?;
            threads.push(Thread { handle, stop });
        }
        ports.spawn(connections.clone().sweep());
        let table = connections.clone();
        ports.spawn(async move {
            if let Err(error) = net::accept(listeners, table, lanes).await {
                tracing::error!(%error, "the client port is closed");
            }
        });
        Ok(Clients { threads, connections })
    }

    /// Stops accepting, tells all clients to go elsewhere, and waits until what is under way is answered, or for [`DRAIN_TIMEOUT`].
    pub(crate) async fn stop(self) {
        if !self.connections.close(DRAIN_TIMEOUT).await {
            tracing::warn!("requests were cut off: they took too long to finish");
        }
        let threads = self.threads;
        let joined = tokio::task::spawn_blocking(|| {
            for Thread { handle, stop } in threads {
                let _ = stop.send(());
                let _ = handle.join();
            }
        });
        let _ = joined.await;
    }
}

/// The limits of the port, with `most` connections at a time.
pub(crate) fn limits(most: usize) -> Limits {
    Limits {
        port: "client",
        flag: Some("--max-client-connections"),
        most,
        members: 0,
        requests: REQUESTS,
        silence: SILENCE,
        unread: UNREAD,
        unread_when_full: UNREAD_WHEN_FULL,
        grace: GRACE,
        life: None,
    }
}

/// Serves the connections of one lane on the runtime of now.
async fn serve(
    mut accepted: mpsc::Receiver<Accepted>,
    handshakes: Handshakes,
    settings: Http2,
    services: Services,
) {
    while let Some(accepted) = accepted.recv().await {
        let (handshakes, settings, services) = (handshakes.clone(), settings.clone(), services.clone());
        tokio::spawn(async move {
            if let Some((connection, slot)) = handshakes.open(accepted).await {
                slot.watches(services.refused_answers());
                let services = services.of_connection();
                http2::serve(connection, slot, &settings, services).await;
            }
        });
    }
}
