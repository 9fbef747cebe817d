//! Which names the certificates of a cluster carry, and when one has to be made anew.

use std::time::Duration;

use kube::ResourceExt;
use quorate_crds::{ClientCertificates, ClientTls, RaftCluster};

use super::x509::{Read, Request};
use crate::resources::{client_service, leader_service, peers_service};

/// For how long a leaf is good.
pub const LEAF_LIFE: Duration = Duration::from_hours(365 * 24);
const LOCAL: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// By this name, and no other, a certificate speaks as a member.
pub fn member_name(cluster: &str) -> String {
    format!("{cluster} nodes")
}

/// By this name a certificate may change the cluster.
pub fn admin_name(cluster: &str) -> String {
    format!("{cluster} admin")
}

/// What all nodes show one another. A wildcard covers every pod, so that scaling needs no new certificate.
pub fn nodes(cluster: &RaftCluster, domain: &str) -> Request {
    let mut names = qualified(cluster, &peers_service(&cluster.name_any()), domain, "*.");
    names.extend(qualified(cluster, &peers_service(&cluster.name_any()), domain, ""));
    Request {
        common_name: member_name(&cluster.name_any()),
        names: with_local(names),
        server: true,
        client: true,
    }
}

/// What the operator shows to nodes.
pub fn admin(cluster: &RaftCluster) -> Request {
    Request { common_name: admin_name(&cluster.name_any()), names: Vec::new(), server: false, client: true }
}

/// What all nodes show to clients.
pub fn client_port(cluster: &RaftCluster, tls: &ClientTls, domain: &str) -> Request {
    let name = cluster.name_any();
    let namespace = cluster.namespace().unwrap_or_default();
    let mut names = Vec::new();
    for service in [client_service(&name), leader_service(&name)] {
        names.extend([service.clone(), format!("{service}.{namespace}")]);
        names.extend(qualified(cluster, &service, domain, ""));
    }
    names.extend(qualified(cluster, &peers_service(&name), domain, "*."));
    let mut names = with_local(names);
    for more in &tls.names {
        if !names.contains(more) {
            names.push(more.clone());
        }
    }
    let client = tls.client_certificates == ClientCertificates::Required;
    // raftctl in the pod shows it too.
    Request { common_name: format!("{name} client port"), names, server: true, client }
}

/// What those who read the connection's Secret show to nodes.
pub fn client(cluster: &RaftCluster) -> Request {
    let common_name = format!("{} client", cluster.name_any());
    Request { common_name, names: Vec::new(), server: false, client: true }
}

fn qualified(cluster: &RaftCluster, service: &str, domain: &str, before: &str) -> Vec<String> {
    let host = format!("{before}{service}.{}.svc", cluster.namespace().unwrap_or_default());
    let long = format!("{host}.{domain}");
    vec![host, long]
}

fn with_local(mut names: Vec<String>) -> Vec<String> {
    names.extend(LOCAL.map(str::to_owned));
    names
}

/// Whether a leaf has what is asked for, and more than a third of its time left.
pub fn serves(leaf: &Read, wanted: &Request, now: i64) -> bool {
    let life = leaf.not_after - leaf.not_before;
    leaf.common_name == wanted.common_name
        && leaf.names == wanted.names
        && leaf.has_usages(wanted.server, wanted.client)
        && leaf.not_after - now > life / 3
}
