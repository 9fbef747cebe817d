//! Keeps the certificates of a cluster: reads what is written, asks what comes next, and writes that.
//!
//! Every write is made over the very version that was read. What is published is read before what the operator keeps for itself, so an
//! operator that was held up in between cannot publish what is older than what others know.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{DeleteParams, ObjectMeta, PostParams};
use kube::{Api, Client, ResourceExt};
use quorate_crds::{ClientCertificates, ClientTls, RaftCluster};

use super::given;
use super::held::{AUTHORITY_LIFE, Circle, Held};
use super::leaves::{self, LEAF_LIFE};
use super::report::{Report, Term};
use super::rotation::{self, Effect, Next, Published, Readers};
use super::secrets::{self, ADMIN, CA, CERTIFICATE, COPIED_FROM, KEY, Secrets, field};
use super::x509::{self, Pair, Read, Request};
use crate::apply::{self, ApplyError, FIELD_MANAGER};
use crate::observed::Observed;
use crate::resources;

/// More than a founding and the publication after it take. What is left comes with the next round.
const MOST_EFFECTS: usize = 4;
/// For how long clients have had the chance to read an authority before anything is signed by it: nobody knows who they are.
const CLIENTS_LEARN: Duration = Duration::from_hours(30 * 24);
/// Whoever sets it to another value on a RaftCluster asks for other authorities.
pub const ROTATE: &str = "quorate.dev/rotate-authorities";

/// What is needed for it.
#[derive(Clone, Copy)]
pub struct Keeper<'a> {
    /// The API server.
    pub client: &'a Client,
    /// The cluster.
    pub cluster: &'a RaftCluster,
    /// The operator's namespace.
    pub home: &'a str,
    /// The domain of the Kubernetes cluster.
    pub domain: &'a str,
}

impl Keeper<'_> {
    /// Does what is due, and says how things are.
    pub async fn keep(&self, secrets: &mut Secrets, seen: &Observed) -> Result<Report, ApplyError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let mut report = Report::default();
        self.keep_circle(Circle::Peers, secrets, seen, now, &mut report).await?;
        self.keep_admin(secrets, now).await?;
        if let Some(tls) = &self.cluster.spec.tls.client {
            match &tls.secret_name {
                None => self.keep_circle(Circle::Clients, secrets, seen, now, &mut report).await?,
                Some(name) => self.copy(name, tls, secrets, now, &mut report).await?,
            }
        }
        self.keep_connection(secrets, now).await?;
        report.terms = terms(self.cluster, secrets);
        Ok(report)
    }

    async fn keep_circle(
        &self,
        circle: Circle,
        secrets: &mut Secrets,
        seen: &Observed,
        now: Duration,
        report: &mut Report,
    ) -> Result<(), ApplyError> {
        let request = match (circle, &self.cluster.spec.tls.client) {
            (Circle::Clients, Some(tls)) => leaves::client_port(self.cluster, tls, self.domain),
            _ => leaves::nodes(self.cluster, self.domain),
        };
        for _ in 0..MOST_EFFECTS {
            let known = secrets.vault.as_ref().and_then(|vault| Held::read(vault, circle));
            // What was taken over from an issuer makes way at once: the spec says so.
            let of_own =
                secrets.published(circle).filter(|there| !there.annotations().contains_key(COPIED_FROM));
            let published = of_own.map(|secret| self.published(secret, &request, now));
            let authorities = known.as_ref().map(Held::authorities);
            let readers = match (circle, &known) {
                (_, None) => nobody_asked(),
                (Circle::Peers, Some(known)) => readers_of_nodes(seen, &known.authorities().bundle()),
                (Circle::Clients, Some(known)) => readers_by_time(known, now),
            };
            let due = known.as_ref().is_some_and(|known| self.is_due(known, circle, secrets, now));
            match rotation::next(authorities.as_ref(), published.as_ref(), &readers, due) {
                Next::Rest => break,
                Next::Wait(lacking) => {
                    report.nodes_are_awaited |= circle == Circle::Peers;
                    report.waits_for.get_or_insert(lacking);
                    break;
                }
                Next::Act(effect) => {
                    self.act(effect, circle, known.as_ref(), secrets, &request, now).await?;
                    tracing::info!(
                        cluster = format!("{}/{}", self.namespace(), self.cluster.name_any()),
                        ?circle,
                        ?effect,
                        "certificates"
                    );
                    report.done.extend(told(effect, circle));
                }
            }
        }
        Ok(())
    }

    async fn act(
        &self,
        effect: Effect,
        circle: Circle,
        known: Option<&Held>,
        secrets: &mut Secrets,
        request: &Request,
        now: Duration,
    ) -> Result<(), ApplyError> {
        if let (Effect::Publish { leaf }, Some(known)) = (effect, known) {
            return self.publish(circle, known, leaf, secrets, request, now).await;
        }
        let there = secrets.published(circle);
        let text = |key| there.and_then(|secret| field(secret, key)).unwrap_or_default();
        let name = self.cluster.name_any();
        let after = Held::after(known, effect, circle, &name, (text(CA), text(CERTIFICATE)), now)?;
        let Some(after) = after else { return Ok(()) };
        let mut vault = self.vault(secrets.vault.as_ref());
        let data = vault.data.get_or_insert_default();
        after.write(circle, data);
        if circle == Circle::Peers {
            self.put_admin(&after, data, now)?;
        }
        if effect == Effect::Introduce {
            let asked = self.cluster.annotations().get(ROTATE).cloned().unwrap_or_default();
            vault.metadata.annotations.get_or_insert_default().insert(rotated(circle), asked);
        }
        secrets.vault = Some(self.write(self.home, secrets.vault.as_ref(), vault).await?);
        Ok(())
    }

    async fn publish(
        &self,
        circle: Circle,
        known: &Held,
        leaf: bool,
        secrets: &mut Secrets,
        request: &Request,
        now: Duration,
    ) -> Result<(), ApplyError> {
        let name = secrets::published_name(circle, &self.cluster.name_any());
        let mut made = self.secret(name, "kubernetes.io/tls");
        let mut data = BTreeMap::from([(CA, known.bundle().into_bytes())]);
        let there = secrets.published(circle);
        match known.signer().filter(|_| leaf) {
            Some(by) => {
                let Pair { certificate, key } = x509::leaf(request, &by, now, LEAF_LIFE)?;
                data.extend([(CERTIFICATE, certificate.into_bytes()), (KEY, key.into_bytes())]);
            }
            None => {
                data.extend([CERTIFICATE, KEY].map(|key| {
                    (key, there.and_then(|secret| field(secret, key)).unwrap_or_default().to_vec())
                }));
            }
        }
        made.data = Some(data.into_iter().map(|(key, value)| (key.to_owned(), ByteString(value))).collect());
        let written = self.write_own(there, made).await?;
        secrets.set_published(circle, written);
        Ok(())
    }

    /// The operator's own certificate, which goes with the authority that signs.
    async fn keep_admin(&self, secrets: &mut Secrets, now: Duration) -> Result<(), ApplyError> {
        let Some(known) = secrets.vault.as_ref().and_then(|vault| Held::read(vault, Circle::Peers)) else {
            return Ok(());
        };
        let mut vault = self.vault(secrets.vault.as_ref());
        self.put_admin(&known, vault.data.get_or_insert_default(), now)?;
        if secrets.vault.as_ref().and_then(|there| there.data.as_ref()) != vault.data.as_ref() {
            secrets.vault = Some(self.write(self.home, secrets.vault.as_ref(), vault).await?);
        }
        Ok(())
    }

    /// Puts a certificate of the operator's beside the authorities, unless a good one is there. Without a key that signs there is none: the
    /// operator shows that of the nodes then.
    fn put_admin(
        &self,
        known: &Held,
        data: &mut BTreeMap<String, ByteString>,
        now: Duration,
    ) -> Result<(), ApplyError> {
        let (certificate, key) = ADMIN;
        let Some(by) = known.signer() else {
            data.remove(certificate);
            data.remove(key);
            return Ok(());
        };
        let there = data.get(certificate).and_then(|bytes| x509::first(&bytes.0));
        let request = leaves::admin(self.cluster);
        if !data.contains_key(key) || !there.is_some_and(|there| is_good(&there, &by, &request, now)) {
            let made = x509::leaf(&request, &by, now, LEAF_LIFE)?;
            data.insert(certificate.to_owned(), ByteString(made.certificate.into_bytes()));
            data.insert(key.to_owned(), ByteString(made.key.into_bytes()));
        }
        Ok(())
    }

    /// Takes over what the Secret of an issuer holds, if it can be used. What was taken over before stays until then.
    async fn copy(
        &self,
        name: &str,
        tls: &ClientTls,
        secrets: &mut Secrets,
        now: Duration,
        report: &mut Report,
    ) -> Result<(), ApplyError> {
        let good = match given::check(self.cluster, name, secrets.given.as_ref(), tls, seconds(now)) {
            Ok(good) => good,
            Err((reason, why)) => {
                let kept = "the nodes go on with what they have";
                report.problem = Some((reason, format!("{why}. Until then {kept}")));
                return Ok(());
            }
        };
        let mut made = self
            .secret(secrets::published_name(Circle::Clients, &self.cluster.name_any()), "kubernetes.io/tls");
        made.data = Some(good);
        made.metadata.annotations.get_or_insert_default().insert(COPIED_FROM.to_owned(), name.to_owned());
        let there = secrets.published(Circle::Clients);
        if !there.is_some_and(|there| there.data == made.data && self.is_intact(there, &made.metadata)) {
            let written = self.write_own(there, made).await?;
            secrets.set_published(Circle::Clients, written);
            report
                .done
                .push(("CertificateTaken", format!("the client port has the certificate of Secret {name}")));
        }
        Ok(())
    }

    /// Where the cluster is, and what to trust and to show there.
    async fn keep_connection(&self, secrets: &mut Secrets, now: Duration) -> Result<(), ApplyError> {
        let tls = self.cluster.spec.tls.client.as_ref();
        let own = tls.is_some_and(|tls| tls.secret_name.is_none());
        let asked = tls.is_some_and(|tls| tls.client_certificates == ClientCertificates::Required);
        let held = secrets.vault.as_ref().and_then(|vault| Held::read(vault, Circle::Clients));
        let there = secrets.connection.as_ref();
        let shows = match held.filter(|_| own && asked) {
            Some(held) => shown(&held, there, &leaves::client(self.cluster), now)?,
            None => None,
        };
        let trusts = tls.and_then(|_| field(secrets.published(Circle::Clients)?, CA)).map(<[u8]>::to_vec);
        let mut made =
            self.secret(resources::connection_secret(&self.cluster.name_any()), secrets::BINDING_TYPE);
        made.data = Some(secrets::connection(self.cluster, self.domain, trusts, shows));
        if !there.is_some_and(|there| there.data == made.data && self.is_intact(there, &made.metadata)) {
            secrets.connection = Some(self.write_own(there, made).await?);
        }
        Ok(())
    }

    fn is_due(&self, known: &Held, circle: Circle, secrets: &Secrets, now: Duration) -> bool {
        let end = x509::first(known.signing.certificate.as_bytes()).map_or(0, |read| read.not_after);
        let third = i64::try_from(AUTHORITY_LIFE.as_secs() / 3).unwrap_or(i64::MAX);
        let asked = self.cluster.annotations().get(ROTATE);
        let answered = secrets.vault.as_ref().and_then(|vault| vault.annotations().get(&rotated(circle)));
        end - seconds(now) < third || asked.is_some_and(|asked| Some(asked) != answered)
    }

    fn published(&self, secret: &Secret, request: &Request, now: Duration) -> Published {
        let authorities: Vec<Read> = x509::split(field(secret, CA).unwrap_or_default())
            .iter()
            .filter_map(|certificate| x509::first(certificate.as_bytes()))
            .collect();
        let leaf = field(secret, CERTIFICATE).and_then(x509::first).filter(|_| field(secret, KEY).is_some());
        let signer = leaf.as_ref().and_then(|leaf| authorities.iter().find(|one| leaf.is_signed_by(one)));
        let wanted = self.secret(secret.name_any(), "kubernetes.io/tls");
        Published {
            signed_by: signer.map(|signer| signer.fingerprint.clone()),
            trusts: authorities.iter().map(|one| one.fingerprint.clone()).collect(),
            serves: leaf.is_some_and(|leaf| leaves::serves(&leaf, request, seconds(now))),
            intact: self.is_intact(secret, &wanted.metadata),
        }
    }

    fn is_intact(&self, there: &Secret, wanted: &ObjectMeta) -> bool {
        let holds = |found: Option<&BTreeMap<String, String>>, wanted: Option<&BTreeMap<String, String>>| {
            wanted
                .into_iter()
                .flatten()
                .all(|(key, value)| found.and_then(|found| found.get(key)) == Some(value))
        };
        let meta = &there.metadata;
        let uid = self.cluster.uid();
        holds(meta.labels.as_ref(), wanted.labels.as_ref())
            && holds(meta.annotations.as_ref(), wanted.annotations.as_ref())
            && uid.is_none_or(|uid| meta.owner_references.iter().flatten().any(|owner| owner.uid == uid))
    }

    fn namespace(&self) -> String {
        self.cluster.namespace().unwrap_or_default()
    }

    fn secret(&self, name: String, kind: &str) -> Secret {
        Secret {
            metadata: resources::metadata(self.cluster, name),
            type_: Some(kind.to_owned()),
            ..Secret::default()
        }
    }

    /// The operator's own Secret, as it is or new. It has no owner: an owner is of the same namespace.
    fn vault(&self, there: Option<&Secret>) -> Secret {
        there.cloned().unwrap_or_else(|| Secret {
            metadata: ObjectMeta {
                name: Some(secrets::vault_name(&self.namespace(), &self.cluster.name_any())),
                namespace: Some(self.home.to_owned()),
                labels: Some(resources::labels(self.cluster)),
                ..ObjectMeta::default()
            },
            type_: Some("Opaque".to_owned()),
            ..Secret::default()
        })
    }

    /// Writes a Secret of the cluster's, unless it is somebody else's.
    async fn write_own(&self, there: Option<&Secret>, made: Secret) -> Result<Secret, ApplyError> {
        if let Some(there) = there {
            apply::refuse_foreign(self.cluster, || format!("Secret {}", there.name_any()), &there.metadata)?;
        }
        self.write(&self.namespace(), there, made).await
    }

    /// Writes a Secret over the version that was read, or where there was none.
    async fn write(
        &self,
        namespace: &str,
        there: Option<&Secret>,
        made: Secret,
    ) -> Result<Secret, ApplyError> {
        let name = made.name_any();
        let api = Api::<Secret>::namespaced(self.client.clone(), namespace);
        let parameters =
            PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        let written = match there {
            None => api.create(&parameters, &made).await,
            Some(there) => {
                let mut over = there.clone();
                over.metadata.managed_fields = None;
                over.data = made.data;
                let meta = &mut over.metadata;
                if let Some(annotations) = &mut meta.annotations {
                    annotations.remove(COPIED_FROM);
                }
                meta.labels.get_or_insert_default().extend(made.metadata.labels.into_iter().flatten());
                meta.annotations
                    .get_or_insert_default()
                    .extend(made.metadata.annotations.into_iter().flatten());
                if made.metadata.owner_references.is_some() {
                    meta.owner_references = made.metadata.owner_references;
                }
                api.replace(&name, &parameters, &over).await
            }
        };
        written.map_err(|source| ApplyError::Object { object: format!("Secret {name}"), source })
    }
}

/// Deletes the authorities of a cluster that is gone.
pub async fn forget(client: &Client, home: &str, namespace: &str, name: &str) -> Result<(), kube::Error> {
    // Another one of the name may be there already.
    let clusters = Api::<RaftCluster>::namespaced(client.clone(), namespace);
    if clusters.get_metadata_opt(name).await?.is_some() {
        return Ok(());
    }
    let api = Api::<Secret>::namespaced(client.clone(), home);
    match api.delete(&secrets::vault_name(namespace, name), &DeleteParams::default()).await {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        answer => answer.map(drop),
    }
}

fn is_good(leaf: &Read, by: &Pair, request: &Request, now: Duration) -> bool {
    let authority = x509::first(by.certificate.as_bytes());
    authority.is_some_and(|authority| leaf.is_signed_by(&authority))
        && leaves::serves(leaf, request, seconds(now))
}

/// What clients show: what is there, while it is good or nobody can make another.
fn shown(
    held: &Held,
    there: Option<&Secret>,
    request: &Request,
    now: Duration,
) -> Result<Option<Pair>, rcgen::Error> {
    let old = there.and_then(|secret| {
        let text = |key| Some(String::from_utf8_lossy(field(secret, key)?).into_owned());
        Some(Pair { certificate: text(CERTIFICATE)?, key: text(KEY)? })
    });
    let Some(by) = held.signer() else { return Ok(old) };
    let good = |pair: &Pair| {
        x509::first(pair.certificate.as_bytes()).is_some_and(|leaf| is_good(&leaf, &by, request, now))
    };
    match old.filter(good) {
        Some(old) => Ok(Some(old)),
        None => x509::leaf(request, &by, now, LEAF_LIFE).map(Some),
    }
}

fn seconds(time: Duration) -> i64 {
    i64::try_from(time.as_secs()).unwrap_or(i64::MAX)
}

fn rotated(circle: Circle) -> String {
    match circle {
        Circle::Peers => "quorate.dev/rotated-peer".to_owned(),
        Circle::Clients => "quorate.dev/rotated-client".to_owned(),
    }
}

fn nobody_asked() -> Readers {
    let nobody = || Err("an authority".to_owned());
    Readers { promote: nobody(), retire: nobody() }
}

/// Every pod counts, also one whose node does not answer: it may run on with what it has read.
fn readers_of_nodes(seen: &Observed, bundle: &[String]) -> Readers {
    let lacking = seen.pods.keys().find_map(|ordinal| {
        let pod = seen.pod_name(*ordinal);
        match seen.nodes.get(ordinal) {
            None => Some(format!("{pod} to answer")),
            Some(node) if node.authorities != bundle => {
                Some(format!("{pod} to take up the new certificates, which takes two minutes at most"))
            }
            Some(_) => None,
        }
    });
    let verdict = lacking.map_or(Ok(()), Err);
    Readers { promote: verdict.clone(), retire: verdict }
}

/// Clients are not known: they have time to read what is published, and what they show is good to its end.
fn readers_by_time(known: &Held, now: Duration) -> Readers {
    let read = |certificate: &str| x509::first(certificate.as_bytes());
    let since =
        known.next.as_ref().and_then(|next| read(&next.certificate)).map_or(0, |next| next.not_before);
    let learned = since + seconds(CLIENTS_LEARN) <= seconds(now);
    let ended = known.retired.iter().filter_map(|one| read(one)).all(|one| one.not_after <= seconds(now));
    let days = CLIENTS_LEARN.as_secs() / (24 * 3600);
    Readers {
        promote: if learned {
            Ok(())
        } else {
            Err(format!("clients to read the new authority, {days} days"))
        },
        retire: if ended { Ok(()) } else { Err("the end of the old authority of clients".to_owned()) },
    }
}

fn told(effect: Effect, circle: Circle) -> Option<(&'static str, String)> {
    let whose = match circle {
        Circle::Peers => "the members'",
        Circle::Clients => "the clients'",
    };
    match effect {
        Effect::Found => None,
        Effect::Publish { leaf } => leaf.then(|| ("CertificateMade", format!("{whose} certificate is new"))),
        Effect::Adopt => Some((
            "AuthorityReplaced",
            format!(
                "the key of {whose} authority is not known: another authority takes its place, with both trusted until then"
            ),
        )),
        Effect::Introduce => {
            Some(("AuthorityIntroduced", format!("another authority is trusted beside {whose}")))
        }
        Effect::Promote => {
            Some(("AuthorityPromoted", format!("another authority signs {whose} certificates")))
        }
        Effect::Retire => Some(("AuthorityRetired", format!("{whose} earlier authority is trusted no more"))),
    }
}

/// How long what is in use is good.
fn terms(cluster: &RaftCluster, secrets: &Secrets) -> Vec<Term> {
    let term = |what, pem: Option<&[u8]>| {
        let read = x509::first(pem?)?;
        Some(Term { what, not_before: read.not_before, not_after: read.not_after })
    };
    let leaf = |circle| secrets.published(circle).and_then(|secret| field(secret, CERTIFICATE));
    let authority = |circle| {
        let held = Held::read(secrets.vault.as_ref()?, circle)?;
        Some(held.signing.certificate)
    };
    let mut found = vec![
        term("peer", leaf(Circle::Peers)),
        term("peer-authority", authority(Circle::Peers).as_deref().map(str::as_bytes)),
    ];
    if let Some(tls) = &cluster.spec.tls.client {
        found.push(term("client", leaf(Circle::Clients)));
        if tls.secret_name.is_none() {
            found.push(term("client-authority", authority(Circle::Clients).as_deref().map(str::as_bytes)));
        }
    }
    found.into_iter().flatten().collect()
}
