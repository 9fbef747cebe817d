//! Keys on the curve P-521: Go's programs, etcd among them, sign with them and check their signatures; ring does neither.
//!
//! The arithmetic is that of the crate `p521`. It is used for signatures with such keys only: in certificates, and in handshakes by whoever owns one. The exchange of
//! keys, and all other signatures, stay ring's.

use std::sync::{Arc, LazyLock};

use p521::ecdsa::signature::hazmat::{PrehashSigner as _, PrehashVerifier as _};
use p521::ecdsa::{DerSignature, Signature, SigningKey, VerifyingKey};
use p521::pkcs8::{DecodePrivateKey as _, EncodePublicKey as _};
use ring::digest;
use tokio_rustls::rustls::crypto::{self, CryptoProvider, KeyProvider, WebPkiSupportedAlgorithms};
use tokio_rustls::rustls::pki_types::{
    AlgorithmIdentifier, InvalidSignature, PrivateKeyDer, SignatureVerificationAlgorithm,
    SubjectPublicKeyInfoDer, alg_id,
};
use tokio_rustls::rustls::sign::{self, Signer};
use tokio_rustls::rustls::{Error, SignatureAlgorithm, SignatureScheme};

/// Ring's, and this curve.
pub(super) fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
        let ring = crypto::ring::default_provider();
        let signature_verification_algorithms = with_p521(ring.signature_verification_algorithms);
        Arc::new(CryptoProvider { signature_verification_algorithms, key_provider: &Keys, ..ring })
    });
    Arc::clone(&PROVIDER)
}

type Verification = &'static dyn SignatureVerificationAlgorithm;

/// Certificates are signed with any of these; a handshake only with the last.
static VERIFICATIONS: [Verification; 3] = [
    &Verifier { digest: &digest::SHA256, id: alg_id::ECDSA_SHA256 },
    &Verifier { digest: &digest::SHA384, id: alg_id::ECDSA_SHA384 },
    &Verifier { digest: &digest::SHA512, id: alg_id::ECDSA_SHA512 },
];

/// What rustls takes lives as long as the process.
fn with_p521(ring: WebPkiSupportedAlgorithms) -> WebPkiSupportedAlgorithms {
    let all: Vec<Verification> = ring.all.iter().chain(&VERIFICATIONS).copied().collect();
    let own = (SignatureScheme::ECDSA_NISTP521_SHA512, &VERIFICATIONS[2..]);
    let mapping: Vec<_> = ring.mapping.iter().copied().chain([own]).collect();
    WebPkiSupportedAlgorithms { all: all.leak(), mapping: mapping.leak() }
}

/// Checks signatures.
#[derive(Debug)]
struct Verifier {
    digest: &'static digest::Algorithm,
    id: AlgorithmIdentifier,
}

impl SignatureVerificationAlgorithm for Verifier {
    fn verify_signature(&self, key: &[u8], message: &[u8], signature: &[u8]) -> Result<(), InvalidSignature> {
        let key = VerifyingKey::from_sec1_bytes(key).map_err(|_| InvalidSignature)?;
        let signature = Signature::from_der(signature).map_err(|_| InvalidSignature)?;
        key.verify_prehash(&number(self.digest, message), &signature).map_err(|_| InvalidSignature)
    }

    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        alg_id::ECDSA_P521
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        self.id
    }
}

/// The digest of `message` as the number that is signed: none of them is longer than the curve's, and a short one is not taken without the zeros before it.
fn number(algorithm: &'static digest::Algorithm, message: &[u8]) -> [u8; 66] {
    let digest = digest::digest(algorithm, message);
    let mut number = [0; 66];
    number[66 - digest.as_ref().len()..].copy_from_slice(digest.as_ref());
    number
}

/// Loads private keys.
#[derive(Debug)]
struct Keys;

impl KeyProvider for Keys {
    /// Ring's first: a key of a shorter curve that does not name it could be read as one of this.
    fn load_private_key(&self, der: PrivateKeyDer<'static>) -> Result<Arc<dyn sign::SigningKey>, Error> {
        let ring = crypto::ring::default_provider().key_provider;
        ring.load_private_key(der.clone_key()).or_else(|error| {
            let secret = match &der {
                PrivateKeyDer::Pkcs8(der) => p521::SecretKey::from_pkcs8_der(der.secret_pkcs8_der()).ok(),
                PrivateKeyDer::Sec1(der) => p521::SecretKey::from_sec1_der(der.secret_sec1_der()).ok(),
                _ => None,
            };
            let secret = secret.ok_or(error)?;
            Ok(Arc::new(Key(Arc::new(secret.into()))) as Arc<dyn sign::SigningKey>)
        })
    }
}

/// A private key.
#[derive(Debug, Clone)]
struct Key(Arc<SigningKey>);

impl sign::SigningKey for Key {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        offered.contains(&self.scheme()).then(|| Box::new(self.clone()) as _)
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        let der = self.0.verifying_key().to_public_key_der().ok()?;
        Some(SubjectPublicKeyInfoDer::from(der.into_vec()))
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ECDSA
    }
}

impl Signer for Key {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        let signed = self.0.sign_prehash(&number(&digest::SHA512, message));
        let signature: DerSignature = signed.map_err(|error| Error::General(error.to_string()))?;
        Ok(signature.as_bytes().to_vec())
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::ECDSA_NISTP521_SHA512
    }
}
