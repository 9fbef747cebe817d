//! What becomes of a living cluster when the operator is upgraded, and of one that hibernates.

use quorate_crds::{Phase, UpgradeState};

use crate::kubectl::{context, etcdctl, kubectl, wait_for};
use crate::member::{Pod, pod};
use crate::story::{
    CLUSTER, LONG, NAMESPACE, SOON, Story, brief, claims, ids, no_pods_of, patch, scale, status,
    wait_until_ready,
};
use crate::traffic::WayIn;

/// An image that no registry has.
pub(crate) const BROKEN: &str = "registry.invalid/quorate-node:0.1.0-broken";

impl Story {
    /// The operator brings another image. The cluster keeps its own, and its pods, until somebody approves it.
    pub(crate) fn operator_upgraded(&mut self) -> Result<(), String> {
        let (before, image) = (pods()?, status()?.image);
        Self::install_with(&[format!("node.image={BROKEN}")])?;
        let upgrade = wait_for("an upgrade that waits for approval", LONG, || {
            let now = status()?;
            now.upgrade.clone().ok_or_else(|| brief(&now))
        })?;
        if upgrade.state != UpgradeState::Available || Some(&upgrade.from_image) != image.as_ref() {
            return Err(format!("the image was {image:?}, and the upgrade is {upgrade:?}"));
        }
        // The new operator also makes the changes of the spec that are no upgrade: with the image that runs, and one voter more or less.
        scale(5)?;
        wait_until_ready(5)?;
        scale(3)?;
        wait_until_ready(3)?;
        let now = status()?;
        if pods()? != before || now.image != image {
            return Err(format!("the pods were {before:?} and are {:?}, with {:?}", pods()?, now.image));
        }
        self.traffic_goes_on()
    }

    /// Approved, it stops at one pod, which it names; the image of before takes it back.
    pub(crate) fn broken_upgrade(&mut self) -> Result<(), String> {
        let before = pods()?;
        let to = status()?.upgrade.ok_or("there is no upgrade")?.to;
        patch(CLUSTER, &format!(r#"{{"spec": {{"upgrade": {{"approved": "{to}"}}}}}}"#))?;
        let failed = wait_for("an upgrade that has failed", LONG, || {
            let now = status()?;
            let upgrade = now.upgrade.clone().filter(|upgrade| upgrade.state == UpgradeState::Failed);
            upgrade.ok_or_else(|| brief(&now))
        })?;
        let now = pods()?;
        let replaced: Vec<_> = (0..3).filter(|&ordinal| now[ordinal].uid != before[ordinal].uid).collect();
        let &[broken] = replaced.as_slice() else {
            return Err(format!("the pods were {before:?} and are {now:?}"));
        };
        let message = failed.message.unwrap_or_default();
        if !message.contains(&format!("life-{broken}")) || !message.contains(&failed.from_image) {
            return Err(format!("life-{broken} does not come up, and the status says {message:?}"));
        }
        self.traffic_goes_on()?;
        patch(CLUSTER, &format!(r#"{{"spec": {{"image": "{}"}}}}"#, failed.from_image))?;
        wait_for("the end of the upgrade", LONG, || {
            let now = status()?;
            if now.upgrade.is_none() { Ok(()) } else { Err(brief(&now)) }
        })?;
        wait_until_ready(3)?;
        let now = pods()?;
        if (0..3).any(|ordinal| ordinal != broken && now[ordinal] != before[ordinal]) {
            return Err(format!("all but life-{broken} were to stay: {before:?}, {now:?}"));
        }
        // The operator of before, whose image is the one that runs: the spec need not name it any more.
        Self::install_with(&[])?;
        patch(CLUSTER, r#"{"spec": {"image": null, "upgrade": null}}"#)?;
        wait_until_ready(3)?;
        if pods()? != now {
            return Err(format!("the pods were {now:?} and are {:?}", pods()?));
        }
        self.traffic_goes_on()
    }

    /// Without pods it costs nothing but its volumes, and wakes as it was.
    #[allow(clippy::unused_self, reason = "a step")]
    pub(crate) fn hibernation(&mut self) -> Result<(), String> {
        let put = ["put", "before/the/sleep", "kept"];
        {
            let way_in = WayIn::open(NAMESPACE, "life-0");
            wait_for("a write before the sleep", SOON, || etcdctl(way_in.address, &put, ""))?;
        }
        let (before, volumes) = (status()?, claims()?);
        patch(CLUSTER, r#"{"spec": {"hibernate": true}}"#)?;
        wait_for("the end of its pods", LONG, || no_pods_of(CLUSTER))?;
        wait_for("a status that says that it hibernates", SOON, || {
            let now = status()?;
            if now.phase == Some(Phase::Hibernated) { Ok(()) } else { Err(brief(&now)) }
        })?;
        if claims()? != volumes {
            return Err(format!("the volumes were {volumes} and are {}", claims()?));
        }
        patch(CLUSTER, r#"{"spec": {"hibernate": false}}"#)?;
        wait_until_ready(3)?;
        let now = status()?;
        if ids(&now) != ids(&before) || now.cluster_id != before.cluster_id {
            return Err(format!("the members were {} and are {}", brief(&before), brief(&now)));
        }
        let way_in = WayIn::open(NAMESPACE, "life-0");
        let value = wait_for("the value from before", SOON, || {
            etcdctl(way_in.address, &["get", "before/the/sleep", "--print-value-only"], "")
        })?;
        if value == "kept" { Ok(()) } else { Err(format!("what was acknowledged is {value:?}")) }
    }

    /// A protected cluster is not deleted, and the API server says why.
    #[allow(clippy::unused_self, reason = "a step")]
    pub(crate) fn protection(&mut self) -> Result<(), String> {
        // On somebody's cluster the chart has no rights for a policy: there the resource waits for its finalizer, and would be gone for good.
        if context().is_some() {
            return Ok(());
        }
        patch(CLUSTER, r#"{"spec": {"deletionProtection": true}}"#)?;
        let delete =
            ["delete", "raftcluster", CLUSTER, "--namespace", NAMESPACE, "--wait=false", "--dry-run=server"];
        // The API server takes a policy up a little after it was made.
        wait_for("a refusal that names the field", SOON, || match kubectl(&delete) {
            Ok(_) => Err("it would be deleted".to_owned()),
            Err(error) if error.contains("spec.deletionProtection") => Ok(()),
            Err(error) => Err(error),
        })?;
        patch(CLUSTER, r#"{"spec": {"deletionProtection": false}}"#)?;
        kubectl(&delete).map(drop)
    }
}

/// The pods of the cluster of three.
fn pods() -> Result<Vec<Pod>, String> {
    (0..3).map(|ordinal| pod(NAMESPACE, &format!("life-{ordinal}"))).collect()
}
