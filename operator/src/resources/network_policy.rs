//! Who may talk to which port of the pods.

use std::collections::BTreeMap;

use k8s_openapi::api::networking::v1::{
    NetworkPolicy, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt;

use super::{Blueprint, CLIENT_PORT, HTTP_PORT, PEER_PORT, metadata, pod_selector};

/// The peer port is for members and the operator. The client port and the port of health and metrics are for all: narrow
/// them with a policy of your own, which adds to this one only where this one selects nothing.
pub(super) fn build(blueprint: Blueprint<'_>) -> NetworkPolicy {
    let cluster = blueprint.cluster;
    NetworkPolicy {
        metadata: metadata(cluster, cluster.name_any()),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(pod_selector(cluster)),
            policy_types: Some(vec!["Ingress".to_owned()]),
            ingress: Some(vec![
                rule(Some(vec![members(blueprint), operator(blueprint)]), &[PEER_PORT]),
                rule(None, &[CLIENT_PORT, HTTP_PORT]),
            ]),
            egress: None,
        }),
    }
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

fn rule(from: Option<Vec<NetworkPolicyPeer>>, ports: &[i32]) -> NetworkPolicyIngressRule {
    let port = |number: &i32| NetworkPolicyPort {
        port: Some(IntOrString::Int(*number)),
        protocol: Some("TCP".to_owned()),
        end_port: None,
    };
    NetworkPolicyIngressRule { from, ports: Some(ports.iter().map(port).collect()) }
}
