//! Certificates: of the listeners, and of the way to other members.
//!
//! Files that change on disk are taken up within [`RELOAD_INTERVAL`], for connections made from then on.

mod certificate;
mod connect;
mod p521;
#[cfg(test)]
mod tests;
mod verify;

use std::error::Error;
use std::fmt::{Display, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use tokio_rustls::rustls::client::WantsClientCert;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ClientConfig, ConfigBuilder, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, rustls};

use self::certificate::Use;
pub(crate) use self::connect::{Dialer, connect};
use self::p521::provider;

/// What is agreed on within TLS.
const HTTP2: &[u8] = b"h2";

/// How often the files are looked at.
pub(crate) const RELOAD_INTERVAL: Duration = Duration::from_secs(10);

/// How long a connection to another member may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// What a connection between members may carry before its receiver has taken it in.
pub(crate) const WINDOW_BYTES: u32 = 8 << 20;

/// How often an idle connection to another member is tried, and how long it may stay silent then.
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(3));

/// Where a listener's certificates are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The chain, PEM.
    pub cert: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
    /// The authority that the other side's certificate must come from, PEM. Without it the other side needs none.
    pub ca: Option<PathBuf>,
}

/// Why certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The file system says no.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// What came of it.
        source: std::io::Error,
    },
    /// A file does not hold what it should.
    #[error("{}: {what}", path.display())]
    Invalid {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
}

/// Certificates as they are now. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Tls {
    files: Arc<TlsFiles>,
    uses: &'static [Use],
    current: Arc<RwLock<Loaded>>,
}

#[derive(Debug)]
struct Loaded {
    pem: Pem,
    trusted: Vec<CertificateDer<'static>>,
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

/// The files' contents.
#[derive(PartialEq, Eq)]
struct Pem {
    cert: Vec<u8>,
    key: Vec<u8>,
    ca: Option<Vec<u8>>,
}

impl std::fmt::Debug for Pem {
    /// A private key is not for a log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pem").finish_non_exhaustive()
    }
}

impl Tls {
    /// Reads and checks the files of a port that others only connect to.
    pub(crate) fn load(files: TlsFiles) -> Result<Self, TlsError> {
        Self::load_for(files, &[Use::Server])
    }

    /// The same, for certificates that are shown on both sides of connections.
    pub(crate) fn load_mutual(files: TlsFiles) -> Result<Self, TlsError> {
        Self::load_for(files, &[Use::Server, Use::Client])
    }

    /// The same, for certificates that are shown only to those that this process connects to.
    pub(crate) fn load_client(files: TlsFiles) -> Result<Self, TlsError> {
        Self::load_for(files, &[Use::Client])
    }

    fn load_for(files: TlsFiles, uses: &'static [Use]) -> Result<Self, TlsError> {
        let loaded = load(&files, uses, read(&files)?)?;
        Ok(Tls { files: Arc::new(files), uses, current: Arc::new(RwLock::new(loaded)) })
    }

    /// Takes connections with the certificates of now.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.current.read().server))
    }

    /// Reads the files again. What cannot be used is left; the old certificates stay.
    pub(crate) fn reload(&self) -> Result<(), TlsError> {
        let pem = read(&self.files)?;
        if pem == self.current.read().pem {
            return Ok(());
        }
        let loaded = load(&self.files, self.uses, pem)?;
        *self.current.write() = loaded;
        tracing::info!(cert = %self.files.cert.display(), "took up new certificates");
        Ok(())
    }

    /// Looks at the files again and again.
    pub(crate) async fn watch(self) {
        let mut failed = false;
        loop {
            tokio::time::sleep(RELOAD_INTERVAL).await;
            let tls = self.clone();
            let result = tokio::task::spawn_blocking(move || tls.reload()).await;
            if let Ok(Err(error)) = &result
                && !failed
            {
                tracing::warn!(%error, "certificates on disk cannot be used; keeping the old ones");
            }
            failed = !matches!(result, Ok(Ok(())));
        }
    }

    /// What connections to others are made with.
    fn client(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.current.read().client)
    }

    /// The authorities that the other side's certificate must come from: the SHA-256 of each, in hexadecimal, in the order of the file.
    pub(crate) fn authorities(&self) -> Vec<String> {
        self.current.read().trusted.iter().map(fingerprint).collect()
    }
}

/// A certificate's SHA-256, as `openssl x509 -fingerprint -sha256` counts it.
fn fingerprint(certificate: &CertificateDer<'static>) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, certificate);
    digest.as_ref().iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The authorities first: files that are exchanged together have a certificate then that is no older than what is trusted. Who sees in the status that
/// the node trusts new authorities relies on that.
fn read(files: &TlsFiles) -> Result<Pem, TlsError> {
    let ca = files.ca.as_deref().map(read_file).transpose()?;
    Ok(Pem { cert: read_file(&files.cert)?, key: read_file(&files.key)?, ca })
}

fn read_file(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|source| TlsError::Read { path: path.to_owned(), source })
}

fn load(files: &TlsFiles, uses: &[Use], pem: Pem) -> Result<Loaded, TlsError> {
    let chain = certificates(&files.cert, &pem.cert)?;
    let trusted = match files.ca.as_ref().zip(pem.ca.as_ref()) {
        None => Vec::new(),
        Some((path, ca)) => certificates(path, ca)?,
    };
    if let Some(why) = certificate::unusable(&chain, uses, &trusted) {
        return Err(invalid(&files.cert, why));
    }
    let key = private_key(&files.key, &pem.key)?;
    let authority = files.ca.as_deref().unwrap_or(&files.cert);
    let unfit = |error| unfit(&files.cert, &files.key, &error);
    let builder = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| invalid(&files.cert, error))?;
    let builder = if files.ca.is_none() {
        builder.with_no_client_auth()
    } else {
        let verifier = verify::of_clients(trusted.clone(), roots(authority, &trusted)?, provider());
        builder.with_client_cert_verifier(verifier.map_err(|error| invalid(authority, error))?)
    };
    let mut server = builder.with_single_cert(chain.clone(), key.clone_key()).map_err(unfit)?;
    server.alpn_protocols = vec![HTTP2.to_vec()];
    let client = trusting(authority, &trusted)?.with_client_auth_cert(chain, key).map_err(unfit)?;
    Ok(Loaded { pem, trusted, server: Arc::new(server), client: speaks_http2(client) })
}

/// What raftctl connects to client ports with: trusts the authorities in `ca`, and shows the certificate with its key, if it has one.
pub(crate) fn client(ca: &Path, own: Option<(&Path, &Path)>) -> Result<Arc<ClientConfig>, TlsError> {
    let trusted = certificates(ca, &read_file(ca)?)?;
    let builder = trusting(ca, &trusted)?;
    let config = match own {
        None => builder.with_no_client_auth(),
        Some((cert, key)) => {
            let chain = certificates(cert, &read_file(cert)?)?;
            let secret = private_key(key, &read_file(key)?)?;
            builder.with_client_auth_cert(chain, secret).map_err(|error| unfit(cert, key, &error))?
        }
    };
    Ok(speaks_http2(config))
}

/// The beginning of what connections to servers with certificates of these authorities are made with.
fn trusting(
    authority: &Path,
    trusted: &[CertificateDer<'static>],
) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, TlsError> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| invalid(authority, error))?;
    if trusted.is_empty() {
        return Ok(builder.with_root_certificates(RootCertStore::empty()));
    }
    let verifier = verify::of_servers(trusted.to_vec(), roots(authority, trusted)?, provider());
    // Nothing is left out: the verifier is rustls' own, and knows one case more.
    let verifier = verifier.map_err(|error| invalid(authority, error))?;
    Ok(builder.dangerous().with_custom_certificate_verifier(verifier))
}

fn speaks_http2(mut config: ClientConfig) -> Arc<ClientConfig> {
    config.alpn_protocols = vec![HTTP2.to_vec()];
    Arc::new(config)
}

fn roots(path: &Path, trusted: &[CertificateDer<'static>]) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for authority in trusted {
        roots.add(authority.clone()).map_err(|error| invalid(path, error))?;
    }
    Ok(roots)
}

fn private_key(path: &Path, pem: &[u8]) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(pem)
        .map_err(|error| invalid(path, format_args!("not a private key: {error}")))
}

fn invalid(path: &Path, what: impl Display) -> TlsError {
    TlsError::Invalid { path: path.to_owned(), what: what.to_string() }
}

fn unfit(cert: &Path, key: &Path, error: &rustls::Error) -> TlsError {
    invalid(cert, format_args!("does not fit {}: {error}", key.display()))
}

fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let invalid = |what: String| TlsError::Invalid { path: path.to_owned(), what };
    match all {
        Ok(chain) if chain.is_empty() => Err(invalid("holds no certificate".into())),
        Ok(chain) => Ok(chain),
        Err(error) => Err(invalid(format!("not a certificate: {error}"))),
    }
}

/// An error with its causes, in one line.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !line.ends_with(&text) {
            line.push_str(": ");
            line.push_str(&text);
        }
        cause = error.source();
    }
    line
}

/// What is wrong with a handshake, for people.
pub(crate) fn explain(error: &rustls::Error) -> String {
    error.to_string()
}
