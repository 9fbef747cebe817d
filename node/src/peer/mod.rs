//! The network between members: one stream of frames to each, and the service that takes theirs.
//!
//! Messages may be lost, when a queue is full or a connection breaks; they are never repeated, and those of one connection
//! arrive in order. The protocol asks for no more. Commands of clients are not repeated by the protocol: those that certainly did
//! not leave this process are given back ([`Peers::send`], [`Event::Undelivered`]).

mod link;
mod service;
mod wire;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use quorate_api::{log, peer as pb};
use quorate_raft::MemberId;
use tokio::runtime::Handle;

use crate::doors::mailbox::Mailbox;
use crate::doors::view::{NodeView, VERSION};
use crate::replica::Message;
use crate::tls::Dialer;
use link::Link;

#[cfg(doc)]
use crate::doors::event::Event;

pub(crate) use service::PeerService;

/// The most bytes that one message between peers may have when it comes in.
pub(crate) const MAX_FRAME_BYTES: usize = 64 << 20;

/// How long the other members may take to hear that this one goes: one that cannot be reached does not hold it up.
const GOODBYE: Duration = Duration::from_millis(500);

/// The links to the other members. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Peers {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    view: NodeView,
    mailbox: Mailbox,
    dialer: Dialer,
    runtime: Handle,
    links: Mutex<BTreeMap<MemberId, Arc<Link>>>,
    /// The addresses that the newest configuration gave; so that a member's own word counts until that changes.
    configured: Mutex<BTreeMap<MemberId, String>>,
}

impl Peers {
    /// No links yet. They will run on `runtime`, and leave at `mailbox` what they cannot deliver.
    pub(crate) fn new(view: NodeView, mailbox: Mailbox, dialer: Dialer, runtime: Handle) -> Self {
        let (links, configured) = Default::default();
        let shared = Shared { view, mailbox, dialer, runtime, links, configured };
        Peers { shared: Arc::new(shared) }
    }

    /// Queues messages for their receivers. Returns the commands among those that were not taken: because the queue is full, or
    /// no address of the receiver is known. They never leave this process. Other messages are lost: the protocol sends them again.
    #[must_use]
    pub(crate) fn send(&self, messages: Vec<Message>) -> Vec<Message> {
        if messages.is_empty() {
            return Vec::new();
        }
        let links = self.shared.links.lock();
        let mut batches: BTreeMap<MemberId, Vec<Message>> = BTreeMap::new();
        for message in messages {
            batches.entry(message.to()).or_default().push(message);
        }
        let mut untaken = Vec::new();
        for (to, batch) in batches {
            untaken.extend(match links.get(&to) {
                Some(link) => link.push(batch),
                None => batch,
            });
        }
        untaken.retain(Message::is_command);
        untaken
    }

    /// Takes over the addresses of a configuration, as far as they differ from those of the one before.
    pub(crate) fn configure(&self, members: &[log::Member]) {
        for member in members {
            let known =
                self.shared.configured.lock().insert(MemberId(member.id), member.peer_address.clone());
            if known.as_ref() != Some(&member.peer_address) {
                self.reach(MemberId(member.id), &member.peer_address);
            }
        }
    }

    /// From now on `peer` is reached at `address`.
    pub(crate) fn reach(&self, peer: MemberId, address: &str) {
        let me = self.shared.view.member_id();
        if peer.0 == me || address.is_empty() {
            return;
        }
        let mut links = self.shared.links.lock();
        if let Some(link) = links.get(&peer) {
            link.set_address(address);
            return;
        }
        let link = Arc::new(Link::new(peer, address.to_owned()));
        links.insert(peer, Arc::clone(&link));
        let Shared { view, mailbox, dialer, runtime, .. } = &*self.shared;
        runtime.spawn(link.run(view.clone(), mailbox.clone(), dialer.clone()));
    }

    /// Says goodbye to everyone, after what is queued: a stream that ends in order is no sign of a crash. Returns when all links have
    /// ended, or after [`GOODBYE`].
    pub(crate) async fn leave(&self) {
        let links: Vec<_> = self.shared.links.lock().values().cloned().collect();
        for link in &links {
            link.close();
        }
        let ended = async {
            for link in &links {
                link.ended().await;
            }
        };
        if tokio::time::timeout(GOODBYE, ended).await.is_err() {
            tracing::debug!("not every member has taken a goodbye");
        }
    }
}

/// How this node introduces itself to `to`.
fn hello(view: &NodeView, to: MemberId) -> pb::Hello {
    let status = view.status();
    pb::Hello {
        cluster_id: view.cluster_id(),
        from: view.member_id(),
        to: to.0,
        from_address: status.peer_address.clone(),
        version: VERSION.to_owned(),
        oldest_level: status.levels.oldest,
        newest_level: status.levels.newest,
        level: status.level,
        quota: status.quota,
    }
}

/// Whether these bytes are a message that a peer may send. The door of the tests that send anything at all.
#[doc(hidden)]
pub fn is_message(bytes: &[u8]) -> bool {
    let message = <pb::Message as prost::Message>::decode(bytes);
    message.is_ok_and(|message| wire::from_wire(MemberId(1), MemberId(2), message).is_ok())
}
