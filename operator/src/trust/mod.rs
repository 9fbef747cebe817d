//! Who trusts whom: the authorities of a cluster, the certificates that they sign, and the Secrets that hold them.
//!
//! `rotation` says what comes next, `held` and `x509` make it, `keep` writes it. Keys that sign are in the operator's namespace alone; the
//! namespace of the cluster holds what pods and applications mount.

mod given;
mod held;
mod keep;
pub mod leaves;
mod report;
pub mod rotation;
mod secrets;
pub mod x509;

pub use given::can_serve_clients;
pub use held::{Authority, Circle, Held};
pub use keep::{Keeper, ROTATE, forget};
pub use leaves::{LEAF_LIFE, admin_name, member_name};
pub use report::{Judgement, Report, TERMS, Term};
pub use secrets::{Identity, Secrets, published_name, vault_name};

/// A certificate could not be made.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot make a certificate: {0}. If the Secret of the authorities was written by hand, delete it: they are made anew"
)]
pub struct CertificateError(#[from] rcgen::Error);
