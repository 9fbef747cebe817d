//! Certificates for tests, made on the spot.

use std::fs;
use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

/// An authority.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// Where a certificate, its key and its authority are.
#[derive(Debug, Clone)]
pub(crate) struct Files {
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
    pub(crate) ca: PathBuf,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().expect("a key can be made");
        let mut params = CertificateParams::new(Vec::new()).expect("no names are valid names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).expect("a certificate can be made").pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// A certificate for this machine, with the common name `name`, written to `folder`.
    pub(crate) fn issue(&self, folder: &Path, name: &str) -> Files {
        let key = KeyPair::generate().expect("a key can be made");
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let mut params = CertificateParams::new(names).expect("these are names");
        params.distinguished_name.push(DnType::CommonName, name);
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate can be made");
        let write = |kind: &str, pem: String| {
            let path = folder.join(format!("{name}-{kind}.pem"));
            fs::write(&path, pem).expect("the folder takes files");
            path
        };
        Files {
            cert: write("cert", certificate.pem()),
            key: write("key", key.serialize_pem()),
            ca: write("ca", self.pem.clone()),
        }
    }
}

impl Files {
    /// The flags for the `peer` or the `client` port.
    pub(crate) fn flags(&self, port: &str) -> [String; 3] {
        [("cert", &self.cert), ("key", &self.key), ("ca", &self.ca)]
            .map(|(kind, path)| format!("--{port}-{kind}={}", path.display()))
    }
}
