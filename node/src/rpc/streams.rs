//! What all long streams of a client runtime share: how many there may be, and what ends them.

use std::pin::Pin;
use std::sync::{Arc, OnceLock};

use tokio::sync::watch;
use tonic::Status;

use super::arrival::{Budget, Share};
use super::error::too_many_requests;
use crate::doors::gateway::RequestError;
use crate::doors::view::{NodeStatus, NodeView, Unready};

/// The streams of one kind at one client runtime. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Streams {
    view: NodeView,
    standing: Arc<OnceLock<watch::Sender<Standing>>>,
    places: Budget,
}

/// What streams listen to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Standing {
    /// The member can serve its clients.
    pub(super) serves: bool,
    /// A leader is known.
    pub(super) is_led: bool,
    /// The node stops: a stream that stayed open would hold that up.
    pub(super) stops: bool,
}

/// The end of a stream that its client has not asked for, and why it comes.
pub(super) type Ends = Pin<Box<dyn Future<Output = Status> + Send>>;

impl Streams {
    /// At most `most` of them.
    pub(super) fn new(view: NodeView, most: usize) -> Self {
        Self { view, standing: Arc::default(), places: Budget::new(most) }
    }

    /// The same for one more connection, which has a part of its own of the places.
    pub(super) fn of_connection(&self) -> Self {
        Self { places: self.places.of_connection(), ..self.clone() }
    }

    /// A place for one more, for as long as it is held.
    pub(super) fn place(&self) -> Result<Share, Status> {
        let mut place = self.places.share();
        if place.grow(1) { Ok(place) } else { Err(too_many_requests()) }
    }

    /// How things are.
    pub(super) fn now(&self) -> Standing {
        standing(&self.view.status())
    }

    /// What all streams of this runtime listen to. They are not woken by the loop itself, which shows something new ten times a second: one
    /// task is, and they only when it concerns them.
    pub(super) fn listen(&self) -> watch::Receiver<Standing> {
        let sender = self.standing.get_or_init(|| {
            let mut changes = self.view.subscribe();
            let sender = watch::Sender::new(standing(&changes.borrow_and_update()));
            let told = sender.clone();
            tokio::spawn(async move {
                while changes.changed().await.is_ok() {
                    let now = standing(&changes.borrow_and_update());
                    told.send_if_modified(|before| std::mem::replace(before, now) != now);
                }
            });
            sender
        });
        sender.subscribe()
    }

    /// Comes when the node stops, or when there is no leader and the stream's client would rather know than wait.
    pub(super) fn ends(&self, requires_leader: bool) -> Ends {
        let mut standing = self.listen();
        Box::pin(async move {
            let ended = standing.wait_for(|now| now.stops || (requires_leader && !now.is_led)).await;
            let stops = ended.is_ok_and(|now| now.stops);
            if stops { RequestError::Stopping.into() } else { RequestError::NoLeader.into() }
        })
    }
}

fn standing(status: &NodeStatus) -> Standing {
    Standing {
        serves: status.unready.is_none(),
        is_led: status.leader.is_some(),
        stops: status.unready == Some(Unready::Stopping),
    }
}
