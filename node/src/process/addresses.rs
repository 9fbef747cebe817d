//! Where a node listens, and where it tells others to reach it.

use std::net::{SocketAddr, TcpListener};

use quorate_api::log;

use super::RunError;
use crate::cli::Cli;
use crate::storage::identity::Identity;

/// The sockets that a node listens on.
#[derive(Debug)]
pub(super) struct Listeners {
    pub(super) client: TcpListener,
    pub(super) peer: TcpListener,
    pub(super) http: TcpListener,
}

impl Listeners {
    pub(super) fn open(cli: &Cli) -> Result<Self, RunError> {
        Ok(Listeners {
            client: listen(&cli.listen_client)?,
            peer: listen(&cli.listen_peer)?,
            http: listen(&cli.listen_http)?,
        })
    }
}

fn listen(address: &str) -> Result<TcpListener, RunError> {
    let open = || {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    };
    open().map_err(|source| RunError::Listen { address: address.to_owned(), source })
}

/// This node, as configurations are to describe it.
pub(super) fn describe(
    cli: &Cli,
    identity: &Identity,
    listeners: &Listeners,
    client_tls: bool,
) -> Result<log::Member, RunError> {
    let peer = match &cli.advertise_peer {
        Some(address) => address.clone(),
        None => reachable(&listeners.peer, &cli.listen_peer, "--advertise-peer")?,
    };
    let client = if let Some(url) = &cli.advertise_client {
        url.clone()
    } else {
        let address = reachable(&listeners.client, &cli.listen_client, "--advertise-client")?;
        format!("{}://{address}", if client_tls { "https" } else { "http" })
    };
    if peer.rsplit_once(':').is_none_or(|(host, port)| host.is_empty() || port.parse::<u16>().is_err()) {
        return Err(RunError::Usage(format!("--advertise-peer {peer}: want HOST:PORT")));
    }
    if !client.starts_with("http://") && !client.starts_with("https://") {
        return Err(RunError::Usage(format!(
            "--advertise-client {client}: want http://HOST:PORT or https://HOST:PORT"
        )));
    }
    let name = cli.name.clone().unwrap_or_else(|| identity.member.to_string());
    Ok(log::Member { id: identity.member.0, name, peer_address: peer, client_urls: vec![client] })
}

/// The address of a listener, for others to use.
fn reachable(listener: &TcpListener, given: &str, flag: &str) -> Result<String, RunError> {
    let address: SocketAddr = listener.local_addr()?;
    if address.ip().is_unspecified() {
        let what = format!("{given} is no address that others can reach: say which one is with {flag}");
        return Err(RunError::Usage(what));
    }
    // A name is kept; only the port may have been left to the system.
    let host = given.rsplit_once(':').map_or(given, |(host, _)| host);
    Ok(format!("{host}:{}", address.port()))
}
