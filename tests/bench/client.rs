//! A cheap gRPC client: its CPU competes with the servers.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use quorate_api::etcdserverpb::kv_client::KvClient;
use quorate_api::etcdserverpb::maintenance_client::MaintenanceClient;
use tokio::net::TcpStream;
use tonic::body::Body;
use tower::Service;

/// One HTTP/2 connection, without the queue, the time limits and the reconnecting of tonic's own channel.
#[derive(Clone)]
pub(crate) struct Connection(SendRequest<Body>);

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> Result<Self, String> {
        let stream = TcpStream::connect(address)
            .await
            .map_err(|error| format!("cannot connect to {address}: {error}"))?;
        stream.set_nodelay(true).map_err(|error| format!("cannot set TCP_NODELAY: {error}"))?;
        let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
        let (sender, connection) = handshake.map_err(|error| format!("no HTTP/2 with {address}: {error}"))?;
        // Its end shows in the requests.
        tokio::spawn(async move { drop(connection.await) });
        Ok(Self(sender))
    }

    pub(crate) async fn kv(address: SocketAddr) -> Result<KvClient<Self>, String> {
        Ok(KvClient::with_origin(Self::open(address).await?, origin(address)?))
    }

    pub(crate) async fn maintenance(address: SocketAddr) -> Result<MaintenanceClient<Self>, String> {
        Ok(MaintenanceClient::with_origin(Self::open(address).await?, origin(address)?))
    }
}

pub(crate) fn origin(address: SocketAddr) -> Result<http::Uri, String> {
    format!("http://{address}").parse().map_err(|error| format!("{address} makes no URL: {error}"))
}

impl Service<http::Request<Body>> for Connection {
    type Response = http::Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}
