//! Gives the leadership to another member before the node ends.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::doors::event::Event;
use crate::doors::mailbox::Mailbox;
use crate::doors::view::{NodeStatus, NodeView, Role};
use crate::server::timing::ELECTION;

/// How long handing over leadership may take at the end.
const HANDOVER_TIMEOUT: Duration = Duration::from_secs(5);

/// Hands leadership over, if this node has it and there is somebody to take it. Tries again while there is time: the protocol
/// gives an attempt up after an election timeout.
pub(super) async fn hand_over(view: &NodeView, mailbox: &Mailbox) {
    let status = view.status();
    let voters = status.configuration.as_ref().map_or(0, |c| c.configuration.voters.len());
    if status.role != Role::Leader || voters < 2 {
        return;
    }
    let handed = async {
        loop {
            if let Some((leader, term)) = successor(view, mailbox).await {
                return (leader, term);
            }
        }
    };
    if let Ok((leader, term)) = tokio::time::timeout(HANDOVER_TIMEOUT, handed).await {
        tracing::info!(leader = format_args!("{leader:016x}"), term, "handed leadership over");
    } else {
        tracing::warn!("could not hand leadership over; the others will elect a leader");
    }
}

/// One attempt: who leads instead of this node, and in which term.
async fn successor(view: &NodeView, mailbox: &Mailbox) -> Option<(u64, u64)> {
    let mut changes = view.subscribe();
    let (reply, answer) = oneshot::channel();
    mailbox.post(Event::Transfer { target: None, reply });
    let _ = answer.await;
    let other = |status: &Arc<NodeStatus>| status.leader.is_some_and(|leader| leader != status.member_id);
    let status = tokio::time::timeout(ELECTION, changes.wait_for(other)).await.ok()?.ok()?;
    Some((status.leader?, status.term))
}
