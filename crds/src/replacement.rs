//! `spec.replacement`: which members the operator replaces by itself, and when.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::trouble::Cause;

/// For how long a cause that is not automatic has to last when nothing is said: longer than a machine takes to start anew.
const DEFAULT_PATIENCE: &str = "30m";

/// Which members are replaced by a new one with an empty volume, and when. One at a time, and only while the others hold the quorum without it.
/// The old volume is kept (its reclaim policy is set to Retain first), and named in an event.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Replacement {
    /// Causes for which a member is replaced without more ado: its data cannot be had any more. A volume whose object is missing is waited for
    /// five minutes, and a Kubernetes node that is gone for one.
    #[serde(default = "default_automatic")]
    #[schemars(length(max = 5))]
    pub automatic: Vec<ReplaceableCause>,

    /// For how long any other of these causes has to last before the member is replaced, such as 30m or 12h; Never leaves it to people.
    #[serde(default = "default_patience")]
    #[schemars(length(min = 1, max = 32))]
    #[x_kube(validation = Rule::new("self == 'Never' || self.matches('^([0-9]{1,6}(h|m|s))+$')").message(
        "replacement.patience is no time: write one such as 30m, 12h or 1h30m, or Never"
    ))]
    pub patience: String,
}

/// A cause for which a member can be replaced: its volume is of no use where it is.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ReplaceableCause {
    /// Its volume can be used on one Kubernetes node alone, which does not exist any more.
    VolumeOnGoneNode,
    /// The object of its volume is missing.
    VolumeMissing,
    /// Its volume can be used on one Kubernetes node alone, which is not ready.
    VolumeOnAwayNode,
    /// The data on its volume is damaged.
    Damaged,
    /// Its disk fails.
    DiskFailed,
}

impl ReplaceableCause {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::VolumeOnGoneNode,
        Self::VolumeMissing,
        Self::VolumeOnAwayNode,
        Self::Damaged,
        Self::DiskFailed,
    ];

    /// The cause as `status.troubles` names it.
    pub fn cause(self) -> Cause {
        match self {
            Self::VolumeOnGoneNode => Cause::VolumeOnGoneNode,
            Self::VolumeMissing => Cause::VolumeMissing,
            Self::VolumeOnAwayNode => Cause::VolumeOnAwayNode,
            Self::Damaged => Cause::Damaged,
            Self::DiskFailed => Cause::DiskFailed,
        }
    }

    /// The cause of that name, if a member can be replaced for it.
    pub fn of(cause: Cause) -> Option<Self> {
        Self::ALL.into_iter().find(|replaceable| replaceable.cause() == cause)
    }
}

fn default_automatic() -> Vec<ReplaceableCause> {
    vec![ReplaceableCause::VolumeOnGoneNode, ReplaceableCause::VolumeMissing]
}

fn default_patience() -> String {
    DEFAULT_PATIENCE.to_owned()
}

impl Default for Replacement {
    fn default() -> Self {
        Self { automatic: default_automatic(), patience: default_patience() }
    }
}
