//! The Secrets of a cluster: what they are called, and what is in them.

use std::collections::BTreeMap;
use std::fmt::Debug;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use quorate_crds::RaftCluster;

use super::held::{Circle, Held};
use super::x509::{self, Pair};
use crate::resources::{CLIENT_PORT, client_service};

/// The authorities that are trusted.
pub(super) const CA: &str = "ca.crt";
/// The certificate.
pub(super) const CERTIFICATE: &str = "tls.crt";
/// Its key.
pub(super) const KEY: &str = "tls.key";
/// The operator's own certificate and its key, beside the authorities.
pub(super) const ADMIN: (&str, &str) = ("admin.crt", "admin.key");
/// On the Secret of the client port: whose copy it is.
pub(super) const COPIED_FROM: &str = "quorate.dev/copied-from";
/// The type of the connection's Secret, as the Service Binding specification has it.
pub(super) const BINDING_TYPE: &str = "servicebinding.io/etcd";

/// The Secrets of a cluster that exist.
#[derive(Clone, Default)]
pub struct Secrets {
    /// The authorities and the operator's certificate, in the operator's namespace.
    pub vault: Option<Secret>,
    /// What the nodes show one another.
    pub peers: Option<Secret>,
    /// What the nodes show to clients.
    pub clients: Option<Secret>,
    /// What the spec names for the client port.
    pub given: Option<Secret>,
    /// What applications read.
    pub connection: Option<Secret>,
}

// What they hold stays out of logs.
impl Debug for Secrets {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Secrets").finish_non_exhaustive()
    }
}

impl Secrets {
    /// What is published for a circle.
    pub fn published(&self, circle: Circle) -> Option<&Secret> {
        match circle {
            Circle::Peers => self.peers.as_ref(),
            Circle::Clients => self.clients.as_ref(),
        }
    }

    pub(super) fn set_published(&mut self, circle: Circle, secret: Secret) {
        match circle {
            Circle::Peers => self.peers = Some(secret),
            Circle::Clients => self.clients = Some(secret),
        }
    }

    /// Whether pods can start by what is there.
    pub fn has_what_pods_mount(&self, cluster: &RaftCluster) -> bool {
        self.peers.is_some() && (self.clients.is_some() || cluster.spec.tls.client.is_none())
    }

    /// Those that go with the cluster, with their names.
    pub fn owned(&self) -> impl Iterator<Item = &Secret> {
        [&self.peers, &self.clients, &self.connection].into_iter().flatten()
    }

    /// How the operator speaks to the nodes at a time (seconds since 1970): with its own certificate while the nodes trust its authority, else with
    /// theirs, which is good for the same. It trusts what is published and what it keeps.
    pub fn identity(&self, now: i64) -> Option<Identity> {
        let held = self.vault.as_ref().and_then(|vault| Held::read(vault, Circle::Peers));
        let kept = held.map(|held| x509::split(held.bundle().as_bytes())).unwrap_or_default();
        let trusted = match &self.peers {
            Some(peers) => x509::split(field(peers, CA).unwrap_or_default()),
            None => kept.clone(),
        };
        let own = self.vault.as_ref().and_then(|vault| pair(vault, ADMIN)).filter(|own| {
            let Some(leaf) = x509::first(&own.certificate) else { return false };
            let signs = |one: &String| x509::first(one.as_bytes()).is_some_and(|one| leaf.is_signed_by(&one));
            leaf.not_after > now && trusted.iter().any(signs)
        });
        let theirs = self.peers.as_ref().and_then(|peers| pair(peers, (CERTIFICATE, KEY)));
        let mut all = trusted;
        all.extend(kept);
        let mut seen = std::collections::BTreeSet::new();
        all.retain(|one| seen.insert(one.clone()));
        Some(Identity { ca: all.concat().into_bytes(), ..own.or(theirs)? })
    }
}

/// A certificate with its key, and the authorities that both sides trust. PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Identity {
    /// The authorities.
    pub ca: Vec<u8>,
    /// The certificate.
    pub certificate: Vec<u8>,
    /// Its key.
    pub key: Vec<u8>,
}

// The key stays out of logs.
impl Debug for Identity {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Identity").finish_non_exhaustive()
    }
}

fn pair(secret: &Secret, (certificate, key): (&str, &str)) -> Option<Identity> {
    let read = |key| field(secret, key).map(<[u8]>::to_vec);
    Some(Identity { ca: Vec::new(), certificate: read(certificate)?, key: read(key)? })
}

/// The operator's Secret for a cluster, in the operator's namespace. Neither name holds a dot.
pub fn vault_name(namespace: &str, cluster: &str) -> String {
    format!("{namespace}.{cluster}.authorities")
}

/// The Secret that the pods mount.
pub fn published_name(circle: Circle, cluster: &str) -> String {
    match circle {
        Circle::Peers => format!("{cluster}-peer-tls"),
        Circle::Clients => format!("{cluster}-client-tls"),
    }
}

/// What a key of a Secret holds, unless that is nothing.
pub(super) fn field<'a>(secret: &'a Secret, key: &str) -> Option<&'a [u8]> {
    let found = secret.data.as_ref().and_then(|data| data.get(key)).map(|bytes| bytes.0.as_slice());
    found.filter(|bytes| !bytes.is_empty())
}

/// What applications read: the keys of the Service Binding specification, and those of TLS Secrets.
pub(super) fn connection(
    cluster: &RaftCluster,
    domain: &str,
    trusts: Option<Vec<u8>>,
    shows: Option<Pair>,
) -> BTreeMap<String, ByteString> {
    let name = cluster.name_any();
    let host = format!("{}.{}.svc.{domain}", client_service(&name), cluster.namespace().unwrap_or_default());
    let scheme = if cluster.spec.tls.client.is_some() { "https" } else { "http" };
    let words = [
        ("type", "etcd".to_owned()),
        ("provider", "quorate".to_owned()),
        ("uri", format!("{scheme}://{host}:{CLIENT_PORT}")),
        ("host", host),
        ("port", CLIENT_PORT.to_string()),
    ];
    let mut data: BTreeMap<&str, Vec<u8>> =
        words.into_iter().map(|(key, text)| (key, text.into_bytes())).collect();
    data.extend(trusts.map(|trusts| (CA, trusts)));
    if let Some(Pair { certificate, key }) = shows {
        let (certificate, key) = (certificate.into_bytes(), key.into_bytes());
        data.extend([("certificates", certificate.clone()), ("private-key", key.clone())]);
        data.extend([(CERTIFICATE, certificate), (KEY, key)]);
    }
    data.into_iter().map(|(key, value)| (key.to_owned(), ByteString(value))).collect()
}
