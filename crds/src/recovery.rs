//! `spec.recover`, and what the status says of it: the way back from a lost quorum.
//!
//! A request names the ID of the cluster that is given up. So it can be carried out once: as soon as the status has the new ID, it is of no
//! account any more, whoever writes it again.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Asks for a new cluster, made of what one member of a cluster holds that has lost its quorum for good. What the other members have acknowledged
/// without it is lost. `kubectl raft recover` writes it.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Recover {
    /// The ID of the cluster that is given up, as in `status.clusterID`. The request holds for it alone.
    #[schemars(length(max = 16), regex(pattern = "^[0-9a-f]{16}$"))]
    pub cluster: String,
    /// The pod whose member becomes the new cluster.
    #[schemars(length(min = 1, max = 63))]
    pub pod: String,
    /// The ID of that member, in hexadecimal: its volume has to hold it.
    #[schemars(length(max = 16), regex(pattern = "^[0-9a-f]{16}$"))]
    pub member: String,
}

/// A recovery that was begun. It stays in the status when it has ended, for the names of the volumes that were kept.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct RecoveryStatus {
    /// The ID of the cluster that is given up.
    #[schemars(length(max = 16))]
    pub from: String,
    /// The ID of the cluster that takes its place. It is written before anything is changed.
    #[serde(rename = "clusterID")]
    #[schemars(length(max = 16))]
    pub cluster_id: String,
    /// The pod whose member becomes the new cluster.
    #[schemars(length(max = 63))]
    pub pod: String,
    /// The ID of that member in the old cluster.
    #[schemars(length(max = 16))]
    pub member: String,
    /// The volumes of the other members, which are kept aside: their claims go, and they stay.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kept: Vec<KeptVolume>,
}

/// A volume that was kept aside.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct KeptVolume {
    /// The pod that used it.
    pub pod: String,
    /// The name of the `PersistentVolume`.
    pub volume: String,
}

/// What a member holds, told while the cluster has no quorum.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Remains {
    /// The pod.
    pub pod: String,
    /// Its member's ID, in hexadecimal.
    pub member: String,
    /// The term of the last entry of its log. Of two logs the one with the higher last term is newer, and of two with the same the longer one.
    pub last_term: i64,
    /// The last entry of its log.
    pub last_index: i64,
    /// The last entry that it knows to be committed.
    pub commit_index: i64,
    /// The revision of its state.
    pub revision: i64,
    /// The version that it runs, or ran.
    pub version: String,
    /// Whether it answers now. If not, this is what it said last.
    pub answers: bool,
}
