//! From an accepted socket to a connection: the TLS handshake, where there is one.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_rustls::rustls;

use super::accept::Accepted;
use super::connection::{Connection, Socket};
use super::table::{Slot, Word};
use crate::tls::Tls;

/// How often the log repeats one reason to refuse a connection.
const SAY_AGAIN: Duration = Duration::from_mins(1);

/// The most reasons that are remembered. Others are not said until these have grown old.
const REASONS: usize = 64;

/// Makes connections of sockets. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Handshakes {
    tls: Option<Tls>,
    port: &'static str,
    said: Arc<Mutex<BTreeMap<String, Instant>>>,
}

impl Handshakes {
    /// Of the port `port`, with certificates if there are any.
    pub(crate) fn new(port: &'static str, tls: Option<Tls>) -> Self {
        Handshakes { tls, port, said: Arc::default() }
    }

    /// The connection on the runtime of now; none when it broke, was refused, or took too long. Its table keeps the time.
    pub(crate) async fn open(&self, accepted: Accepted) -> Option<(Connection, Slot)> {
        let Accepted { socket, slot } = accepted;
        let address = socket.peer_addr().ok();
        let opened = async {
            let socket = Socket::register(socket)?;
            match &self.tls {
                None => Ok(Connection::Plain(socket)),
                Some(tls) => Ok(Connection::Tls(Box::new(tls.acceptor().accept(socket).await?))),
            }
        };
        let opened = tokio::select! {
            opened = opened => opened,
            _ = slot.told(Word::Stay) => return None,
        };
        match opened {
            Ok(connection) => Some((connection, slot)),
            Err(error) => {
                let from = address.map(tracing::field::display);
                if let Some(reason) = refusal(&error).filter(|reason| self.may_say(reason)) {
                    tracing::warn!(port = self.port, from, reason, "a connection was refused");
                } else {
                    tracing::debug!(port = self.port, from, %error, "a connection has failed");
                }
                None
            }
        }
    }

    fn may_say(&self, reason: &str) -> bool {
        let mut said = self.said.lock();
        said.retain(|_, at| at.elapsed() < SAY_AGAIN);
        said.len() < REASONS && said.insert(reason.to_owned(), Instant::now()).is_none()
    }
}

/// Why a handshake failed, if that is something to be told: probes that only connect, and sides that go away, are none.
fn refusal(error: &io::Error) -> Option<String> {
    let error = error.get_ref()?.downcast_ref::<rustls::Error>()?;
    Some(match error {
        rustls::Error::NoCertificatesPresented => {
            "it has shown no certificate, and this port asks for one".to_owned()
        }
        rustls::Error::InvalidMessage(_) => "it does not speak TLS, and this port does".to_owned(),
        rustls::Error::AlertReceived(alert) => format!("it refuses this node's certificate ({alert:?})"),
        error => crate::tls::explain(error),
    })
}
