//! The network between members: one stream of frames to each, and the service that takes theirs.
//!
//! Messages may be lost, when a queue is full or a connection breaks; they are never repeated, and those of one connection
//! arrive in order. The protocol asks for no more. Commands of clients are not repeated by the protocol: those that certainly did
//! not leave this process are given back ([`Peers::send`], [`Event::Undelivered`]).

mod link;
pub mod own_process;
pub mod registry;
mod service;
pub mod terms;
mod wire;

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use quorate_api::{log, peer as pb};
use quorate_raft::MemberId;
use tokio::runtime::Handle;
use tokio::time::Instant;

use crate::doors::mailbox::Mailbox;
use crate::doors::view::{NodeView, VERSION};
use crate::replica::Message;
use crate::tls::Dialer;
use link::Link;
use registry::Incarnation;

#[cfg(doc)]
use crate::doors::event::Event;

pub(crate) use own_process::OwnProcess;
pub(crate) use service::PeerService;

/// The most bytes that one message between peers may have when it comes in.
pub(crate) const MAX_FRAME_BYTES: usize = 64 << 20;

/// How long the other members may take to hear that this one goes: one that cannot be reached does not hold it up.
const GOODBYE: Duration = Duration::from_millis(500);

/// How often it is said again that a second process runs as a member, for as long as it tries.
pub(crate) const SEEN_EVERY: Duration = Duration::from_secs(10);

/// The most links to members that the configuration does not name: whoever may speak at the peer port can name any number.
const MOST_STRANGERS: usize = 32;

/// A link to a member that the configuration does not name goes when nothing was sent by it for so long.
const IDLE: Duration = Duration::from_mins(1);

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
    process: Arc<OwnProcess>,
    links: Mutex<BTreeMap<MemberId, Arc<Link>>>,
    /// The addresses that the newest configuration gives. Locked before `links` where both are.
    configured: Mutex<BTreeMap<MemberId, String>>,
}

impl Peers {
    /// No links yet. They will run on `runtime`, speak as `process`, and leave at `mailbox` what they cannot deliver.
    pub(crate) fn new(
        view: NodeView,
        mailbox: Mailbox,
        dialer: Dialer,
        runtime: Handle,
        process: Arc<OwnProcess>,
    ) -> Self {
        let (links, configured) = Default::default();
        let shared = Arc::new(Shared { view, mailbox, dialer, runtime, process, links, configured });
        shared.runtime.spawn(sweep(Arc::downgrade(&shared)));
        Peers { shared }
    }

    /// This process, as the others are told of it.
    pub(crate) fn own_process(&self) -> &Arc<OwnProcess> {
        &self.shared.process
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
        untaken.retain(Message::is_of_clients);
        untaken
    }

    /// Takes over the members of a configuration: from now on they are reached where it says.
    pub(crate) fn configure(&self, members: &[log::Member]) {
        let newest: BTreeMap<MemberId, String> =
            members.iter().map(|member| (MemberId(member.id), member.peer_address.clone())).collect();
        let before = std::mem::replace(&mut *self.shared.configured.lock(), newest.clone());
        for (peer, address) in newest.iter().filter(|(peer, address)| before.get(*peer) != Some(*address)) {
            self.reach(*peer, address, true);
        }
        for (peer, link) in self.shared.links.lock().iter() {
            link.set_member(newest.contains_key(peer));
        }
    }

    /// `peer` says that it is at `address`, or another member does. What the configuration says comes first: only when the member does not
    /// answer there, this one is tried as well. Of a member that the configuration does not name, it is all that is known.
    pub(crate) fn introduced(&self, peer: MemberId, address: &str) {
        let configured = self.shared.configured.lock().get(&peer).cloned();
        match configured {
            None => self.reach(peer, address, false),
            Some(configured) if configured == address || address.is_empty() => {}
            Some(_) => {
                if let Some(link) = self.shared.links.lock().get(&peer) {
                    link.set_alternative(address);
                    self.shared.view.contact(peer.0, address);
                }
            }
        }
    }

    /// From now on `peer` is reached at `address`.
    fn reach(&self, peer: MemberId, address: &str, is_member: bool) {
        let Shared { view, mailbox, dialer, runtime, process, .. } = &*self.shared;
        if peer.0 == view.member_id() || address.is_empty() {
            return;
        }
        // Taken before the links, as everywhere.
        let configured = self.shared.configured.lock();
        let mut links = self.shared.links.lock();
        if let Some(link) = links.get(&peer) {
            link.set_address(address);
            return;
        }
        let is_stranger = |peer: &MemberId| !configured.contains_key(peer);
        if !is_member && links.keys().filter(|peer| is_stranger(peer)).count() >= MOST_STRANGERS {
            tracing::debug!(%peer, address, "no link to one more that is no member: there are enough of them");
            return;
        }
        let link = Arc::new(Link::new(peer, address.to_owned()));
        links.insert(peer, Arc::clone(&link));
        runtime.spawn(link.run(view.clone(), mailbox.clone(), dialer.clone(), Arc::clone(process)));
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

/// Closes the links that nobody needs, for as long as there are any links.
async fn sweep(shared: Weak<Shared>) {
    loop {
        tokio::time::sleep(IDLE / 4).await;
        let Some(shared) = shared.upgrade() else { return };
        shared.sweep(Instant::now());
    }
}

impl Shared {
    fn sweep(&self, now: Instant) {
        let configured = self.configured.lock();
        self.links.lock().retain(|peer, link| {
            let stays = configured.contains_key(peer) || link.used() + IDLE > now;
            if !stays {
                link.close();
            }
            stays
        });
    }
}

/// How `process` of this node introduces itself to `to`.
fn hello(view: &NodeView, process: &OwnProcess, to: MemberId) -> pb::Hello {
    let (Incarnation { start, nonce }, accounts) = process.introduction();
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
        start,
        nonce,
        accounts,
    }
}

/// Whether these bytes are a message that a peer may send. The door of the tests that send anything at all.
#[doc(hidden)]
pub fn is_message(bytes: &[u8]) -> bool {
    let message = <pb::Message as prost::Message>::decode(bytes);
    message.is_ok_and(|message| wire::from_wire(MemberId(1), MemberId(2), message).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doors::mailbox::mailbox;
    use crate::doors::view::NodeStatus;

    /// Nobody is at these addresses.
    fn member(id: u64) -> log::Member {
        log::Member { id, peer_address: format!("127.0.0.1:{id}"), ..log::Member::default() }
    }

    #[tokio::test]
    async fn strangers_have_links_up_to_a_number_and_members_always() {
        let view = NodeView::new(NodeStatus { member_id: 1, ..NodeStatus::default() });
        let process = Arc::new(OwnProcess::new(1, 2, 3));
        let peers = Peers::new(view, mailbox().0, Dialer::new(None), Handle::current(), process);
        for id in 1..100 {
            peers.introduced(MemberId(1000 + id), "127.0.0.1:1");
        }
        assert_eq!(peers.shared.links.lock().len(), MOST_STRANGERS);
        peers.configure(&[member(1), member(2), member(3)]);
        assert_eq!(peers.shared.links.lock().len(), MOST_STRANGERS + 2, "there is none to this node");
        // What nobody needs goes.
        peers.shared.sweep(Instant::now() + IDLE);
        assert_eq!(peers.shared.links.lock().keys().copied().collect::<Vec<_>>(), [2, 3].map(MemberId));
    }
}
