//! The `RaftCluster` resource: its types, its schema and its rules.
//!
//! The schema is what people meet first. Every field of the spec has a default, and every rule is written in CEL with a
//! message that says what to do, so that the API server itself refuses what cannot work: there is no webhook to be down.
//!
//! The CRD in YAML is made from these types by `cargo run -p quorate-crds`; a test checks that the files are current.

// The derive of the schema repeats each struct in a function of its own.
#![allow(unreachable_pub)]
// What stands here on fields is what `kubectl explain` shows: words of Kubernetes without marks around them.
#![allow(clippy::doc_markdown)]

mod env;
mod lifecycle;
mod manifest;
mod metadata;
mod network;
mod node;
mod pod;
mod recovery;
mod replacement;
mod resources;
mod spec;
mod status;
mod storage;
mod tls;
mod trouble;
mod upgrade;

pub use env::is_for_users;
pub use lifecycle::Disruptions;
pub use manifest::{Target, crd, manifests};
pub use metadata::SharedMetadata;
pub use network::{ClientService, NetworkAccess, ServiceType};
pub use node::{Compaction, CompactionMode, Log, LogFormat};
pub use pod::{PodMetadata, PodTemplate};
pub use recovery::{KeptVolume, Recover, RecoveryStatus, Remains};
pub use replacement::{ReplaceableCause, Replacement};
pub use spec::{
    DeletionPolicy, ImagePullPolicy, MAX_NAME_LENGTH, MAX_REPLICAS, PodUsers, RaftCluster, RaftClusterSpec,
};
pub use status::{Binding, MemberRole, MemberStatus, Phase, PlanStatus, RaftClusterStatus};
pub use storage::{AccessMode, DEFAULT_SIZE, MIN_SIZE, ScaleDownPolicy, Storage, StorageStatus};
pub use tls::{ClientCertificates, ClientTls, Tls};
pub use trouble::{Cause, TroubleStatus};
pub use upgrade::{LevelStatus, Upgrade, UpgradeState, UpgradeStatus, UpgradeStrategy};
