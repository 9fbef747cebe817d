//! Where a node listens, and where it tells others to reach it.

use std::net::SocketAddr;

use quorate_api::log;

use super::RunError;
use crate::address::{Address, Scheme};
use crate::cli::Cli;
use crate::net::{Bound, Listeners};
use crate::storage::identity::Identity;

/// The ports that a node has taken, before it listens.
#[derive(Debug)]
pub(super) struct Ports {
    pub(super) client: Bound,
    pub(super) peer: Bound,
    pub(super) http: Bound,
}

impl Ports {
    pub(super) fn bind(cli: &Cli) -> Result<Self, RunError> {
        Ok(Ports {
            client: bind(&cli.listen_client)?,
            peer: bind(&cli.listen_peer)?,
            http: bind(&cli.listen_http)?,
        })
    }
}

fn bind(address: &Address) -> Result<Bound, RunError> {
    Bound::bind(address.host(), address.port())
        .map_err(|source| RunError::Listen { address: address.to_string(), source })
}

/// Listens on a port that was taken.
pub(super) fn listen(bound: Bound) -> Result<Listeners, RunError> {
    let address = bound.address().to_string();
    bound.listen().map_err(|source| RunError::Listen { address, source })
}

/// Where others are told to reach this node.
#[derive(Debug)]
pub(super) struct Advertised {
    peer: Address,
    client: String,
}

impl Advertised {
    /// The flags, or else what was taken. Checked before there is anybody to tell: what a cluster has stored once is wrong for all of
    /// its members.
    pub(super) fn new(cli: &Cli, ports: &Ports) -> Result<Self, RunError> {
        let has_tls = (cli.client_cert.is_some(), cli.peer_cert.is_some());
        let listener = (&cli.listen_client, ports.client.address());
        let client = reachable(cli.advertise_client.as_ref(), listener, "--advertise-client")?;
        let listener = (&cli.listen_peer, ports.peer.address());
        let peer = reachable(cli.advertise_peer.as_ref(), listener, "--advertise-peer")?;
        // A proxy before clients may speak TLS for this node, or take it off; members reach one another as they are.
        let wanted = scheme(has_tls.1);
        if peer.scheme().is_some_and(|given| given != wanted) {
            let has = if has_tls.1 { "has" } else { "has no" };
            let what = format!(
                "--advertise-peer {peer}: want {wanted}://HOST:PORT or HOST:PORT: this node {has} --peer-cert"
            );
            return Err(RunError::Usage(what));
        }
        let scheme = client.scheme().unwrap_or(scheme(has_tls.0));
        Ok(Advertised { peer, client: format!("{scheme}://{client}") })
    }

    /// The node with this identity, as configurations are to describe it.
    pub(super) fn member(self, name: Option<String>, identity: &Identity) -> log::Member {
        log::Member {
            id: identity.member.0,
            name: name.unwrap_or_else(|| identity.member.to_string()),
            peer_address: self.peer.to_string(),
            client_urls: vec![self.client],
            ..log::Member::default()
        }
    }
}

fn scheme(tls: bool) -> Scheme {
    if tls { Scheme::Https } else { Scheme::Http }
}

/// The address that others use: the one given, or else the listener's own.
fn reachable(
    given: Option<&Address>,
    (listen, bound): (&Address, SocketAddr),
    flag: &str,
) -> Result<Address, RunError> {
    match given {
        Some(address) if address.is_any() || address.port() == 0 => {
            let what =
                format!("{flag} {address} is no address that others can reach: want HOST:PORT of this node");
            Err(RunError::Usage(what))
        }
        Some(address) => Ok(address.clone()),
        None if listen.is_any() => {
            let what = format!(
                "{listen} is no address that others can reach: say which one is with {flag} HOST:PORT"
            );
            Err(RunError::Usage(what))
        }
        // A name is kept; only the port may have been left to the system.
        None => Ok(listen.with_port(bound.port())),
    }
}
