//! The client port: some threads with a runtime each, connections dealt out among them.
//!
//! No runtime steals work from another: that costs half as much again for each call.

use std::io;
use std::net::TcpListener;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::{Builder, Handle};
use tokio::sync::watch;
use tonic::transport::Server;

use super::connection::{self, Incoming};
use crate::doors::gateway::Gateway;
use crate::doors::view::NodeView;
use crate::rpc::{PeerScheme, Services};
use crate::tls::Tls;

/// After how long a silent connection is asked whether somebody is there.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// How long the answer to that may take.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// How long requests that are under way may take when the node is going away.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// How many runtimes serve clients.
pub(crate) fn runtimes() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    (cores / 2).clamp(1, 4)
}

/// The threads that serve clients.
#[derive(Debug)]
pub(crate) struct Clients {
    threads: Vec<JoinHandle<()>>,
    stop: watch::Sender<bool>,
}

/// What is served.
#[derive(Debug, Clone)]
pub(crate) struct ClientPort {
    pub(crate) view: NodeView,
    pub(crate) tls: Option<Tls>,
    pub(crate) peer_scheme: PeerScheme,
}

impl Clients {
    /// Starts one thread for each gateway. Connections are accepted on the runtime of now.
    pub(crate) fn start(
        listener: TcpListener,
        port: &ClientPort,
        gateways: Vec<Gateway>,
    ) -> io::Result<Self> {
        let (stop, stopped) = watch::channel(false);
        let mut lanes = Vec::new();
        let mut threads = Vec::new();
        for (number, gateway) in gateways.into_iter().enumerate() {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            let (sockets, incoming) = {
                let _inside = runtime.enter();
                connection::lane(port.tls.clone())
            };
            lanes.push(sockets);
            let services = Services::new(gateway.clone(), port.view.clone(), port.peer_scheme);
            let stopped = stopped.clone();
            let serve = move || {
                runtime.spawn(gateway.run());
                runtime.block_on(serve(services, incoming, stopped));
            };
            threads.push(std::thread::Builder::new().name(format!("clients-{number}")).spawn(serve)?);
        }
        let mut stopped = stopped;
        Handle::current().spawn(async move {
            tokio::select! {
                result = connection::accept(listener, lanes) => {
                    if let Err(error) = result {
                        tracing::error!(%error, "the client port is closed");
                    }
                }
                // Dropping the listener closes the port.
                _ = stopped.wait_for(|stop| *stop) => {}
            }
        });
        Ok(Clients { threads, stop })
    }

    /// Stops accepting, and waits until what is under way is answered, or for [`DRAIN_TIMEOUT`].
    pub(crate) async fn stop(self) {
        self.stop.send_replace(true);
        let threads = self.threads;
        let joined = tokio::task::spawn_blocking(|| {
            for thread in threads {
                let _ = thread.join();
            }
        });
        let _ = joined.await;
    }
}

async fn serve(services: Services, incoming: Incoming, mut stopped: watch::Receiver<bool>) {
    let mut drained = stopped.clone();
    let stop = async move {
        let _ = stopped.wait_for(|stop| *stop).await;
    };
    let deadline = async move {
        let _ = drained.wait_for(|stop| *stop).await;
        tokio::time::sleep(DRAIN_TIMEOUT).await;
    };
    // Who has gone without a word does not hold its connection, and its requests, for ever.
    let server = Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .serve_with_incoming_shutdown(services, incoming, stop);
    tokio::select! {
        result = server => {
            if let Err(error) = result {
                tracing::error!(%error, "a client runtime has ended");
            }
        }
        () = deadline => tracing::warn!("requests were cut off: they took too long to finish"),
    }
}
