//! `spec.podTemplate`: what users add to the members' pods.
//!
//! The paths are those of a pod template in Kubernetes, so that nothing has to be learned. Only the fields that the
//! operator honours are there: the API server drops none in silence when `kubectl` validates strictly.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Affinity, Toleration, TopologySpreadConstraint};
use kube::KubeSchema;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};

/// What is added to the pods of the members.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct PodTemplate {
    /// Labels and annotations of the pods. Those that the operator sets itself win.
    #[serde(default)]
    pub metadata: PodMetadata,
    /// Where and how the pods run.
    #[serde(default)]
    pub spec: PodSpec,
}

/// Labels and annotations of the pods.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct PodMetadata {
    /// Labels added to the pods.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Annotations added to the pods.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// Where and how the pods run.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct PodSpec {
    /// Labels that a Kubernetes node must have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selector: BTreeMap<String, String>,
    /// Taints that the pods tolerate.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "tolerations")]
    pub tolerations: Vec<Toleration>,
    /// Replaces the operator's own preference for different hosts and zones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "affinity")]
    pub affinity: Option<Affinity>,
    /// How the pods spread over hosts and zones.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "topology_spread_constraints")]
    pub topology_spread_constraints: Vec<TopologySpreadConstraint>,
    /// The priority class of the pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority_class_name: Option<String>,
    /// The service account of the pods. The node itself needs none, and its token is not mounted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_account_name: Option<String>,
    /// How long a pod may take to end, in seconds: 30 or more. A leader hands its leadership over first, and clients go elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 3600))]
    #[x_kube(validation = Rule::new("self >= 30").message(
        "podTemplate.spec.terminationGracePeriodSeconds must be at least 30: a node hands its leadership over, and lets its clients go, before it ends"
    ))]
    pub termination_grace_period_seconds: Option<i64>,
}

fn tolerations(generator: &mut SchemaGenerator) -> Schema {
    brief::<Vec<Toleration>>(generator, "Taints that the pods tolerate.")
}

fn affinity(generator: &mut SchemaGenerator) -> Schema {
    brief::<Affinity>(generator, "Replaces the operator's own preference for different hosts and zones.")
}

fn topology_spread_constraints(generator: &mut SchemaGenerator) -> Schema {
    brief::<Vec<TopologySpreadConstraint>>(generator, "How the pods spread over hosts and zones.")
}

/// The schema of a type of Kubernetes without its long descriptions, which `kubectl explain pod.spec` has already: with
/// them the CRD would be several times its size.
pub(crate) fn brief<T: JsonSchema>(generator: &mut SchemaGenerator, description: &str) -> Schema {
    let mut schema = T::json_schema(generator);
    // References are inlined by the CRD's generator only after this; they are resolved here to be shortened too.
    strip_descriptions(schema.ensure_object());
    schema.insert("description".to_owned(), description.into());
    schema
}

fn strip_descriptions(object: &mut serde_json::Map<String, serde_json::Value>) {
    // A property may itself be called "description": only strings are the schema's own.
    if object.get("description").is_some_and(serde_json::Value::is_string) {
        object.remove("description");
    }
    for value in object.values_mut() {
        strip_in(value);
    }
}

fn strip_in(value: &mut serde_json::Value) {
    match value {
        serde_json::Value::Object(object) => strip_descriptions(object),
        serde_json::Value::Array(items) => items.iter_mut().for_each(strip_in),
        _ => {}
    }
}
