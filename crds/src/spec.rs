//! `RaftCluster` and its spec.

use k8s_openapi::api::core::v1::{EnvVar, LocalObjectReference, ResourceRequirements};
use kube::{CustomResource, KubeSchema};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};

use crate::env;
use crate::lifecycle::Disruptions;
use crate::metadata::SharedMetadata;
use crate::network::{ClientService, NetworkAccess};
use crate::node::{Compaction, Log};
use crate::pod::{PodTemplate, brief};
use crate::recovery::Recover;
use crate::replacement::Replacement;
use crate::resources;
use crate::status::RaftClusterStatus;
use crate::storage::Storage;
use crate::tls::Tls;
use crate::upgrade::Upgrade;

/// More voters make writes slower and no more available in practice.
pub const MAX_REPLICAS: i32 = 9;
/// The name of a `StatefulSet`'s revision, `NAME-` and ten characters, is a label of its pods: 63 characters at most.
pub const MAX_NAME_LENGTH: usize = 52;

/// The desired state of a cluster.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[kube(
    group = "quorate.dev",
    version = "v1alpha1",
    kind = "RaftCluster",
    plural = "raftclusters",
    shortname = "raft",
    category = "quorate",
    namespaced,
    cel,
    derive = "PartialEq",
    status = "RaftClusterStatus",
    doc = "A replicated, strongly consistent key-value store that speaks the etcd v3 API.",
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    printcolumn(
        name = "Quorate",
        type_ = "string",
        description = "Whether a leader with a quorum is known",
        json_path = ".status.conditions[?(@.type==\"Quorate\")].status"
    ),
    printcolumn(
        name = "Voters",
        type_ = "string",
        description = "Voters in good health, of the voters that there should be",
        json_path = ".status.voters"
    ),
    printcolumn(name = "Leader", type_ = "string", description = "The pod that leads", json_path = ".status.leader"),
    printcolumn(name = "Term", type_ = "integer", description = "The term that it leads in", json_path = ".status.term"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Version", type_ = "string", json_path = ".status.version"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Plan",
        type_ = "string",
        description = "What is done next",
        json_path = ".status.plan.step",
        priority = 1
    ),
    validation = Rule::new("size(self.metadata.name) <= 52").message(
        "metadata.name is too long: at most 52 characters, so that the names made from it are valid. Choose a shorter name"
    ),
    validation = Rule::new("self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')").message(
        "metadata.name becomes a DNS label: use lower-case letters, digits and '-', begin with a letter, and use no dots"
    ),
    validation = Rule::new(
        "!has(self.spec.recover) || (has(oldSelf.spec.recover) && oldSelf.spec.recover == self.spec.recover) || (has(self.status) && has(self.status.clusterID) && self.status.clusterID == self.spec.recover.cluster)"
    ).message(
        "recover.cluster is not this cluster's ID: write the one in status.clusterID, or use kubectl raft recover"
    ),
    validation = Rule::new(
        "!has(self.status) || !has(self.status.recovery) || (has(oldSelf.status) && has(oldSelf.status.recovery) && oldSelf.status.recovery == self.status.recovery) || (has(self.spec.recover) && self.spec.recover.cluster == self.status.recovery.from && self.spec.recover.member == self.status.recovery.member)"
    ).message("status.recovery begins only with what spec.recover asks for"),
    validation = Rule::new(
        "!isQuantity(self.spec.storage.size) || !isQuantity(oldSelf.spec.storage.size) \
         || quantity(self.spec.storage.size).compareTo(quantity(oldSelf.spec.storage.size)) >= 0 \
         || (has(self.status) && has(self.status.storage) && isQuantity(self.status.storage.size) \
         && quantity(self.spec.storage.size).compareTo(quantity(self.status.storage.size)) >= 0)"
    ).message(
        "storage.size cannot shrink: volumes only grow. Keep the size, or write what status.storage.size says the volumes have"
    )
)]
pub struct RaftClusterSpec {
    /// How many voters the cluster has, 1 to 9. An odd number is best: 3 voters survive the loss of one, 5 of two. An even
    /// number works, and survives no more failures than one voter less.
    #[serde(default = "default_replicas")]
    #[x_kube(validation = Rule::new("self >= 1").message(
        "replicas must be at least 1: to stop a cluster and keep its data, set hibernate to true"
    ))]
    #[x_kube(validation = Rule::new("self <= 9").message(
        "replicas must be at most 9: every write waits for a majority, so more voters make it slower, not safer. Use 3 or 5"
    ))]
    pub replicas: i32,

    /// The volume of each member.
    #[serde(default)]
    pub storage: Storage,

    /// The image of the node. When it is left out, a new cluster gets the operator's own default; a living one keeps what it runs until
    /// `upgrade` says otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub image: Option<String>,

    /// When the image is pulled.
    #[serde(default)]
    pub image_pull_policy: ImagePullPolicy,

    /// Secrets to pull the image with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "pull_secrets")]
    pub image_pull_secrets: Vec<LocalObjectReference>,

    /// Processor and memory of each node. Without any, a small request and no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "resources::schema")]
    pub resources: Option<ResourceRequirements>,

    /// The most memory that the state may take, its history included: a quantity such as 2Gi, or none for no limit. When it is reached nothing
    /// more is put until keys are deleted and compacted, and the alarm NOSPACE is disarmed. 60 % of the memory limit, or of the
    /// machine's memory, when it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    #[x_kube(validation = Rule::new("self == 'none' || isQuantity(self)").message(
        "quota is not a quantity: write a number and a unit, for example 2Gi, or none"
    ))]
    #[x_kube(validation = Rule::new(
        "!isQuantity(self) || quantity(self).compareTo(quantity('16Mi')) >= 0"
    ).message("quota is too small: the state needs at least 16Mi; write none for no limit"))]
    pub quota: Option<String>,

    /// How much history is kept: one hour, unless something else is said.
    #[serde(default)]
    pub compaction: Compaction,

    /// What the nodes log.
    #[serde(default)]
    pub log: Log,

    /// More environment variables for the node. Names that begin with `QUORATE_` set those of the node's options that have no field
    /// here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "env::schema")]
    #[x_kube(validation = Rule::new(env::founds_nothing()).message(
        "env must not hold QUORATE_BOOTSTRAP or QUORATE_JOIN: the operator founds the cluster and lets members in"
    ))]
    #[x_kube(validation = Rule::new(env::leaves_the_operators()).message(
        "env must not hold POD_NAME, nor the node's name, directory, addresses, certificates and QUORATE_STOP_DELAY: the operator sets them. Leave them out"
    ))]
    #[x_kube(validation = Rule::new(env::leaves_fields()).message(
        "env must not hold what has a field: write spec.quota, spec.compaction and spec.log, instead of QUORATE_QUOTA_BYTES, QUORATE_AUTO_COMPACTION_MODE, QUORATE_AUTO_COMPACTION_RETENTION, QUORATE_LOG and QUORATE_LOG_FORMAT"
    ))]
    pub env: Vec<EnvVar>,

    /// What is added to the pods of the members.
    #[serde(default)]
    pub pod_template: PodTemplate,

    /// Who may go to which port of the nodes.
    #[serde(default)]
    pub network_policy: NetworkAccess,

    /// The Service for clients.
    #[serde(default)]
    pub service: ClientService,

    /// TLS between clients and the store.
    #[serde(default)]
    pub tls: Tls,

    /// Labels and annotations of the objects that the operator makes. Those of the pods are in `podTemplate`.
    #[serde(default)]
    pub metadata: SharedMetadata,

    /// The users that pods run as: Image (65532, that of the image), or Platform, where an admission plugin chooses one from the namespace's range,
    /// as OpenShift's does. podTemplate.spec.securityContext sets others.
    #[serde(default)]
    pub users: PodUsers,

    /// What becomes of the volumes when the cluster is deleted: Retain, or Delete. A cluster of the same name that is
    /// created later takes retained volumes up again.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,

    /// While true, the operator changes no members and ends no pods. It goes on with what keeps the cluster safe: the budget for
    /// disruptions, the certificates, and the status.
    #[serde(default)]
    pub paused: bool,

    /// Whether drains and rollouts may take the pods of a cluster of one voter or two, whose quorum goes with each: Protect, or
    /// Allow. With three voters or more no pod goes that the quorum needs, whatever stands here.
    #[serde(default)]
    pub disruptions: Disruptions,

    /// Which members the operator replaces by itself, and when.
    #[serde(default)]
    pub replacement: Replacement,

    /// Gives up a cluster that has lost its quorum for good, and makes a new one of what one member holds. It holds for the cluster whose ID it
    /// names, once, and cannot be taken back when it was begun. `kubectl raft recover` shows what may be lost, and writes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recover: Option<Recover>,

    /// While true, the cluster has no pods; its volumes, members, addresses and certificates stay. Set it to false to wake it as it was.
    #[serde(default)]
    pub hibernate: bool,

    /// While true, the cluster cannot be deleted: the API server refuses it where the chart's admission policy is installed, and where that
    /// is not, the cluster runs on although its resource is being deleted, until this is false. Nothing protects it from the deletion of
    /// its namespace.
    #[serde(default)]
    pub deletion_protection: bool,

    /// When the cluster takes up another version of Quorate.
    #[serde(default)]
    pub upgrade: Upgrade,
}

/// When the image is pulled.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ImagePullPolicy {
    /// Before every start.
    Always,
    /// When the machine does not have it.
    #[default]
    IfNotPresent,
    /// Never: the machine has it.
    Never,
}

impl ImagePullPolicy {
    /// The word that Kubernetes uses.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Always => "Always",
            Self::IfNotPresent => "IfNotPresent",
            Self::Never => "Never",
        }
    }
}

/// The users that pods run as.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PodUsers {
    /// That of the image, 65532.
    #[default]
    Image,
    /// One that the platform chooses.
    Platform,
}

/// What becomes of the volumes when the cluster is deleted.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeletionPolicy {
    /// The volumes stay, and so does the data.
    #[default]
    Retain,
    /// The volumes are deleted with the cluster.
    Delete,
}

fn default_replicas() -> i32 {
    3
}

impl Default for RaftClusterSpec {
    fn default() -> Self {
        Self {
            replicas: default_replicas(),
            storage: Storage::default(),
            image: None,
            image_pull_policy: ImagePullPolicy::default(),
            image_pull_secrets: Vec::new(),
            resources: None,
            quota: None,
            compaction: Compaction::default(),
            log: Log::default(),
            env: Vec::new(),
            pod_template: PodTemplate::default(),
            users: PodUsers::default(),
            network_policy: NetworkAccess::default(),
            service: ClientService::default(),
            tls: Tls::default(),
            metadata: SharedMetadata::default(),
            deletion_policy: DeletionPolicy::default(),
            paused: false,
            disruptions: Disruptions::default(),
            replacement: Replacement::default(),
            recover: None,
            hibernate: false,
            deletion_protection: false,
            upgrade: Upgrade::default(),
        }
    }
}

fn pull_secrets(generator: &mut SchemaGenerator) -> Schema {
    brief::<Vec<LocalObjectReference>>(generator, "Secrets to pull the image with.")
}
