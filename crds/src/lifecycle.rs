//! What may happen to a cluster in the course of its life: disruptions, replacement, upgrades.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How long a member may be away before another one takes its place, when the spec says nothing.
pub const DEFAULT_REPLACE_AFTER: &str = "30m";
/// How long an upgrade can be taken back, when the spec says nothing.
pub const DEFAULT_FINALIZE_AFTER: &str = "24h";

/// Whether pods may go where the quorum goes with them.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Disruptions {
    /// No pod goes by a drain or a rollout if the quorum would go with it.
    #[default]
    Protect,
    /// A cluster of one voter or two may be drained and rolled: its clients wait until the pod is back. With three voters or
    /// more it changes nothing.
    Allow,
}

/// When a member that does not come back is replaced by a new one with an empty volume.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Replacement {
    /// How long a member may be away, such as 30m, before a new one takes its place; or never. Where the Kubernetes node that holds
    /// its volume has been deleted, nobody waits. It is done only while the others hold the quorum without it.
    #[serde(default = "replace_after")]
    #[schemars(length(max = 32))]
    #[x_kube(validation = Rule::new("self == 'never' || self.matches('^([0-9]{1,6}[hms])+$')").message(
        "replacement.after must be a time such as 30m or 1h30m, or never"
    ))]
    pub after: String,
}

/// When the cluster moves to another version of Quorate.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Upgrade {
    /// Whether an upgrade of the operator upgrades the nodes: Automatic, or Manual. It counts where spec.image is left out.
    #[serde(default)]
    pub mode: UpgradeMode,
    /// How long the nodes run a new version before the cluster begins to use what older ones cannot read, such as 24h; or never. Until
    /// then the upgrade can be taken back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    #[x_kube(validation = Rule::new("self == 'never' || self.matches('^([0-9]{1,6}[hms])+$')").message(
        "upgrade.finalizeAfter must be a time such as 24h or 0s, or never"
    ))]
    pub finalize_after: Option<String>,
}

/// Whether an upgrade of the operator upgrades the nodes.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UpgradeMode {
    /// The nodes get the version of the operator, cluster by cluster.
    #[default]
    Automatic,
    /// The nodes keep the image that they run.
    Manual,
}

fn replace_after() -> String {
    DEFAULT_REPLACE_AFTER.to_owned()
}

impl Default for Replacement {
    fn default() -> Self {
        Self { after: replace_after() }
    }
}
