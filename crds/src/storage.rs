//! `spec.storage`: the volume of each member.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a member gets when the spec says nothing.
pub const DEFAULT_SIZE: &str = "10Gi";
/// The least that holds a segment of the log and a spare one.
pub const MIN_SIZE: &str = "128Mi";

/// How a volume may be used.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AccessMode {
    /// By one machine. Every storage class has it.
    #[default]
    ReadWriteOnce,
    /// By one pod: a second process on the same machine is kept out too. For classes of CSI drivers.
    ReadWriteOncePod,
}

impl AccessMode {
    /// The word that Kubernetes uses.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ReadWriteOnce => "ReadWriteOnce",
            Self::ReadWriteOncePod => "ReadWriteOncePod",
        }
    }
}

/// The volume of each member.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new(
        "has(self.className) == has(oldSelf.className) && (!has(self.className) || self.className == oldSelf.className)"
    ).message(
        "storage.className cannot be changed: Kubernetes does not move volumes between classes. Create another cluster with the class that you want"
    )
)]
#[x_kube(validation = Rule::new("self.accessMode == oldSelf.accessMode").message(
    "storage.accessMode cannot be changed: it is fixed when a volume is made. Create another cluster with the mode that you want"
))]
pub struct Storage {
    /// The size of each member's volume, 128Mi or more. It may grow where the storage class allows expansion. It never
    /// shrinks; where the class has refused to grow, it may be taken back to `status.storage.size`.
    #[serde(default = "default_size")]
    #[schemars(length(max = 32))]
    #[x_kube(validation = Rule::new("isQuantity(self)").message(
        "storage.size is not a quantity: write a number and a unit, for example 10Gi"
    ))]
    #[x_kube(validation = Rule::new("!isQuantity(self) || quantity(self).compareTo(quantity('128Mi')) >= 0").message(
        "storage.size is too small: a member needs at least 128Mi for its log"
    ))]
    #[x_kube(validation = Rule::new("!isQuantity(self) || quantity(self).compareTo(quantity('64Ti')) <= 0").message(
        "storage.size is larger than any volume that a member can use: at most 64Ti"
    ))]
    pub size: String,

    /// The storage class of the volumes; the cluster's default class when it is left out. It cannot be changed later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub class_name: Option<String>,

    /// Who may use a member's volume at a time: one machine (ReadWriteOnce), or one pod (ReadWriteOncePod, where the class has it). It cannot be
    /// changed later.
    #[serde(default)]
    pub access_mode: AccessMode,

    /// What becomes of the volume of a member that was scaled away: Delete, or Retain.
    #[serde(default)]
    pub when_scaled: ScaleDownPolicy,
}

/// What becomes of the volume of a member that was scaled away.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ScaleDownPolicy {
    /// The volume is deleted, after the member's removal has been committed. A new member starts empty.
    #[default]
    Delete,
    /// The volume stays. The member comes back with it when the cluster is scaled up again.
    Retain,
}

fn default_size() -> String {
    DEFAULT_SIZE.to_owned()
}

impl Default for Storage {
    fn default() -> Self {
        Self {
            size: default_size(),
            class_name: None,
            access_mode: AccessMode::default(),
            when_scaled: ScaleDownPolicy::default(),
        }
    }
}

/// The volumes of the members.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct StorageStatus {
    /// The size that the largest of them has: `spec.storage.size` can be taken back to it.
    #[schemars(length(max = 32))]
    pub size: String,
}
