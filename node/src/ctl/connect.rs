//! The ways to the nodes.

use std::sync::Arc;
use std::time::Duration;

use quorate_api::admin::admin_client::AdminClient;
use quorate_api::admin::{StatusRequest, StatusResponse};
use quorate_api::etcdserverpb::kv_client::KvClient;
use tokio_rustls::rustls::ClientConfig;
use tonic::transport::Channel;

use super::{CtlError, Global};
use crate::tls::{self, Dialer, Tls, TlsFiles};

/// How often a leader is looked for where another says that it is.
const HOPS: usize = 4;

/// The way to peer ports.
#[derive(Debug)]
pub(super) struct Admins {
    dialer: Dialer,
    /// As they were given.
    pub(super) endpoints: Vec<String>,
    pub(super) timeout: Duration,
}

impl Admins {
    pub(super) fn new(global: &Global, timeout: Duration) -> Result<Self, CtlError> {
        let files = global.peer_cert.clone().zip(global.peer_key.clone());
        let files = files.map(|(cert, key)| TlsFiles { cert, key, ca: global.peer_ca.clone() });
        let tls = files.map(Tls::load_client).transpose()?;
        Ok(Self { dialer: Dialer::new(tls), endpoints: global.peer_endpoints.clone(), timeout })
    }

    /// The admin service of the node at `address`.
    pub(super) async fn client(&self, address: &str) -> Result<AdminClient<Channel>, CtlError> {
        let unreachable = |reason: &str| CtlError::Unreachable(format!("{address}: {reason}"));
        match tokio::time::timeout(self.timeout, self.dialer.dial(address)).await {
            Ok(Ok(channel)) => Ok(AdminClient::new(channel)),
            Ok(Err(reason)) => Err(unreachable(&reason)),
            Err(_) => Err(unreachable("no connection in time")),
        }
    }

    /// What the node at `address` knows.
    pub(super) async fn status(&self, address: &str) -> Result<StatusResponse, CtlError> {
        let mut client = self.client(address).await?;
        call(address, self.timeout, client.status(StatusRequest {})).await
    }

    /// The first of the endpoints that answers, and what it knows.
    pub(super) async fn any(&self) -> Result<(String, StatusResponse), CtlError> {
        let mut reasons = Vec::new();
        for endpoint in &self.endpoints {
            match self.status(endpoint).await {
                Ok(status) => return Ok((endpoint.clone(), status)),
                Err(CtlError::Unreachable(reason)) => reasons.push(reason),
                Err(error) => reasons.push(error.to_string()),
            }
        }
        Err(CtlError::Unreachable(reasons.join("; ")))
    }

    /// The first of the endpoints, and what it knows.
    pub(super) async fn here(&self) -> Result<(String, StatusResponse), CtlError> {
        let none = || CtlError::Unreachable("no endpoint: give --peer-endpoints".to_owned());
        let endpoint = self.endpoints.first().ok_or_else(none)?;
        Ok((endpoint.clone(), self.status(endpoint).await?))
    }

    /// The leader's address, and what it knows. Followers and waiting nodes among the endpoints lead there.
    pub(super) async fn leader(&self) -> Result<(String, StatusResponse), CtlError> {
        let mut last = None;
        for endpoint in &self.endpoints {
            match self.leader_from(endpoint.clone()).await {
                Ok(found) => return Ok(found),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| CtlError::Unreachable("no endpoint: give --peer-endpoints".to_owned())))
    }

    async fn leader_from(&self, mut address: String) -> Result<(String, StatusResponse), CtlError> {
        for _ in 0..HOPS {
            let status = self.status(&address).await?;
            if status.cluster_id == 0 {
                return Err(CtlError::Cluster(format!("{address}: the node belongs to no cluster yet")));
            }
            if status.leader_id == 0 {
                return Err(CtlError::Cluster(format!("{address}: no leader is known")));
            }
            if status.leader_id == status.member_id {
                return Ok((address, status));
            }
            let members = status.configuration.and_then(|c| c.configuration).map(|c| c.members);
            let leader = members.into_iter().flatten().find(|member| member.id == status.leader_id);
            address = leader
                .ok_or_else(|| CtlError::Cluster(format!("{address}: does not know where its leader is")))?
                .peer_address;
        }
        Err(CtlError::Cluster("the leader changes too often to be found; try again".to_owned()))
    }
}

/// The way to client ports.
#[derive(Debug)]
pub(super) struct Clients {
    tls: Option<Arc<ClientConfig>>,
    endpoints: Vec<String>,
    pub(super) timeout: Duration,
}

impl Clients {
    pub(super) fn new(global: &Global, timeout: Duration) -> Result<Self, CtlError> {
        // Without an authority the certificate itself is trusted: in a node's container it is what that node shows.
        let own = global.client_cert.as_deref().zip(global.client_key.as_deref());
        let trusted = global.client_ca.as_deref().or(global.client_cert.as_deref());
        let tls = trusted.map(|trusted| tls::client(trusted, own)).transpose()?;
        Ok(Self { tls, endpoints: global.endpoints.clone(), timeout })
    }

    /// The first of the endpoints that takes a connection, and its name.
    pub(super) async fn keys(&self) -> Result<(String, KvClient<Channel>), CtlError> {
        let mut reasons = Vec::new();
        for endpoint in &self.endpoints {
            match self.connect(endpoint).await {
                Ok(channel) => {
                    return Ok((
                        endpoint.clone(),
                        KvClient::new(channel).max_decoding_message_size(usize::MAX),
                    ));
                }
                Err(reason) => reasons.push(format!("{endpoint}: {reason}")),
            }
        }
        Err(CtlError::Unreachable(reasons.join("; ")))
    }

    async fn connect(&self, endpoint: &str) -> Result<Channel, String> {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let url =
            if endpoint.contains("://") { endpoint.to_owned() } else { format!("{scheme}://{endpoint}") };
        let secure = url.starts_with("https://");
        let config = if secure {
            Some(self.tls.clone().ok_or("https wants --client-ca, the authority of its certificate")?)
        } else {
            None
        };
        let address =
            url.split_once("://").map_or(url.as_str(), |(_, address)| address).trim_end_matches('/');
        tls::connect(address, config, |endpoint| endpoint.connect_timeout(self.timeout)).await
    }
}

/// Waits for an answer, and says who did not give it.
pub(super) async fn call<T>(
    endpoint: &str,
    timeout: Duration,
    request: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
) -> Result<T, CtlError> {
    match tokio::time::timeout(timeout, request).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => {
            Err(CtlError::Refused { endpoint: endpoint.to_owned(), message: status.message().to_owned() })
        }
        Err(_) => Err(CtlError::Unreachable(format!("{endpoint}: nothing within {} s", timeout.as_secs()))),
    }
}
