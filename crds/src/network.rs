//! `spec.networkPolicy` and `spec.service`: who may reach the nodes, and how.

use std::collections::BTreeMap;

use k8s_openapi::api::networking::v1::NetworkPolicyPeer;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};

use crate::pod::brief;

/// Who may go to which port. The peer port is for the members and the operator, whatever is said here.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct NetworkAccess {
    /// Whether there is a policy. Without one, policies of your own decide, and where there is none everybody gets in.
    #[serde(default = "yes")]
    pub enabled: bool,

    /// Who may go to the client port, as peers of a NetworkPolicy: the pods of the same namespace, when it is left out; nobody, when it is
    /// empty; `namespaceSelector: {}` are all pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "clients")]
    pub clients: Option<Vec<NetworkPolicyPeer>>,

    /// Who may go to the port for health and metrics, as peers of a NetworkPolicy: the pods of the same namespace, when it is left out;
    /// nobody, when it is empty. The kubelet's probes get in always.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "metrics")]
    pub metrics: Option<Vec<NetworkPolicyPeer>>,
}

impl Default for NetworkAccess {
    fn default() -> Self {
        Self { enabled: yes(), clients: None, metrics: None }
    }
}

fn yes() -> bool {
    true
}

fn clients(generator: &mut SchemaGenerator) -> Schema {
    brief::<Vec<NetworkPolicyPeer>>(
        generator,
        "Who may go to the client port, as peers of a NetworkPolicy: the pods of the same namespace, when it is left out; nobody, when it \
         is empty; `namespaceSelector: {}` are all pods.",
    )
}

fn metrics(generator: &mut SchemaGenerator) -> Schema {
    brief::<Vec<NetworkPolicyPeer>>(
        generator,
        "Who may go to the port for health and metrics, as peers of a NetworkPolicy: the pods of the same namespace, when it is left out; \
         nobody, when it is empty. The kubelet's probes get in always.",
    )
}

/// The Service for clients.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ClientService {
    /// How it is reached: inside of the Kubernetes cluster, at a port of each machine, or by a load balancer. When it is left out, a
    /// Service that somebody changes by hand stays as it is.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<ServiceType>,

    /// Annotations of the Service, for a load balancer for example.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// How a Service is reached.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServiceType {
    /// Inside of the Kubernetes cluster.
    ClusterIP,
    /// At a port of every machine.
    NodePort,
    /// By a load balancer of the platform's.
    LoadBalancer,
}

impl ServiceType {
    /// The word that Kubernetes uses.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ClusterIP => "ClusterIP",
            Self::NodePort => "NodePort",
            Self::LoadBalancer => "LoadBalancer",
        }
    }
}
