//! The Secret that an issuer, or a person, has made for the client port. Pure.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use quorate_crds::{ClientCertificates, ClientTls, RaftCluster};

use super::held::Circle;
use super::secrets::{CA, CERTIFICATE, KEY, Secrets, field, published_name};
use super::x509;
use crate::resources::connection_secret;
use crate::validate::Invalid;

/// What is taken over of the Secret; or a reason for programs, and what is wrong and what to do.
pub(super) fn check(
    cluster: &RaftCluster,
    name: &str,
    secret: Option<&Secret>,
    tls: &ClientTls,
    now: i64,
) -> Result<BTreeMap<String, ByteString>, (&'static str, String)> {
    let wrong = |what: &str| {
        Err(("SecretInvalid", format!("the Secret {name}, which spec.tls.client.secretName names, {what}")))
    };
    let cluster = cluster.name_any();
    let own = [
        published_name(Circle::Clients, &cluster),
        published_name(Circle::Peers, &cluster),
        connection_secret(&cluster),
    ];
    if own.iter().any(|own| own == name) {
        return wrong("is one of the operator's: name one of your own");
    }
    let Some(secret) = secret else {
        let what = format!(
            "there is no Secret {name} in the cluster's namespace, which spec.tls.client.secretName names: create it, or have cert-manager do so; or the operator has no right to read it (secretsOf in the chart)"
        );
        return Err(("SecretMissing", what));
    };
    let Some(leaf) = field(secret, CERTIFICATE).and_then(x509::first) else {
        return wrong(
            "has no certificate in tls.crt: put it there, PEM, with those between it and the authority",
        );
    };
    let Some(key) = field(secret, KEY) else {
        return wrong("has no key in tls.key: put it there, PEM");
    };
    if leaf.is_not_of(&String::from_utf8_lossy(key)) {
        return wrong("has another certificate's key in tls.key: put both there together");
    }
    if leaf.not_after <= now {
        return wrong("holds a certificate that has ended: renew it");
    }
    let has_authority = field(secret, CA).is_some_and(|ca| x509::first(ca).is_some());
    if tls.client_certificates == ClientCertificates::Required && !has_authority {
        return wrong(
            "has no authority in ca.crt, and spec.tls.client.clientCertificates is Required: put it there, PEM, or write NotAsked",
        );
    }
    let keys = [CERTIFICATE, KEY, CA];
    let found = keys.into_iter().filter_map(|key| Some((key.to_owned(), field(secret, key)?.to_vec())));
    Ok(found.map(|(key, value)| (key, ByteString(value))).collect())
}

/// Whether there is a certificate for the client port, in use or about to be. A spec that names a Secret that cannot be used changes nothing.
pub fn can_serve_clients(cluster: &RaftCluster, secrets: &Secrets, now: i64) -> Result<(), Invalid> {
    let Some(tls) = &cluster.spec.tls.client else { return Ok(()) };
    let Some(name) = &tls.secret_name else { return Ok(()) };
    let in_use = secrets.clients.as_ref().and_then(|there| field(there, CERTIFICATE)).is_some();
    match check(cluster, name, secrets.given.as_ref(), tls, now) {
        Err((reason, what)) if !in_use => Err(Invalid::ClientSecret { reason, what }),
        _ => Ok(()),
    }
}
