//! Handshakes between certificates of every kind.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose as Purpose, IsCa, KeyPair};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

use super::*;

/// A certificate that is its own authority, for `localhost`, with these extended key usages.
fn self_signed(dir: &TempDir, name: &str, purposes: &[Purpose]) -> TlsFiles {
    let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.extended_key_usages = purposes.to_vec();
    let key = KeyPair::generate().unwrap();
    let cert = params.self_signed(&key).unwrap();
    let file = |kind: &str, text: String| -> PathBuf {
        let path = dir.path().join(format!("{name}.{kind}"));
        fs::write(&path, text).unwrap();
        path
    };
    let path = file("cert", cert.pem());
    TlsFiles { cert: path.clone(), key: file("key", key.serialize_pem()), ca: Some(path) }
}

/// Both sides' view of a handshake in which `client` connects to `server` by `name`.
async fn shake(server: &Tls, client: &Tls, name: &'static str) -> Result<(), String> {
    let (near, far) = duplex(1 << 16);
    let acceptor = server.acceptor();
    let accepted = tokio::spawn(async move {
        let mut stream = acceptor.accept(near).await.map_err(|error| error.to_string())?;
        stream.write_all(b"!").await.map_err(|error| error.to_string())
    });
    let connector = TlsConnector::from(Arc::clone(&client.client()));
    let connects = async {
        let mut stream = connector.connect(ServerName::try_from(name).unwrap(), far).await?;
        stream.read_u8().await
    };
    let connected = connects.await.map(drop).map_err(|error| error.to_string());
    connected.and(accepted.await.unwrap())
}

#[tokio::test]
async fn a_certificate_that_is_its_own_authority_is_good_on_both_sides() {
    let dir = tempfile::tempdir().unwrap();
    let tls = Tls::load_mutual(self_signed(&dir, "one", &[])).unwrap();
    shake(&tls, &tls, "localhost").await.unwrap();
    let wrong = shake(&tls, &tls, "elsewhere").await.unwrap_err();
    assert!(wrong.to_lowercase().contains("name"), "{wrong}");
    let other = Tls::load_mutual(self_signed(&dir, "two", &[])).unwrap();
    shake(&tls, &other, "localhost").await.unwrap_err();
    shake(&other, &tls, "localhost").await.unwrap_err();
}

#[test]
fn a_members_certificate_needs_both_uses() {
    let dir = tempfile::tempdir().unwrap();
    for (purpose, lacking) in [(Purpose::ServerAuth, "clientAuth"), (Purpose::ClientAuth, "serverAuth")] {
        let files = self_signed(&dir, lacking, &[purpose]);
        let said = Tls::load_mutual(files).unwrap_err().to_string();
        assert!(said.contains(&format!("do not include {lacking}")), "{said}");
    }
    let both = self_signed(&dir, "both", &[Purpose::ServerAuth, Purpose::ClientAuth]);
    Tls::load_mutual(both.clone()).unwrap();
    Tls::load(self_signed(&dir, "server", &[Purpose::ServerAuth])).unwrap();
    Tls::load(self_signed(&dir, "client", &[Purpose::ClientAuth])).unwrap_err();
    Tls::load_client(self_signed(&dir, "client", &[Purpose::ClientAuth])).unwrap();
}

#[test]
fn an_authoritys_certificate_is_no_members_unless_it_is_trusted_itself() {
    let dir = tempfile::tempdir().unwrap();
    let files = self_signed(&dir, "one", &[]);
    let other = self_signed(&dir, "two", &[]);
    let said = Tls::load_mutual(TlsFiles { ca: other.ca, ..files }).unwrap_err().to_string();
    assert!(said.contains("certificate of an authority"), "{said}");
}

#[test]
fn authorities_are_told_by_their_fingerprints() {
    let dir = tempfile::tempdir().unwrap();
    let tls = Tls::load_mutual(self_signed(&dir, "one", &[])).unwrap();
    let [authority] = tls.authorities().try_into().unwrap();
    assert!(authority.len() == 64 && authority.bytes().all(|byte| byte.is_ascii_hexdigit()), "{authority}");
}
