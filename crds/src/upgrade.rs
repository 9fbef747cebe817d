//! `spec.upgrade` and `status.upgrade`: when a living cluster takes up another version of Quorate, and until when that can be taken back.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How long an upgrade can be taken back, when the spec says nothing.
const DEFAULT_FINALIZE_AFTER: &str = "24h";

/// When the cluster takes up another version of Quorate.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Upgrade {
    /// What becomes of the cluster when the operator is upgraded: Manual (it keeps its image and its pods until `approved` names the operator's
    /// version), or Automatic (it is upgraded when its turn comes, among all clusters that the operator looks after).
    #[serde(default)]
    pub strategy: UpgradeStrategy,

    /// The version of the operator, such as 0.2.0, whose image and pods the cluster takes up with strategy Manual. `status.upgrade.to` says
    /// which one is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub approved: Option<String>,

    /// How long all members have to run a new version before the cluster begins to use what older versions cannot read, such as 24h or
    /// 1h30m; or Never. Until then an upgrade can be taken back; afterwards images of older versions are refused.
    #[serde(default = "finalize_after")]
    #[schemars(length(max = 32))]
    #[x_kube(validation = Rule::new("self == 'Never' || self.matches('^([0-9]{1,6}[hms])+$')").message(
        "upgrade.finalizeAfter must be a time such as 24h, 1h30m or 0s, or Never"
    ))]
    pub finalize_after: String,
}

/// What becomes of a cluster when the operator is upgraded.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UpgradeStrategy {
    /// It keeps what it has until somebody approves the operator's version.
    #[default]
    Manual,
    /// It is upgraded when its turn comes.
    Automatic,
}

fn finalize_after() -> String {
    DEFAULT_FINALIZE_AFTER.to_owned()
}

impl Default for Upgrade {
    fn default() -> Self {
        Self { strategy: UpgradeStrategy::default(), approved: None, finalize_after: finalize_after() }
    }
}

/// An upgrade of the cluster to the operator's version. Absent when there is none.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct UpgradeStatus {
    /// Where it stands.
    pub state: UpgradeState,
    /// The operator's version, which the cluster takes up.
    pub to: String,
    /// The image that the cluster ran before: with `spec.image` the upgrade is taken back to it.
    pub from_image: String,
    /// The image that the cluster runs afterwards.
    pub to_image: String,
    /// What it waits for, or why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// Where an upgrade stands.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpgradeState {
    /// It has not begun.
    Available,
    /// Pods are replaced.
    Rolling,
    /// A pod of the new version does not come up. No other pod is replaced, and no other cluster begins.
    Failed,
}

/// The level of the cluster's data: what its members must be able to read.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct LevelStatus {
    /// The level. Versions that do not support it are refused.
    pub current: u32,
    /// Since when all members run a version that supports a higher one. It is raised when `spec.upgrade.finalizeAfter` has passed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raisable_since: Option<Time>,
}
