//! `spec.metadata`: labels and annotations for everything that is made for a cluster.

use std::collections::BTreeMap;

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// Labels and annotations of the Services, policies, Secrets and the StatefulSet of a cluster.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct SharedMetadata {
    /// Labels added to these objects.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    #[x_kube(validation = Rule::new(
        "self.all(key, !key.startsWith('quorate.dev/') && !(key in ['app.kubernetes.io/name', 'app.kubernetes.io/instance', 'app.kubernetes.io/managed-by']))"
    ).message(
        "metadata.labels must not hold app.kubernetes.io/name, instance or managed-by, nor names that begin with quorate.dev/: the operator finds its objects by them. Choose others"
    ))]
    pub labels: BTreeMap<String, String>,
    /// Annotations added to these objects.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}
