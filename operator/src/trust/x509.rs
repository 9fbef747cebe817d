//! Certificates as bytes: made, and read.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData, SanType,
};
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::X509Certificate;

/// Clocks differ a little between machines.
const CLOCK_SKEW: Duration = Duration::from_hours(1);
const END: &str = "-----END CERTIFICATE-----";

/// A certificate and its key, PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Pair {
    /// The certificate.
    pub certificate: String,
    /// Its key.
    pub key: String,
}

// The key stays out of logs.
impl std::fmt::Debug for Pair {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Pair").finish_non_exhaustive()
    }
}

/// What a leaf is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Its common name, by which the nodes know whom they let in.
    pub common_name: String,
    /// DNS names and addresses.
    pub names: Vec<String>,
    /// It is shown to those that connect.
    pub server: bool,
    /// It is shown to those that it connects to.
    pub client: bool,
}

/// What is read of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    /// Its SHA-256, in hexadecimal, as nodes tell it.
    pub fingerprint: String,
    /// The subject's common name.
    pub common_name: String,
    /// The alternative names: DNS names and addresses.
    pub names: Vec<String>,
    /// Seconds since 1970.
    pub not_before: i64,
    /// Seconds since 1970.
    pub not_after: i64,
    /// Names its key.
    key_id: Option<Vec<u8>>,
    /// Names the key that has signed it.
    issuer_key_id: Option<Vec<u8>>,
    public_key: Vec<u8>,
    server: bool,
    client: bool,
}

impl Read {
    /// Whether it may be shown to exactly these sides.
    pub fn has_usages(&self, server: bool, client: bool) -> bool {
        (self.server, self.client) == (server, client)
    }

    /// Whether this one was signed with the key of `authority`, as its identifiers say.
    pub fn is_signed_by(&self, authority: &Read) -> bool {
        self.issuer_key_id.is_some() && self.issuer_key_id == authority.key_id
    }

    /// Whether `key` (PEM) is another certificate's. Kinds of keys that are not known here are left to the node.
    pub fn is_not_of(&self, key: &str) -> bool {
        KeyPair::from_pem(key).is_ok_and(|key| key.der_bytes() != self.public_key)
    }

    /// Whether the certificate is good for a host.
    pub fn covers(&self, host: &str) -> bool {
        let wildcard = host.split_once('.').map(|(_, domain)| format!("*.{domain}"));
        self.names.iter().any(|name| name == host || Some(name) == wildcard.as_ref())
    }
}

/// Makes an authority.
pub fn authority(common_name: &str, now: Duration, life: Duration) -> Result<Pair, rcgen::Error> {
    let key = KeyPair::generate()?;
    let mut params = params(common_name, now, now + life);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(Pair { certificate: params.self_signed(&key)?.pem(), key: key.serialize_pem() })
}

/// Makes a leaf that an authority has signed. It does not outlive that.
pub fn leaf(request: &Request, by: &Pair, now: Duration, life: Duration) -> Result<Pair, rcgen::Error> {
    let authority = first(by.certificate.as_bytes()).ok_or(rcgen::Error::CouldNotParseCertificate)?;
    // A signature needs the authority's name and key.
    let issuer = Issuer::new(params(&authority.common_name, now, now + life), KeyPair::from_pem(&by.key)?);
    let end = Duration::from_secs(authority.not_after.try_into().unwrap_or(0)).min(now + life);
    let mut params = params(&request.common_name, now, end);
    for name in &request.names {
        params.subject_alt_names.push(match name.parse::<IpAddr>() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) => SanType::DnsName(name.as_str().try_into()?),
        });
    }
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    let usages = [
        (request.server, ExtendedKeyUsagePurpose::ServerAuth),
        (request.client, ExtendedKeyUsagePurpose::ClientAuth),
    ];
    params.extended_key_usages =
        usages.into_iter().filter(|(wanted, _)| *wanted).map(|(_, usage)| usage).collect();
    params.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, &issuer)?.pem();
    Ok(Pair { certificate, key: key.serialize_pem() })
}

fn params(common_name: &str, now: Duration, end: Duration) -> CertificateParams {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let mut params = CertificateParams::default();
    params.distinguished_name.remove(DnType::CommonName);
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.distinguished_name.push(DnType::OrganizationName, "quorate.dev");
    params.not_before = epoch + now.saturating_sub(CLOCK_SKEW);
    params.not_after = epoch + end;
    params
}

/// The certificates of a PEM file, each as text.
pub fn split(pem: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(pem);
    let blocks = text.split_inclusive(END).map(str::trim).filter(|block| block.ends_with(END));
    blocks.map(|block| format!("{block}\n")).collect()
}

/// Reads the first certificate of a PEM file. None if there is none that can be read.
pub fn first(pem: &[u8]) -> Option<Read> {
    let (_, pem) = x509_parser::pem::parse_x509_pem(pem).ok()?;
    let certificate = pem.parse_x509().ok()?;
    let common_name = certificate.subject().iter_common_name().next();
    let alternative = certificate.subject_alternative_name().ok()?;
    let uses = certificate.extended_key_usage().ok()?;
    Some(Read {
        fingerprint: fingerprint(&pem.contents),
        common_name: common_name.and_then(|name| name.as_str().ok()).unwrap_or_default().to_owned(),
        names: alternative.iter().flat_map(|names| &names.value.general_names).filter_map(name).collect(),
        not_before: certificate.validity().not_before.timestamp(),
        not_after: certificate.validity().not_after.timestamp(),
        key_id: key_ids(&certificate, |extension| match extension {
            ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
            _ => None,
        }),
        issuer_key_id: key_ids(&certificate, |extension| match extension {
            ParsedExtension::AuthorityKeyIdentifier(id) => Some(id.key_identifier.as_ref()?.0.to_vec()),
            _ => None,
        }),
        public_key: certificate.public_key().subject_public_key.data.to_vec(),
        server: uses.as_ref().is_some_and(|uses| uses.value.server_auth),
        client: uses.as_ref().is_some_and(|uses| uses.value.client_auth),
    })
}

fn key_ids(
    certificate: &X509Certificate<'_>,
    of: impl Fn(&ParsedExtension<'_>) -> Option<Vec<u8>>,
) -> Option<Vec<u8>> {
    certificate.extensions().iter().find_map(|extension| of(extension.parsed_extension()))
}

fn name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(*bytes).ok().map(|four| IpAddr::from(four).to_string()),
            _ => <[u8; 16]>::try_from(*bytes).ok().map(|sixteen| IpAddr::from(sixteen).to_string()),
        },
        _ => None,
    }
}

fn fingerprint(der: &[u8]) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, der);
    digest.as_ref().iter().fold(String::new(), |mut text, byte| {
        // A String takes all that is written to it.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
