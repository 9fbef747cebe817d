//! Upgrades of clusters to the operator's version: what is decided, and the turn that each takes.

use kube::Resource;
use quorate_crds::{RaftClusterStatus, UpgradeState, UpgradeStatus, UpgradeStrategy};

use super::{Error, Round, short};
use crate::observe::Sight;
use crate::plan::{Budget, Plan};
use crate::resources::{self, digest};
use crate::upgrade::{self, Decision};

impl Round<'_> {
    /// What becomes of the image and the template. The number of pods and the budget are none of it.
    pub(super) fn decide(&self, sight: &Sight) -> Decision {
        let nothing = Budget { min_available: 0, always_allow: false };
        upgrade::decide(self.cluster, &sight.observed, &self.context.node_image, |image| {
            let set = resources::objects(self.blueprint(sight, image, 0, nothing)).stateful_set;
            digest::digests(self.cluster, image, &set)
        })
    }

    /// Begins an upgrade when it is the cluster's turn, or says what it waits for. Returns whether it was written.
    pub(super) async fn begin_upgrade(&self, decision: &mut Decision, plan: &Plan) -> Result<bool, Error> {
        let approved = decision.approved;
        let Some(upgrade) = decision.upgrade.as_mut().filter(|_| approved) else { return Ok(false) };
        let automatic = self.cluster.spec.upgrade.strategy == UpgradeStrategy::Automatic;
        let busy = plan.step.as_ref().filter(|_| automatic);
        let turn = match busy {
            // What a person has approved may be what mends it.
            Some(step) => Err(format!("the cluster to be as wanted: {}", step.reason)),
            None if self.cluster.spec.hibernate => Err("the cluster to be awake".to_owned()),
            None => self.context.fleet.take_turn(self.reference),
        };
        if let Err(waits_for) = turn {
            upgrade.message = Some(waits_for);
            return Ok(false);
        }
        let begun = UpgradeStatus { state: UpgradeState::Rolling, message: None, ..upgrade.clone() };
        let mut status = self.cluster.status.clone().unwrap_or_default();
        (status.image, status.upgrade) = (Some(begun.to_image.clone()), Some(begun.clone()));
        // If that is refused, the turn stays taken until a later round has said otherwise.
        self.patch_status(&status).await?;
        let note = format!("to {} with {}", begun.to, begun.to_image);
        tracing::info!(cluster = short(self.reference), to = begun.to, image = begun.to_image, "upgrades");
        self.context.events.normal(&self.cluster.object_ref(&()), "Upgrade", &note).await;
        Ok(true)
    }

    /// What the status says now of the upgrade, for all others that wait for their turn.
    pub(super) fn note_upgrade(&self, before: &RaftClusterStatus, after: &RaftClusterStatus) {
        self.context.fleet.note(self.reference, after.upgrade.as_ref().map(|upgrade| upgrade.state));
        let had_begun = before.upgrade.as_ref().is_some_and(|before| before.state != UpgradeState::Available);
        if had_begun && after.upgrade.is_none() {
            self.context.hand_turn_on();
        }
    }
}
