//! What makes the other side's certificate good: rustls' own judgement, and one case more.
//!
//! `openssl req -x509` makes a certificate that is its own authority. Go's programs, etcd among them, serve with it and trust it; rustls
//! takes no authority's certificate for a server's or a client's. Here it is good when it is, byte for byte, one of those that are trusted:
//! whoever put it there meant this very certificate. Its time, its use and its names are checked as ever, and its owner has to prove the key.

use std::sync::Arc;

use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::client::verify_server_name;
use tokio_rustls::rustls::crypto::CryptoProvider;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use tokio_rustls::rustls::server::{ParsedCertificate, VerifierBuilderError, WebPkiClientVerifier};
use tokio_rustls::rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme,
};

use super::certificate::{Certificate, Use};

/// Judges by the authorities that are trusted.
#[derive(Debug)]
pub(super) struct Verifier<V: ?Sized> {
    rustls: Arc<V>,
    trusted: Vec<CertificateDer<'static>>,
}

/// Judges clients.
pub(super) fn of_clients(
    trusted: Vec<CertificateDer<'static>>,
    roots: RootCertStore,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<Verifier<dyn ClientCertVerifier>>, VerifierBuilderError> {
    let rustls = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build()?;
    Ok(Arc::new(Verifier { rustls, trusted }))
}

/// Judges servers.
pub(super) fn of_servers(
    trusted: Vec<CertificateDer<'static>>,
    roots: RootCertStore,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<Verifier<WebPkiServerVerifier>>, VerifierBuilderError> {
    let rustls = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build()?;
    Ok(Arc::new(Verifier { rustls, trusted }))
}

impl<V: ?Sized> Verifier<V> {
    /// The certificate, if it is one of those that are trusted, and good at `now` for `wanted`. Otherwise `error`, which rustls has found.
    fn itself(
        &self,
        certificate: &CertificateDer<'_>,
        wanted: Use,
        now: UnixTime,
        error: Error,
    ) -> Result<(), Error> {
        if !self.trusted.iter().any(|trusted| trusted.as_ref() == certificate.as_ref()) {
            return Err(error);
        }
        let Some(certificate) = Certificate::read(certificate) else { return Err(error) };
        let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        let wrong = match () {
            () if now < certificate.not_before => CertificateError::NotValidYet,
            () if now > certificate.not_after => CertificateError::Expired,
            () if !certificate.may_be(wanted) => CertificateError::InvalidPurpose,
            () => return Ok(()),
        };
        Err(Error::InvalidCertificate(wrong))
    }
}

impl ClientCertVerifier for Verifier<dyn ClientCertVerifier> {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.rustls.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.rustls.verify_client_cert(end_entity, intermediates, now).or_else(|error| {
            self.itself(end_entity, Use::Client, now, error)?;
            Ok(ClientCertVerified::assertion())
        })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.rustls.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.rustls.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.rustls.supported_verify_schemes()
    }
}

impl ServerCertVerifier for Verifier<WebPkiServerVerifier> {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified =
            self.rustls.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        verified.or_else(|error| {
            self.itself(end_entity, Use::Server, now, error)?;
            verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
            Ok(ServerCertVerified::assertion())
        })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.rustls.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.rustls.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.rustls.supported_verify_schemes()
    }
}
