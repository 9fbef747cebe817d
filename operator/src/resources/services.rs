//! The Services of a cluster.

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt;
use quorate_crds::RaftCluster;

use super::{
    CLIENT_PORT, HTTP_PORT, PEER_PORT, ROLE_LABEL, client_service, has_company, labels, leader_service,
    metadata, peers_service,
};
use crate::roles::LEADER;

/// What is spoken at the ports, for meshes and gateways: HTTP/2 without TLS, TLS, and HTTP.
const CLEAR_CLIENT: (&str, i32, &str) = ("client", CLIENT_PORT, "kubernetes.io/h2c");
const TLS_CLIENT: (&str, i32, &str) = ("client", CLIENT_PORT, "https");
const PEER: (&str, i32, &str) = ("peer", PEER_PORT, "https");
const HTTP: (&str, i32, &str) = ("http", HTTP_PORT, "http");

/// Gives each pod its DNS name, also before it is ready: members find one another in order to become ready.
pub(super) fn peers(cluster: &RaftCluster) -> Service {
    service(cluster, peers_service(&cluster.name_any()), |spec| {
        spec.cluster_ip = Some("None".to_owned());
        spec.publish_not_ready_addresses = Some(true);
        spec.ports = Some([client_port(cluster), PEER, HTTP].map(port).into());
    })
}

/// One address for clients. Any member serves any request.
pub(super) fn client(cluster: &RaftCluster) -> Service {
    let wanted = &cluster.spec.service;
    let mut service = service(cluster, client_service(&cluster.name_any()), |spec| {
        spec.type_ = wanted.kind.map(|kind| kind.as_str().to_owned());
        // A pod is not ready while an application beside its node is not. The store serves all the same: a member that cannot says so, and clients
        // go on to the next.
        spec.publish_not_ready_addresses = has_company(cluster).then_some(true);
        spec.ports = Some(vec![port(client_port(cluster))]);
    });
    if !wanted.annotations.is_empty() {
        service.metadata.annotations.get_or_insert_default().extend(wanted.annotations.clone());
    }
    service
}

/// The address of the member that leads, as its label says: after an election it lags behind for as long as the operator, and the endpoints, take to
/// hear of it. Any member serves any request, so that costs a hop and no answer.
pub(super) fn leader(cluster: &RaftCluster) -> Service {
    service(cluster, leader_service(&cluster.name_any()), |spec| {
        let label = (ROLE_LABEL.to_owned(), LEADER.to_owned());
        spec.selector.get_or_insert_default().extend([label]);
        spec.publish_not_ready_addresses = has_company(cluster).then_some(true);
        spec.ports = Some(vec![port(client_port(cluster))]);
    })
}

fn client_port(cluster: &RaftCluster) -> (&'static str, i32, &'static str) {
    if cluster.spec.tls.client.is_some() { TLS_CLIENT } else { CLEAR_CLIENT }
}

fn service(cluster: &RaftCluster, name: String, fill: impl FnOnce(&mut ServiceSpec)) -> Service {
    let mut spec = ServiceSpec {
        selector: Some(labels(cluster)),
        // Both families where the Kubernetes cluster has both, and the one that there is elsewhere.
        ip_family_policy: Some("PreferDualStack".to_owned()),
        ..ServiceSpec::default()
    };
    fill(&mut spec);
    Service { metadata: metadata(cluster, name), spec: Some(spec), status: None }
}

fn port((name, number, protocol): (&str, i32, &str)) -> ServicePort {
    ServicePort {
        name: Some(name.to_owned()),
        port: number,
        target_port: Some(IntOrString::String(name.to_owned())),
        protocol: Some("TCP".to_owned()),
        app_protocol: Some(protocol.to_owned()),
        ..ServicePort::default()
    }
}
