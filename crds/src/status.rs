//! `status`: what the operator applied and observed.
//!
//! It holds the term and the leader, and never an index of the log: each write of a status is a write to the API server.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::recovery::{RecoveryStatus, Remains};
use crate::storage::StorageStatus;
use crate::trouble::TroubleStatus;
use crate::upgrade::{LevelStatus, UpgradeStatus};

/// The observed state of a cluster.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(oldSelf.clusterID) || has(self.clusterID)").message(
        "status.clusterID cannot be taken away: the cluster would be founded a second time"
    ),
    validation = Rule::new(
        "!has(oldSelf.bootstrapped) || !oldSelf.bootstrapped || (has(self.bootstrapped) && self.bootstrapped)"
    ).message("status.bootstrapped cannot be taken back: the cluster would be founded a second time"),
    validation = Rule::new(
        "!has(oldSelf.clusterID) || !has(self.clusterID) || self.clusterID == oldSelf.clusterID || (has(oldSelf.recovery) && oldSelf.recovery.from == oldSelf.clusterID && oldSelf.recovery.clusterID == self.clusterID)"
    ).message(
        "status.clusterID cannot be changed but by a recovery: the nodes refuse a volume of another cluster"
    )
)]
pub struct RaftClusterStatus {
    /// The generation of the spec that this status belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// The cluster's ID, in hexadecimal. It is written before any node hears of it, and changes only when a cluster is recovered.
    #[serde(default, rename = "clusterID", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    pub cluster_id: Option<String>,

    /// Whether the cluster has been founded: a node was seen to have done it, or its ID was found on volumes. Nothing is founded a
    /// second time.
    #[serde(default)]
    pub bootstrapped: bool,

    /// The name of the pod that leads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leader: Option<String>,

    /// The term that it leads in; the highest one seen while there is no leader.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub term: Option<i64>,

    /// Voters in good health, of the voters that there should be, such as 3/3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub voters: Option<String>,

    /// The members of the newest configuration, by ordinal.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["id".to_owned()]))]
    pub members: Vec<MemberStatus>,

    /// Where the cluster stands, in a word. The conditions say more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,

    /// The version that all members run, or the lowest one while they differ.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,

    /// The image that the nodes run, or are to run in an upgrade. It stays when the operator is upgraded. One that `spec.image` names stands here
    /// when all nodes run it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,

    /// The upgrade to the operator's version. Absent when the cluster has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upgrade: Option<UpgradeStatus>,

    /// The volumes of the members.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage: Option<StorageStatus>,

    /// The level of the data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<LevelStatus>,

    /// What is done next, why, and what it waits for. Absent when there is nothing to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<PlanStatus>,

    /// The pods that do not serve, each with its cause. Empty when all is well.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["pod".to_owned()]))]
    pub troubles: Vec<TroubleStatus>,

    /// What each member holds, while the cluster has no quorum.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["pod".to_owned()]))]
    pub remains: Vec<Remains>,

    /// The recovery of a lost quorum that was begun last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovery: Option<RecoveryStatus>,

    /// The pods that exist, for the scale subresource.
    #[serde(default)]
    pub replicas: i32,

    /// The selector of the pods, for the scale subresource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,

    /// The Secret that says how the cluster is reached: address, authority and certificate, as the Service Binding specification has them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub binding: Option<Binding>,

    /// Ready, Quorate, Progressing, Degraded, Troubled, `SpecAccepted`, Reconciled, Paused and `CertificatesCurrent`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".to_owned()]))]
    pub conditions: Vec<Condition>,
}

/// A Secret of the cluster's namespace.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// Its name.
    pub name: String,
}

/// One member of the cluster.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct MemberStatus {
    /// The ordinal of its pod.
    pub ordinal: i32,
    /// Its ID, in hexadecimal. It lives on the volume, not with the pod.
    pub id: String,
    /// What it is in the newest configuration.
    pub role: MemberRole,
    /// The pod that it runs in.
    pub pod: String,
    /// Whether the leader hears of it, and it has caught up. False while no leader is known.
    pub healthy: bool,
    /// The volume that it was last seen to be well on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume: Option<String>,
}

/// What a member is in the newest configuration.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberRole {
    /// A voter that leads.
    Leader,
    /// A voter.
    Voter,
    /// It receives the log and does not vote.
    Learner,
    /// A voter that leaves with the joint configuration.
    Leaving,
}

/// Where a cluster stands, in a word.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Its first node is coming up, and no quorum has ever been.
    Bootstrapping,
    /// Members are added, removed or replaced.
    Changing,
    /// Pods are replaced one by one, to run what the spec says.
    Updating,
    /// As the spec wants it.
    Ready,
    /// There is a quorum, and something is wrong.
    Degraded,
    /// There is no quorum.
    Unavailable,
    /// The operator changes nothing, because the spec says so.
    Paused,
    /// It has no pods, because the spec says so.
    Hibernated,
    /// It is being deleted.
    Deleting,
}

/// What is done next.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct PlanStatus {
    /// The step, such as `AddLearners`.
    pub step: String,
    /// Why it is done, or refused.
    pub reason: String,
    /// What it waits for. Absent when it has just been done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting_for: Option<String>,
}
