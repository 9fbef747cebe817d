//! The Services of a cluster.

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt;
use quorate_crds::RaftCluster;

use super::{CLIENT_PORT, HTTP_PORT, PEER_PORT, labels, metadata, peers_service};

/// Gives each pod its DNS name, also before it is ready: members find one another in order to become ready.
pub(super) fn peers(cluster: &RaftCluster) -> Service {
    service(cluster, peers_service(&cluster.name_any()), |spec| {
        spec.cluster_ip = Some("None".to_owned());
        spec.publish_not_ready_addresses = Some(true);
        spec.ports =
            Some(vec![port("client", CLIENT_PORT), port("peer", PEER_PORT), port("http", HTTP_PORT)]);
    })
}

/// One address for clients. Any member serves any request.
pub(super) fn client(cluster: &RaftCluster) -> Service {
    service(cluster, format!("{}-client", cluster.name_any()), |spec| {
        spec.ports = Some(vec![port("client", CLIENT_PORT)]);
    })
}

fn service(cluster: &RaftCluster, name: String, fill: impl FnOnce(&mut ServiceSpec)) -> Service {
    let mut spec = ServiceSpec { selector: Some(labels(cluster)), ..ServiceSpec::default() };
    fill(&mut spec);
    Service { metadata: metadata(cluster, name), spec: Some(spec), status: None }
}

fn port(name: &str, number: i32) -> ServicePort {
    ServicePort {
        name: Some(name.to_owned()),
        port: number,
        target_port: Some(IntOrString::String(name.to_owned())),
        protocol: Some("TCP".to_owned()),
        ..ServicePort::default()
    }
}
