//! Asking the nodes of a cluster, all at once, without waiting for those that are dead.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::time::{Instant, timeout_at};

use crate::membership::Ordinal;
use crate::nodes::{Admin, Target};
use crate::observed::{NodeStatus, Observed};

/// How long the others have once a leader and its majority have answered: a node that is only slow is heard.
const PATIENCE: Duration = Duration::from_secs(1);
/// The same where those that are missing did not answer in the round before either.
const KNOWN_TO_BE_SILENT: Duration = Duration::from_millis(300);

/// Asks all nodes. While no leader with its majority has answered, everybody has the time of a call: who leads, and whether a volume holds a
/// cluster, is decided by all of them. `silent` are those that did not answer last time.
pub(crate) async fn ask(
    admin: &dyn Admin,
    targets: &BTreeMap<Ordinal, Target>,
    identity: Option<u64>,
    silent: &BTreeSet<Ordinal>,
) -> BTreeMap<Ordinal, NodeStatus> {
    let began = Instant::now();
    let mut calls: FuturesUnordered<_> = targets
        .iter()
        .map(|(&ordinal, target)| async move { (ordinal, admin.status(target).await) })
        .collect();
    let mut seen = Observed { identity, ..Observed::default() };
    let mut missing: BTreeSet<Ordinal> = targets.keys().copied().collect();
    loop {
        let answer = if seen.confirmed_leader().is_some() {
            let patience = if missing.is_subset(silent) { KNOWN_TO_BE_SILENT } else { PATIENCE };
            let Ok(answer) = timeout_at(began + patience, calls.next()).await else { break };
            answer
        } else {
            calls.next().await
        };
        let Some((ordinal, answer)) = answer else { break };
        missing.remove(&ordinal);
        match answer {
            Ok(status) => drop(seen.nodes.insert(ordinal, status)),
            Err(error) => tracing::debug!(%error, "a node did not answer"),
        }
    }
    seen.nodes
}
