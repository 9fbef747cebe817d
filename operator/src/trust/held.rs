//! The authorities of a cluster with their keys, as they stand in the operator's own Secret.
//!
//! It is in the namespace of the operator: who reads Secrets in the namespace of a cluster gets no key that signs.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;

use super::rotation::{Authorities, Effect};
use super::x509::{self, Pair};

/// For how long an authority is good. It is replaced when a third of that is left.
pub(super) const AUTHORITY_LIFE: Duration = Duration::from_hours(3 * 365 * 24);

/// Whose certificates an authority signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Circle {
    /// The members and the operator.
    Peers,
    /// The clients, and the client ports.
    Clients,
}

impl Circle {
    fn word(self) -> &'static str {
        match self {
            Self::Peers => "peer",
            Self::Clients => "client",
        }
    }
}

/// An authority: its certificate, and its key unless that is lost. PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Authority {
    /// The certificate.
    pub certificate: String,
    /// Its key.
    pub key: Option<String>,
}

/// The authorities of a circle.
#[derive(Clone, PartialEq, Eq)]
pub struct Held {
    /// The one that signs.
    pub signing: Authority,
    /// The one that signs next.
    pub next: Option<Authority>,
    /// The certificates of those that have signed before.
    pub retired: Vec<String>,
}

// The keys stay out of logs.
impl std::fmt::Debug for Held {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_tuple("Held").field(&self.authorities()).finish()
    }
}

impl Authority {
    fn new(circle: Circle, cluster: &str, now: Duration) -> Result<Self, rcgen::Error> {
        // A name of its own: what checks a signature finds its authority by that.
        let name = format!("{cluster} {} authority {:08x}", circle.word(), random());
        let Pair { certificate, key } = x509::authority(&name, now, AUTHORITY_LIFE)?;
        Ok(Self { certificate, key: Some(key) })
    }

    fn id(&self) -> String {
        id(&self.certificate)
    }
}

fn id(certificate: &str) -> String {
    x509::first(certificate.as_bytes()).map(|read| read.fingerprint).unwrap_or_default()
}

fn random() -> u32 {
    // A name is enough that is not used twice; one that is shows in no more than a slower search.
    getrandom::u32().unwrap_or_default()
}

impl Held {
    /// Reads a circle's authorities. None where there is none that can be used: it is made anew.
    pub fn read(secret: &Secret, circle: Circle) -> Option<Self> {
        let text = |part: &str| {
            let bytes = secret.data.as_ref()?.get(&format!("{}-{part}", circle.word()))?;
            Some(String::from_utf8_lossy(&bytes.0).into_owned())
        };
        let authority = |which: &str| {
            let certificate = text(&format!("{which}.crt"))?;
            x509::first(certificate.as_bytes())?;
            let key = text(&format!("{which}.key")).filter(|key| rcgen::KeyPair::from_pem(key).is_ok());
            Some(Authority { certificate, key })
        };
        let retired = text("retired.crt").unwrap_or_default();
        Some(Self {
            signing: authority("signing")?,
            // Without a key it could never sign.
            next: authority("next").filter(|next| next.key.is_some()),
            retired: x509::split(retired.as_bytes()),
        })
    }

    /// Writes them.
    pub fn write(&self, circle: Circle, data: &mut BTreeMap<String, ByteString>) {
        let mut put = |part: &str, text: Option<&str>| {
            let key = format!("{}-{part}", circle.word());
            match text {
                Some(text) => data.insert(key, ByteString(text.as_bytes().to_vec())),
                None => data.remove(&key),
            };
        };
        put("signing.crt", Some(&self.signing.certificate));
        put("signing.key", self.signing.key.as_deref());
        put("next.crt", self.next.as_ref().map(|next| next.certificate.as_str()));
        put("next.key", self.next.as_ref().and_then(|next| next.key.as_deref()));
        put("retired.crt", Some(self.retired.concat()).filter(|all| !all.is_empty()).as_deref());
    }

    /// Their names.
    pub fn authorities(&self) -> Authorities {
        Authorities {
            signing: self.signing.id(),
            can_sign: self.signing.key.is_some(),
            next: self.next.as_ref().map(Authority::id),
            retired: self.retired.iter().map(|retired| id(retired)).collect(),
        }
    }

    /// What is to be trusted, PEM, in the order of [`Authorities::bundle`].
    pub fn bundle(&self) -> String {
        let next = self.next.iter().map(|next| next.certificate.as_str());
        let rest = next.chain(self.retired.iter().map(String::as_str));
        std::iter::once(self.signing.certificate.as_str()).chain(rest).map(ended).collect()
    }

    /// The one that signs, if it can.
    pub fn signer(&self) -> Option<Pair> {
        let key = self.signing.key.clone()?;
        Some(Pair { certificate: self.signing.certificate.clone(), key })
    }

    /// What an effect makes of the authorities. `published` is what is trusted now, PEM, with the leaf.
    pub fn after(
        known: Option<&Self>,
        effect: Effect,
        circle: Circle,
        cluster: &str,
        published: (&[u8], &[u8]),
        now: Duration,
    ) -> Result<Option<Self>, rcgen::Error> {
        let fresh = || Authority::new(circle, cluster, now);
        let found = || Ok(Self { signing: fresh()?, next: None, retired: Vec::new() });
        let Some(known) = known.cloned() else {
            return match effect {
                Effect::Found => found().map(Some),
                Effect::Adopt => adopt(None, published, fresh).map(Some),
                _ => Ok(None),
            };
        };
        Ok(Some(match effect {
            Effect::Publish { .. } | Effect::Found => known,
            Effect::Adopt => adopt(Some(known), published, fresh)?,
            Effect::Introduce => Self { next: Some(fresh()?), ..known },
            Effect::Promote => promote(known),
            Effect::Retire => Self { retired: Vec::new(), ..known },
        }))
    }
}

fn promote(known: Held) -> Held {
    let Held { signing, next, mut retired } = known;
    match next {
        None => Held { signing, next: None, retired },
        Some(next) => {
            retired.insert(0, signing.certificate);
            Held { signing: next, next: None, retired }
        }
    }
}

/// The authority of the leaf signs, with its key where that is known; the one that did is next.
fn adopt(
    known: Option<Held>,
    (trusted, leaf): (&[u8], &[u8]),
    fresh: impl Fn() -> Result<Authority, rcgen::Error>,
) -> Result<Held, rcgen::Error> {
    let trusted = x509::split(trusted);
    let leaf = x509::first(leaf);
    let signed = |certificate: &String| {
        let authority = x509::first(certificate.as_bytes());
        authority.zip(leaf.as_ref()).is_some_and(|(authority, leaf)| leaf.is_signed_by(&authority))
    };
    let Some(certificate) = trusted.iter().find(|certificate| signed(certificate)).cloned() else {
        return known.map_or_else(
            || Ok(Held { signing: fresh()?, next: None, retired: Vec::new() }),
            |known| Ok(promote(known)),
        );
    };
    let before = known.map(|known| {
        let Held { signing, next, retired } = known;
        (std::iter::once(signing).chain(next).collect::<Vec<_>>(), retired)
    });
    let (able, retired) = before.unwrap_or_default();
    let of_leaf = id(&certificate);
    let key = able.iter().find(|known| known.id() == of_leaf).and_then(|known| known.key.clone());
    let next = able.iter().find(|known| known.id() != of_leaf && known.key.is_some()).cloned();
    let next = next.map_or_else(fresh, Ok)?;
    let mut others = retired;
    others.extend(trusted);
    others.extend(able.into_iter().map(|known| known.certificate));
    let taken = [of_leaf, next.id()];
    let mut seen = std::collections::BTreeSet::new();
    others.retain(|other| !taken.contains(&id(other)) && seen.insert(id(other)));
    Ok(Held { signing: Authority { certificate, key }, next: Some(next), retired: others })
}

/// PEM that others can be put behind.
fn ended(pem: &str) -> String {
    format!("{}\n", pem.trim_end())
}
