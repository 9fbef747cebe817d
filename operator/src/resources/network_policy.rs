//! Who may talk to which port of the pods.

use std::collections::BTreeMap;

use k8s_openapi::api::networking::v1::{
    NetworkPolicy, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt;

use super::{Blueprint, CLIENT_PORT, HTTP_PORT, PEER_PORT, metadata, pod_selector};

/// The peer port is for members and the operator. The client port and the port of health and metrics are for whom the spec names, and for the
/// namespace where it names nobody: policies add up, so what this one lets in no other can keep out.
pub(super) fn build(blueprint: Blueprint<'_>) -> NetworkPolicy {
    let cluster = blueprint.cluster;
    let access = &cluster.spec.network_policy;
    let ingress = [
        rule(&[members(blueprint), operator(blueprint)], PEER_PORT),
        rule(access.clients.as_deref().unwrap_or(&[namespace()]), CLIENT_PORT),
        rule(access.metrics.as_deref().unwrap_or(&[namespace()]), HTTP_PORT),
    ];
    NetworkPolicy {
        metadata: metadata(cluster, cluster.name_any()),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(pod_selector(cluster)),
            policy_types: Some(vec!["Ingress".to_owned()]),
            ingress: Some(ingress.into_iter().flatten().collect()),
            egress: None,
        }),
    }
}

/// The pods of the cluster's namespace.
fn namespace() -> NetworkPolicyPeer {
    NetworkPolicyPeer { pod_selector: Some(LabelSelector::default()), ..NetworkPolicyPeer::default() }
}

fn members(blueprint: Blueprint<'_>) -> NetworkPolicyPeer {
    NetworkPolicyPeer { pod_selector: Some(pod_selector(blueprint.cluster)), ..NetworkPolicyPeer::default() }
}

fn operator(blueprint: Blueprint<'_>) -> NetworkPolicyPeer {
    let selector = |key: &str, value: &str| LabelSelector {
        match_labels: Some(BTreeMap::from([(key.to_owned(), value.to_owned())])),
        ..LabelSelector::default()
    };
    NetworkPolicyPeer {
        namespace_selector: Some(selector("kubernetes.io/metadata.name", blueprint.operator_namespace)),
        pod_selector: Some(selector("app.kubernetes.io/name", "quorate-operator")),
        ip_block: None,
    }
}

/// None without peers: to Kubernetes, a rule that names nobody lets everybody in.
fn rule(from: &[NetworkPolicyPeer], port: i32) -> Option<NetworkPolicyIngressRule> {
    let port = NetworkPolicyPort {
        port: Some(IntOrString::Int(port)),
        protocol: Some("TCP".to_owned()),
        end_port: None,
    };
    let rule = NetworkPolicyIngressRule { from: Some(from.to_vec()), ports: Some(vec![port]) };
    (!from.is_empty()).then_some(rule)
}
