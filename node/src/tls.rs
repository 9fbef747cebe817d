//! Certificates: of the listeners, and of the way to other members.
//!
//! Files that change on disk are taken up within [`RELOAD_INTERVAL`], for connections made from then on.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, rustls};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

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
    current: Arc<RwLock<Loaded>>,
}

#[derive(Debug)]
struct Loaded {
    pem: Pem,
    server: Arc<ServerConfig>,
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
    /// Reads and checks the files.
    pub(crate) fn load(files: TlsFiles) -> Result<Self, TlsError> {
        let pem = read(&files)?;
        let server = server_config(&files, &pem)?;
        Ok(Tls { files: Arc::new(files), current: Arc::new(RwLock::new(Loaded { pem, server })) })
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
        let server = server_config(&self.files, &pem)?;
        *self.current.write() = Loaded { pem, server };
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

    fn client(&self) -> ClientTlsConfig {
        let loaded = self.current.read();
        let config = ClientTlsConfig::new().identity(Identity::from_pem(&loaded.pem.cert, &loaded.pem.key));
        match &loaded.pem.ca {
            Some(ca) => config.ca_certificate(Certificate::from_pem(ca)),
            None => config,
        }
    }
}

fn read(files: &TlsFiles) -> Result<Pem, TlsError> {
    let file =
        |path: &PathBuf| std::fs::read(path).map_err(|source| TlsError::Read { path: path.clone(), source });
    Ok(Pem { cert: file(&files.cert)?, key: file(&files.key)?, ca: files.ca.as_ref().map(file).transpose()? })
}

fn server_config(files: &TlsFiles, pem: &Pem) -> Result<Arc<ServerConfig>, TlsError> {
    let invalid = |path: &PathBuf, what: String| TlsError::Invalid { path: path.clone(), what };
    let chain = certificates(&files.cert, &pem.cert)?;
    let key = PrivateKeyDer::from_pem_slice(&pem.key)
        .map_err(|error| invalid(&files.key, format!("not a private key: {error}")))?;
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| invalid(&files.cert, error.to_string()))?;
    let builder = match files.ca.as_ref().zip(pem.ca.as_ref()) {
        None => builder.with_no_client_auth(),
        Some((path, ca)) => {
            let mut roots = RootCertStore::empty();
            for authority in certificates(path, ca)? {
                roots.add(authority).map_err(|error| invalid(path, error.to_string()))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                .build()
                .map_err(|error| invalid(path, error.to_string()))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder
        .with_single_cert(chain, key)
        .map_err(|error| invalid(&files.cert, format!("does not fit {}: {error}", files.key.display())))?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
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

/// Connects to the peer ports of other members. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Dialer {
    tls: Option<Tls>,
}

impl Dialer {
    /// With certificates if there are any: both sides show theirs, and the name dialled must be in the other's.
    pub(crate) fn new(tls: Option<Tls>) -> Self {
        Dialer { tls }
    }

    /// Connects to `address` (`host:port`). An error says why in one line.
    pub(crate) async fn dial(&self, address: &str) -> Result<Channel, String> {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let endpoint =
            Endpoint::from_shared(format!("{scheme}://{address}")).map_err(|error| chain(&error))?;
        let (interval, timeout) = KEEP_ALIVE;
        let mut endpoint = endpoint
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(interval)
            .keep_alive_timeout(timeout)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES);
        if let Some(tls) = &self.tls {
            endpoint = endpoint.tls_config(tls.client()).map_err(|error| chain(&error))?;
        }
        endpoint.connect().await.map_err(|error| chain(&error))
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
