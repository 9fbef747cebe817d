//! What is said of pods that do not come, and the way back from a quorum that is lost for good.

use crate::kubectl::{apply, etcdctl, kubectl, wait_for};
use crate::story::{
    CLUSTER, LONG, NAMESPACE, SOON, Story, TIMEOUT, brief, claims, manifest, no_pods_of, patch, status,
    status_of, wait_until_ready,
};
use crate::traffic::WayIn;

impl Story {
    /// The API server refuses pods of a service account that does not exist: its own sentence is in the status.
    #[allow(clippy::unused_self, reason = "a step")]
    pub(crate) fn refused_pods(&mut self) -> Result<(), String> {
        let spec =
            "{replicas: 1, storage: {size: 128Mi}, podTemplate: {spec: {serviceAccountName: no-such}}}";
        apply(&manifest("held", spec))?;
        wait_for("the API server's sentence in status.troubles", SOON, || {
            let now = status_of("held")?;
            let told = now.troubles.iter().find(|trouble| trouble.cause.as_str() == "Refused");
            let says = told.is_some_and(|trouble| trouble.message.contains("no-such"));
            if says { Ok(()) } else { Err(brief(&now)) }
        })?;
        kubectl(&["delete", "raftcluster", "held", "--namespace", NAMESPACE, "--timeout", TIMEOUT])?;
        wait_for("the end of its pods", SOON, || no_pods_of("held"))
    }

    /// Two of three volumes go, and a person asks for a new cluster of what the third holds.
    #[allow(clippy::unused_self, reason = "a step")]
    pub(crate) fn quorum_lost(&mut self) -> Result<(), String> {
        let way_in = WayIn::open(NAMESPACE, "life-0");
        wait_for("a write before the loss", SOON, || {
            etcdctl(way_in.address, &["put", "before/the/loss", "kept"], "")
        })?;
        let before = status()?;
        for ordinal in [1, 2] {
            let claim = format!("data-life-{ordinal}");
            kubectl(&["delete", "persistentvolumeclaim", &claim, "--namespace", NAMESPACE, "--wait=false"])?;
        }
        kubectl(&["delete", "pod", "life-1", "life-2", "--namespace", NAMESPACE])?;
        let remains = wait_for("what the third member holds, and the way back", LONG, || {
            let now = status()?;
            let says = now.plan.iter().any(|plan| {
                plan.waiting_for.as_ref().is_some_and(|text| text.contains("kubectl raft recover life"))
            });
            let held = now.remains.iter().find(|one| one.pod == "life-0" && one.answers).cloned();
            held.filter(|_| says).ok_or_else(|| brief(&now))
        })?;
        let id = before.cluster_id.clone().unwrap_or_default();
        let request = format!(
            r#"{{"spec": {{"recover": {{"cluster": "{id}", "pod": "life-0", "member": "{}"}}}}}}"#,
            remains.member
        );
        patch(CLUSTER, &request)?;
        wait_for("another cluster's ID", LONG, || {
            let now = status()?;
            if now.cluster_id.is_some() && now.cluster_id != before.cluster_id {
                Ok(())
            } else {
                Err(brief(&now))
            }
        })?;
        wait_until_ready(3)?;
        let way_in = WayIn::open(NAMESPACE, "life-0");
        let value = wait_for("the value from before", SOON, || {
            etcdctl(way_in.address, &["get", "before/the/loss", "--print-value-only"], "")
        })?;
        if !value.contains("kept") {
            return Err(format!("what was acknowledged is {value:?}, in {}", claims()?));
        }
        // They stay for people: the tests are the people here.
        for kept in status()?.recovery.unwrap_or_default().kept {
            kubectl(&["delete", "persistentvolume", &kept.volume, "--ignore-not-found", "--wait=false"])?;
        }
        Ok(())
    }
}
