//! What stands in a certificate, as far as a node judges by it before a handshake does.

use std::fmt;

use tokio_rustls::rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// What a certificate is shown for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    /// To those that connect.
    Server,
    /// To those that it connects to.
    Client,
}

impl fmt::Display for Use {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Use::Server => "serverAuth",
            Use::Client => "clientAuth",
        })
    }
}

/// The little of a certificate that matters here.
#[derive(Debug)]
pub(super) struct Certificate {
    /// Seconds since 1970.
    pub(super) not_before: i64,
    /// Seconds since 1970.
    pub(super) not_after: i64,
    /// It may sign others.
    pub(super) is_authority: bool,
    server: bool,
    client: bool,
}

impl Certificate {
    /// None when it is no certificate.
    pub(super) fn read(der: &CertificateDer<'_>) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let uses = certificate.extended_key_usage().ok()?;
        // Without the extension all uses are allowed.
        let may = |which: fn(&x509_parser::extensions::ExtendedKeyUsage<'_>) -> bool| {
            uses.as_ref().is_none_or(|uses| uses.value.any || which(uses.value))
        };
        Some(Certificate {
            not_before: certificate.validity().not_before.timestamp(),
            not_after: certificate.validity().not_after.timestamp(),
            is_authority: certificate.is_ca(),
            server: may(|uses| uses.server_auth),
            client: may(|uses| uses.client_auth),
        })
    }

    /// Whether its extended key usages allow this one.
    pub(super) fn may_be(&self, wanted: Use) -> bool {
        match wanted {
            Use::Server => self.server,
            Use::Client => self.client,
        }
    }
}

/// Why a node with this certificate, first of `chain`, would be refused by whoever it shows it to, for each of `uses`. `trusted` are the
/// authorities of this node's own port, which other members trust as well.
pub(super) fn unusable(
    chain: &[CertificateDer<'static>],
    uses: &[Use],
    trusted: &[CertificateDer<'static>],
) -> Option<String> {
    let own = chain.first()?;
    let certificate = Certificate::read(own)?;
    let both = uses.contains(&Use::Server) && uses.contains(&Use::Client);
    if let Some(lacking) = uses.iter().find(|wanted| !certificate.may_be(**wanted)) {
        let why = if both {
            ": a member shows its certificate to those that connect and to those that it connects to, so it needs serverAuth and clientAuth"
        } else {
            ""
        };
        return Some(format!("its extended key usages do not include {lacking}{why}"));
    }
    let is_trusted = || trusted.iter().any(|trusted| trusted == own);
    if both && certificate.is_authority && !is_trusted() {
        return Some("it is the certificate of an authority: give one that the authority has signed, or this very one as the authority too".into());
    }
    None
}
