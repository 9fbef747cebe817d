//! `spec.tls`: TLS between clients and the store.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// TLS of a cluster. Members and the operator speak it among themselves whatever is said here.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Tls {
    /// TLS of the client port; `{}` has the operator make an authority and certificates. Without it clients are served in the clear. A change
    /// replaces the pods one by one: while it lasts, some speak TLS and some do not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<ClientTls>,
}

/// TLS of the client port.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.secretName) || !has(self.names) || size(self.names) == 0").message(
    "tls.client.names are for certificates that the operator makes: leave them out, and have the names put into the certificate of tls.client.secretName"
))]
pub struct ClientTls {
    /// A Secret of the same namespace with the certificate: tls.crt, tls.key, and ca.crt, as cert-manager makes them. The nodes use a copy that the
    /// operator makes of it, so that nothing stops when it goes. Without it the operator makes an authority of the cluster's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub secret_name: Option<String>,

    /// Whether clients have to show a certificate: NotAsked, or Required, of the same authority (ca.crt of the Secret). With the operator's own authority one is in
    /// the Secret of the connection.
    #[serde(default)]
    pub client_certificates: ClientCertificates,

    /// More names for the certificate that the operator makes, DNS names or addresses, such as that of a load balancer. Those of the Services are in
    /// it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 253)))]
    #[x_kube(validation = Rule::new(
        "self.all(name, isIP(name) || name.matches('^([*][.])?[A-Za-z0-9]([-A-Za-z0-9]*[A-Za-z0-9])?([.][A-Za-z0-9]([-A-Za-z0-9]*[A-Za-z0-9])?)*$'))"
    ).message(
        "tls.client.names must hold DNS names, of which the first part may be *, or addresses: write store.example.com or 203.0.113.7, without a port"
    ))]
    pub names: Vec<String>,
}

/// Whether clients have to show a certificate.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientCertificates {
    /// Whoever reaches the port gets in.
    #[default]
    NotAsked,
    /// Who shows none of the authority is turned away.
    Required,
}
