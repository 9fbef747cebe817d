//! The end of a cluster: what holds it up, and in which order its parts go.

use kube::api::{Patch, PatchParams};
use kube::runtime::controller::Action;
use kube::{Api, ResourceExt};
use quorate_crds::{DeletionPolicy, Phase, PlanStatus, RaftCluster, RaftClusterStatus};
use serde_json::json;

use super::{ACTED, Context, Error, PENDING, Round, short};
use crate::apply;
use crate::observe::Sight;

/// Holds up the deletion of a resource until its volumes have been deleted, where the policy says so.
const VOLUMES_FINALIZER: &str = "quorate.dev/volumes";
/// Holds up the deletion of a resource while the spec protects it.
const PROTECTION_FINALIZER: &str = "quorate.dev/protection";

impl Round<'_> {
    /// A protected cluster runs on although its resource is being deleted: what was deleted is not there again, and the data is.
    pub(super) fn is_protected(&self) -> bool {
        self.cluster.spec.deletion_protection && self.has_finalizer(PROTECTION_FINALIZER)
    }

    /// A finalizer is there only while there is something to clean up, or to protect: it holds up deletion while the operator is down.
    /// Returns whether they had to be changed.
    pub(super) async fn keep_finalizers(&self, policy: DeletionPolicy) -> Result<bool, Error> {
        let wanted = [
            (VOLUMES_FINALIZER, policy == DeletionPolicy::Delete),
            (PROTECTION_FINALIZER, self.cluster.spec.deletion_protection),
        ];
        // The API server takes none on a resource that is being deleted.
        let deleted = self.cluster.metadata.deletion_timestamp.is_some();
        if deleted || wanted.iter().all(|(finalizer, wanted)| self.has_finalizer(finalizer) == *wanted) {
            return Ok(false);
        }
        let wanted = wanted.into_iter().filter(|(_, wanted)| *wanted).map(|(finalizer, _)| finalizer);
        self.set_finalizers(wanted.collect()).await?;
        Ok(true)
    }

    fn has_finalizer(&self, finalizer: &str) -> bool {
        self.cluster.finalizers().iter().any(|found| found == finalizer)
    }

    /// Sets those of the operator, and leaves others'.
    async fn set_finalizers(&self, ours: Vec<&str>) -> Result<(), Error> {
        let others = self
            .cluster
            .finalizers()
            .iter()
            .filter(|finalizer| ![VOLUMES_FINALIZER, PROTECTION_FINALIZER].contains(&finalizer.as_str()));
        let finalizers: Vec<&str> = others.map(String::as_str).chain(ours).collect();
        let patch = json!({
            "metadata": {"finalizers": finalizers, "resourceVersion": self.cluster.resource_version()}
        });
        let namespace = self.cluster.namespace().unwrap_or_default();
        let api = Api::<RaftCluster>::namespaced(self.context.client.clone(), &namespace);
        let written =
            api.patch(&self.cluster.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await;
        written.map(drop).map_err(Error::Write)
    }

    /// The resource is being deleted. Its objects go with it; its volumes, where the policy says so now: first the pods end, then the
    /// volumes go, and when none is left the finalizer. The finalizer may be left over from an earlier policy.
    pub(super) async fn wind_up(&self, sight: &Sight) -> Result<Action, Error> {
        let Context { client, .. } = self.context;
        self.context.forget(self.reference);
        let deletes = self.cluster.spec.deletion_policy == DeletionPolicy::Delete;
        if self.has_finalizer(VOLUMES_FINALIZER) && deletes {
            if self.cluster.spec.paused {
                self.say_deleting("spec.paused to be false: the volumes are to be deleted").await;
                return Ok(Action::requeue(PENDING));
            }
            let pods: Vec<_> =
                sight.observed.pods.keys().map(|&ordinal| sight.observed.pod_name(ordinal)).collect();
            if !pods.is_empty() {
                self.say_deleting(&format!("the pods to end: {}", pods.join(", "))).await;
                apply::end_pods(client, self.cluster, sight).await?;
                return Ok(Action::requeue(ACTED));
            }
            // No pod may come that would have a claim made anew.
            apply::end_pods(client, self.cluster, sight).await?;
            if apply::delete_volumes(client, self.cluster, sight).await? {
                self.say_deleting("the volumes to be gone").await;
                return Ok(Action::requeue(ACTED));
            }
        } else if self.say_deleting("the objects to be gone").await {
            // What was read is not current any more.
            return Ok(Action::requeue(ACTED));
        }
        if self.has_finalizer(VOLUMES_FINALIZER) || self.has_finalizer(PROTECTION_FINALIZER) {
            self.set_finalizers(Vec::new()).await?;
        }
        Ok(Action::await_change())
    }

    /// Says in the status that the resource is being deleted, and what that waits for. Returns whether it had to be said; it holds
    /// nothing up if that is refused.
    async fn say_deleting(&self, waits_for: &str) -> bool {
        let before = self.cluster.status.clone().unwrap_or_default();
        let plan = Some(PlanStatus {
            step: "Delete".to_owned(),
            reason: "the resource is being deleted".to_owned(),
            waiting_for: Some(waits_for.to_owned()),
        });
        let after = RaftClusterStatus { phase: Some(Phase::Deleting), plan, ..before.clone() };
        if after == before || self.cluster.finalizers().is_empty() {
            return false;
        }
        let written = self.patch_status(&after).await;
        if let Err(error) = &written {
            tracing::debug!(cluster = short(self.reference), %error, "cannot say that it is being deleted");
        }
        written.is_ok()
    }
}
