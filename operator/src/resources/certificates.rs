//! The certificates of a cluster: its own CA, a certificate that all its nodes share, and one for the operator.
//!
//! The CA's key stands in a Secret that no pod mounts. Node and admin certificates are made anew when two thirds of their
//! time have passed, or when their names have changed; the CA stays, so old and new certificates trust each other.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use quorate_crds::RaftCluster;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};

use super::{metadata, peers_service};

const DAY: Duration = Duration::from_hours(24);
const CA_LIFE: Duration = Duration::from_secs(20 * 365 * DAY.as_secs());
const LEAF_LIFE: Duration = Duration::from_secs(365 * DAY.as_secs());
/// A certificate is made anew when less than this is left.
const RENEW_WITHIN: Duration = Duration::from_secs(LEAF_LIFE.as_secs() / 3);
/// Clocks differ a little between machines.
const CLOCK_SKEW: Duration = Duration::from_hours(1);

const CA_CERTIFICATE: &str = "ca.crt";
const CERTIFICATE: &str = "tls.crt";
const KEY: &str = "tls.key";

/// A certificate cannot be made or read.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// The library refused.
    #[error("cannot make a certificate: {0}")]
    Make(#[from] rcgen::Error),
    /// A Secret does not hold what it should.
    #[error(
        "secret {secret} has no valid {key}: delete the secret, and restart all pods of the cluster at once if it is its CA"
    )]
    Secret {
        /// Its name.
        secret: String,
        /// What is missing or wrong.
        key: &'static str,
    },
}

/// Who a certificate is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The nodes: they are servers and clients of one another.
    Nodes,
    /// The operator and `raftctl`: clients only.
    Admin,
}

/// A certificate with its key, and the CA that both sides trust. PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Identity {
    /// The CA's certificate.
    pub ca: Vec<u8>,
    /// The certificate.
    pub certificate: Vec<u8>,
    /// Its key.
    pub key: Vec<u8>,
}

// The key stays out of logs.
impl std::fmt::Debug for Identity {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Identity").finish_non_exhaustive()
    }
}

impl Identity {
    /// Reads it from a Secret.
    pub fn from_secret(secret: &Secret) -> Result<Self, CertificateError> {
        let read = |key| field(secret, key).map(<[u8]>::to_vec);
        Ok(Self { ca: read(CA_CERTIFICATE)?, certificate: read(CERTIFICATE)?, key: read(KEY)? })
    }
}

/// The Secret of the CA. Only the operator reads it.
pub fn ca_secret(cluster: &str) -> String {
    format!("{cluster}-peer-ca")
}

/// The Secret that the pods mount.
pub fn peer_secret(cluster: &str) -> String {
    format!("{cluster}-peer-tls")
}

/// The Secret of the operator's own certificate.
pub fn admin_secret(cluster: &str) -> String {
    format!("{cluster}-admin-tls")
}

/// Makes a new CA.
pub fn new_ca(cluster: &RaftCluster, now: Duration) -> Result<Secret, CertificateError> {
    let key = KeyPair::generate()?;
    let certificate = ca_params(cluster, now).self_signed(&key)?.pem();
    let data = [(CERTIFICATE, certificate), (KEY, key.serialize_pem())];
    Ok(secret(cluster, ca_secret(&cluster.name_any()), "kubernetes.io/tls", data))
}

/// Makes a certificate that the CA has signed.
pub fn new_leaf(
    cluster: &RaftCluster,
    purpose: Purpose,
    ca: &Secret,
    now: Duration,
) -> Result<Secret, CertificateError> {
    let name = cluster.name_any();
    let ca_pem = text(ca, CERTIFICATE)?;
    let broken_key = |_| CertificateError::Secret { secret: ca.name_any(), key: KEY };
    let ca_key = KeyPair::from_pem(text(ca, KEY)?).map_err(broken_key)?;
    // A signature needs the CA's name and key, and these are always the same.
    let issuer = Issuer::new(ca_params(cluster, now), ca_key);
    let key = KeyPair::generate()?;
    let (secret_name, common_name, usages) = match purpose {
        Purpose::Nodes => (
            peer_secret(&name),
            format!("{name} nodes"),
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
        ),
        Purpose::Admin => {
            (admin_secret(&name), format!("{name} admin"), vec![ExtendedKeyUsagePurpose::ClientAuth])
        }
    };
    let mut params = params(&common_name, now, LEAF_LIFE);
    params.subject_alt_names = alternative_names(cluster, purpose)?;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = usages;
    params.use_authority_key_identifier_extension = true;
    let certificate = params.signed_by(&key, &issuer)?.pem();
    let data = [(CA_CERTIFICATE, ca_pem.to_owned()), (CERTIFICATE, certificate), (KEY, key.serialize_pem())];
    Ok(secret(cluster, secret_name, "kubernetes.io/tls", data))
}

/// Whether a certificate may stay: signed by this CA, with the names that it needs, and with time left.
pub fn is_current(
    cluster: &RaftCluster,
    purpose: Purpose,
    leaf: &Secret,
    ca: &Secret,
    now: Duration,
) -> bool {
    let same_ca = matches!((field(leaf, CA_CERTIFICATE), field(ca, CERTIFICATE)), (Ok(trusted), Ok(own)) if trusted == own);
    same_ca && field(leaf, KEY).is_ok() && certificate_serves(cluster, purpose, leaf, now).unwrap_or(false)
}

fn certificate_serves(cluster: &RaftCluster, purpose: Purpose, leaf: &Secret, now: Duration) -> Option<bool> {
    let (_, pem) = x509_parser::pem::parse_x509_pem(field(leaf, CERTIFICATE).ok()?).ok()?;
    let certificate = pem.parse_x509().ok()?;
    let left = certificate.validity().not_after.timestamp() - i64::try_from(now.as_secs()).ok()?;
    let found: Vec<String> = match certificate.subject_alternative_name().ok()? {
        Some(extension) => extension.value.general_names.iter().filter_map(dns_name).collect(),
        None => Vec::new(),
    };
    let needed = dns_names(cluster, purpose);
    Some(left > i64::try_from(RENEW_WITHIN.as_secs()).ok()? && found == needed)
}

fn dns_name(name: &x509_parser::extensions::GeneralName<'_>) -> Option<String> {
    match name {
        x509_parser::extensions::GeneralName::DNSName(name) => Some((*name).to_owned()),
        _ => None,
    }
}

/// The names that nodes are reached by. A wildcard covers every pod, so that scaling needs no new certificate.
fn dns_names(cluster: &RaftCluster, purpose: Purpose) -> Vec<String> {
    if purpose == Purpose::Admin {
        return Vec::new();
    }
    let namespace = cluster.namespace().unwrap_or_default();
    let service = format!("{}.{namespace}.svc", peers_service(&cluster.name_any()));
    let in_cluster = [format!("*.{service}"), service.clone(), format!("*.{service}.cluster.local")];
    in_cluster.into_iter().chain(["localhost".to_owned()]).collect()
}

fn alternative_names(cluster: &RaftCluster, purpose: Purpose) -> Result<Vec<SanType>, CertificateError> {
    let mut names = Vec::new();
    for name in dns_names(cluster, purpose) {
        names.push(SanType::DnsName(name.try_into()?));
    }
    if purpose == Purpose::Nodes {
        names.push(SanType::IpAddress(std::net::Ipv4Addr::LOCALHOST.into()));
    }
    Ok(names)
}

fn ca_params(cluster: &RaftCluster, now: Duration) -> CertificateParams {
    let mut params = params(&format!("{} peer CA", cluster.name_any()), now, CA_LIFE);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn params(common_name: &str, now: Duration, life: Duration) -> CertificateParams {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let mut params = CertificateParams::default();
    params.distinguished_name.remove(DnType::CommonName);
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.distinguished_name.push(DnType::OrganizationName, "quorate.dev");
    params.not_before = epoch + now.saturating_sub(CLOCK_SKEW);
    params.not_after = epoch + now + life;
    params
}

fn secret<const N: usize>(
    cluster: &RaftCluster,
    name: String,
    kind: &str,
    data: [(&str, String); N],
) -> Secret {
    let data: BTreeMap<_, _> =
        data.into_iter().map(|(key, value)| (key.to_owned(), ByteString(value.into_bytes()))).collect();
    Secret {
        metadata: metadata(cluster, name),
        type_: Some(kind.to_owned()),
        data: Some(data),
        ..Secret::default()
    }
}

fn field<'a>(secret: &'a Secret, key: &'static str) -> Result<&'a [u8], CertificateError> {
    let found = secret.data.as_ref().and_then(|data| data.get(key)).map(|bytes| bytes.0.as_slice());
    found
        .filter(|bytes| !bytes.is_empty())
        .ok_or_else(|| CertificateError::Secret { secret: secret.name_any(), key })
}

fn text<'a>(secret: &'a Secret, key: &'static str) -> Result<&'a str, CertificateError> {
    std::str::from_utf8(field(secret, key)?)
        .map_err(|_| CertificateError::Secret { secret: secret.name_any(), key })
}
