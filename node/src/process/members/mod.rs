//! Makes the changes of membership that clients ask for, one at a time: looks at the leader, asks it for the next configuration, and answers once the
//! one that was wanted is committed, and known here.

mod checks;

use std::time::Duration;

use quorate_api::admin::{self as pb, StatusResponse};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tonic::Code;

use self::checks::Step;
use super::ask::Asker;
use crate::doors::members::{Asked, Change, Changed, Refusal};
use crate::doors::view::NodeView;
use crate::storage::identity::random_member;

/// How long a change may take: etcd's time for a request, and for an election that comes between.
const TIMEOUT: Duration = Duration::from_secs(7);

/// How long to wait before the next look.
const INTERVAL: Duration = Duration::from_millis(20);

/// Who makes them.
#[derive(Debug)]
pub(super) struct Members {
    pub(super) view: NodeView,
    pub(super) asks: Asker,
}

impl Members {
    /// Serves the door until nobody is left who could ask.
    pub(super) async fn serve(self, mut asked: mpsc::Receiver<Asked>) {
        while let Some(Asked { change, reply }) = asked.recv().await {
            let made = self.make(&change).await;
            match &made {
                Ok(Changed { member, .. }) => {
                    tracing::info!(
                        member = format_args!("{member:016x}"),
                        ?change,
                        "a client changed the membership"
                    );
                }
                Err(refusal) => tracing::info!(?change, ?refusal, "refused a client's change of membership"),
            }
            // A client that has gone wants no answer.
            let _ = reply.send(made);
        }
    }

    async fn make(&self, change: &Change) -> Result<Changed, Refusal> {
        let member = match change {
            Change::Add { .. } => random_member().map_err(|error| Refusal::Invalid(error.to_string()))?.0,
            Change::Remove(id) | Change::Update(id, _) | Change::Promote(id) => *id,
        };
        let end = Instant::now() + TIMEOUT;
        // What is answered when time is over.
        let (mut was_asked, mut late) = (false, Refusal::TimedOut);
        loop {
            if let Some((address, leader)) = self.leader().await {
                match checks::next(&leader, change, member, was_asked)? {
                    Step::Made => return self.known_here(&leader, member, end).await,
                    Step::Ask(wanted) => match self.ask(&address, &leader, wanted).await {
                        Ok(begun) => was_asked |= begun,
                        Err(Later(refusal)) => late = refusal,
                        Err(Never(refusal)) => return Err(refusal),
                    },
                    Step::Wait => {}
                }
            }
            if Instant::now() >= end {
                return Err(late);
            }
            tokio::time::sleep(INTERVAL).await;
        }
    }

    /// Where the leader is, and what it shows.
    async fn leader(&self) -> Option<(String, StatusResponse)> {
        let status = self.view.status();
        let address = status.leader_member()?.peer_address.clone();
        let found = self.asks.find_leader(address).await.ok()?;
        (found.1.cluster_id == status.cluster_id).then_some(found)
    }

    /// Asks the leader for a configuration. Whether the change may have begun by it.
    async fn ask(
        &self,
        address: &str,
        leader: &StatusResponse,
        wanted: quorate_api::log::Configuration,
    ) -> Result<bool, Refused> {
        let request = pb::ChangeMembershipRequest {
            cluster_id: leader.cluster_id,
            expected: leader.configuration.as_ref().and_then(|configuration| configuration.id),
            wanted: Some(wanted),
            levels: Vec::new(),
        };
        match self.asks.change(address, request).await {
            Ok(()) => Ok(true),
            Err(status) => match status.code() {
                // Somebody else was faster, or another leads by now.
                Code::Aborted | Code::FailedPrecondition => Ok(false),
                Code::DeadlineExceeded => Ok(true),
                // A change is under way, or what is new does not answer, or lags: it may soon be otherwise.
                Code::Unavailable => Err(Later(Refusal::Unhealthy)),
                Code::PermissionDenied => Err(Never(Refusal::NotAllowed)),
                _ => Err(Never(Refusal::Invalid(status.message().to_owned()))),
            },
        }
    }

    /// The change is made: waits until this node knows as well, so that its client finds it here.
    async fn known_here(
        &self,
        leader: &StatusResponse,
        member: u64,
        end: Instant,
    ) -> Result<Changed, Refusal> {
        let made = leader.configuration.as_ref();
        let index = made.and_then(|made| made.id).map_or(0, |id| id.index);
        let mut changes = self.view.subscribe();
        let knows = changes
            .wait_for(|status| status.configuration.as_ref().is_some_and(|known| known.id.index >= index));
        // One that is removed by it may not hear of it any more.
        let _ = tokio::time::timeout_at(end.min(Instant::now() + KNOWN), knows).await;
        let configuration = made.and_then(|made| made.configuration.clone()).unwrap_or_default();
        Ok(Changed { member, configuration })
    }
}

/// For how long it is waited that this node knows of a change that was made.
const KNOWN: Duration = Duration::from_secs(1);

/// Why the leader has not begun a change.
enum Refused {
    /// It may do so later.
    Later(Refusal),
    /// It will not.
    Never(Refusal),
}

use Refused::{Later, Never};
