//! Connections that this process makes: to the other members, and for raftctl to nodes.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;
use tonic::codegen::Service;
use tonic::transport::{Channel, Endpoint};

use super::{CONNECT_TIMEOUT, KEEP_ALIVE, Tls, WINDOW_BYTES, chain};

/// Connects to the peer ports of other members. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Dialer {
    tls: Option<Tls>,
}

impl Dialer {
    /// With certificates if there are any: both sides show theirs, and the name dialled must be in the other's.
    pub(crate) fn new(tls: Option<Tls>) -> Self {
        Dialer { tls }
    }

    /// Connects to `address` (`host:port`). An error says why in one line.
    pub(crate) async fn dial(&self, address: &str) -> Result<Channel, String> {
        let (interval, timeout) = KEEP_ALIVE;
        let settings = |endpoint: Endpoint| {
            endpoint
                .connect_timeout(CONNECT_TIMEOUT)
                .tcp_nodelay(true)
                .http2_keep_alive_interval(interval)
                .keep_alive_timeout(timeout)
                .keep_alive_while_idle(true)
                .initial_stream_window_size(WINDOW_BYTES)
                .initial_connection_window_size(WINDOW_BYTES)
        };
        let tls = self.tls.as_ref().map(Tls::client);
        connect(address, tls, settings).await
    }
}

/// Connects to `address` (`host:port`), over TLS if there is a configuration for it, with these further `settings`.
pub(crate) async fn connect(
    address: &str,
    tls: Option<Arc<ClientConfig>>,
    settings: impl FnOnce(Endpoint) -> Endpoint,
) -> Result<Channel, String> {
    // What the connector makes is encrypted already: tonic is to take it as it is.
    let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(|error| chain(&error))?;
    let endpoint = settings(endpoint);
    let channel = match tls {
        None => endpoint.connect().await,
        Some(config) => {
            let origin = format!("https://{address}").parse().map_err(|error| chain(&error))?;
            endpoint.origin(origin).connect_with_connector(Connector { config }).await
        }
    };
    channel.map_err(|error| chain(&error))
}

/// Makes TLS connections.
#[derive(Debug, Clone)]
struct Connector {
    config: Arc<ClientConfig>,
}

impl Service<Uri> for Connector {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connector = TlsConnector::from(Arc::clone(&self.config));
        Box::pin(async move {
            let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
            let socket = TcpStream::connect((host.as_str(), uri.port_u16().unwrap_or(443))).await?;
            socket.set_nodelay(true)?;
            let name = ServerName::try_from(host).map_err(io::Error::other)?;
            Ok(TokioIo::new(connector.connect(name, socket).await?))
        })
    }
}
