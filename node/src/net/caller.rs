//! What is known of the other side of a connection, for the services that judge by it.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio_rustls::rustls::pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// The other side of a connection. Every request carries it among its extensions. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// None when the socket was gone before it could be asked.
    address: Option<SocketAddr>,
    names: Option<Vec<String>>,
    is_member: AtomicBool,
}

impl Caller {
    /// The caller at `address`, and the certificate that it has proven to be its own, if the connection is over TLS and it has one.
    pub(crate) fn new(address: Option<SocketAddr>, certificate: Option<&CertificateDer<'_>>) -> Self {
        let names = certificate.map(|certificate| names(certificate));
        let is_member = AtomicBool::new(false);
        Caller { shared: Arc::new(Shared { address, names, is_member }) }
    }

    /// It has shown that it is a member of the cluster, and has its place among those that are kept for members.
    pub(crate) fn is_a_member(&self) {
        self.shared.is_member.store(true, Ordering::Relaxed);
    }

    /// Whether it has.
    pub(crate) fn is_member(&self) -> bool {
        self.shared.is_member.load(Ordering::Relaxed)
    }

    /// The names in its certificate: the subject's common name first, then the alternative names (DNS names, addresses, URIs and
    /// e-mail addresses, as text). None when it has shown no certificate; empty when its certificate names nothing.
    pub(crate) fn names(&self) -> Option<&[String]> {
        self.shared.names.as_deref()
    }
}

impl fmt::Display for Caller {
    /// For logs: where it connects from, and the first name in its certificate.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.shared.address {
            Some(address) => write!(f, "{address}")?,
            None => f.write_str("nowhere")?,
        }
        match self.names().and_then(<[String]>::first) {
            Some(name) => write!(f, " ({name})"),
            None => Ok(()),
        }
    }
}

fn names(certificate: &CertificateDer<'_>) -> Vec<String> {
    // The handshake has read it already: what it took for a certificate is one.
    let Ok((_, certificate)) = X509Certificate::from_der(certificate) else { return Vec::new() };
    let common = certificate.subject().iter_common_name().filter_map(|name| name.as_str().ok());
    let mut names: Vec<String> = common.map(str::to_owned).collect();
    if let Ok(Some(alternative)) = certificate.subject_alternative_name() {
        names.extend(alternative.value.general_names.iter().filter_map(text));
    }
    names
}

fn text(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) | GeneralName::URI(name) | GeneralName::RFC822Name(name) => {
            Some((*name).to_owned())
        }
        GeneralName::IPAddress(bytes) => address(bytes),
        _ => None,
    }
}

fn address(bytes: &[u8]) -> Option<String> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Some(std::net::Ipv4Addr::from(v4).to_string());
    }
    <[u8; 16]>::try_from(bytes).ok().map(|v6| std::net::Ipv6Addr::from(v6).to_string())
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair};

    use super::*;

    #[test]
    fn a_certificates_names_are_read_common_name_first() {
        let names = ["n1.example".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, "member");
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let caller = Caller::new(None, Some(certificate.der()));
        assert_eq!(caller.names().unwrap(), ["member", "n1.example", "127.0.0.1", "::1"]);
        assert_eq!(Caller::new(None, None).names(), None);
    }
}
