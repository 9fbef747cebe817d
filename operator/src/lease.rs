//! Leader election of the operator: of several replicas, one works.
//!
//! This saves work and avoids confusing events. The members are safe without it: every change of membership names the
//! configuration that it starts from, the cluster's ID is written once, and pods are ended by eviction, where the budget counts
//! what others do. What cannot be undone is not done by an operator that is not sure to hold the lease (`Held`).

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use parking_lot::Mutex;
use tokio::time::Instant;

/// A holder that has not renewed for this long has lost the lease.
const DURATION: Duration = Duration::from_secs(15);
/// For so long after a renewal nobody else can have taken the lease before a request arrives that is sent now.
const SURE: Duration = Duration::from_secs(10);
/// A call that takes longer is tried again.
const CALL_DEADLINE: Duration = Duration::from_secs(5);
/// How often it is renewed, or looked at by those that wait: several times within `SURE`.
const RETRY: Duration = Duration::from_secs(4);

/// The lease of the operators of one installation.
pub struct OperatorLease {
    api: Api<Lease>,
    name: String,
    holder: String,
    held: Held,
    /// The lease as this operator wrote it last.
    last: Mutex<Option<Lease>>,
}

/// Since when the lease is known to be held, on the monotonic clock of this process: one that stood still for a while knows by it that
/// another operator may work now.
#[derive(Clone, Default)]
pub struct Held(Arc<Mutex<Option<Instant>>>);

impl Held {
    /// The lease was renewed by a request that was sent then.
    pub fn renewed(&self, sent: Instant) {
        *self.0.lock() = Some(sent);
    }

    /// Whether nobody else can have taken the lease yet, for long enough to send a request.
    pub fn is_fresh(&self) -> bool {
        self.0.lock().is_some_and(|renewed| renewed.elapsed() < SURE)
    }
}

/// Somebody else's claim, and since when it has been seen unchanged: their clock is not trusted.
#[derive(Default)]
struct Rival {
    version: Option<String>,
    since: Option<Instant>,
}

impl Rival {
    /// Whether the claim has stood still for longer than a lease lasts.
    fn has_expired(&mut self, version: Option<String>, now: Instant) -> bool {
        if self.version != version || self.since.is_none() {
            *self = Self { version, since: Some(now) };
        }
        self.since.is_some_and(|since| now.duration_since(since) > DURATION)
    }
}

impl OperatorLease {
    /// The lease `name` in the operator's namespace; `holder` is the pod's name.
    pub fn new(client: Client, namespace: &str, name: &str, holder: String) -> Self {
        Self {
            api: Api::namespaced(client, namespace),
            name: name.to_owned(),
            holder,
            held: Held::default(),
            last: Mutex::default(),
        }
    }

    /// Says whether the lease is held right now.
    pub fn held(&self) -> Held {
        self.held.clone()
    }

    /// Waits until this operator holds the lease.
    pub async fn acquire(&self) {
        let mut rival = Rival::default();
        let mut said = false;
        loop {
            match self.try_acquire(&mut rival).await {
                Ok(true) => return,
                Ok(false) if !said => {
                    tracing::info!(lease = self.name, "another operator holds the lease: waiting");
                    said = true;
                }
                Ok(false) => {}
                Err(error) => tracing::warn!(%error, lease = self.name, "cannot read or take the lease"),
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Keeps the lease. Returns when another operator has it.
    ///
    /// A holder that cannot renew in time goes on until it sees that another one has taken over: on a machine that is too
    /// busy, or while the API server is away, there is nobody better.
    pub async fn hold(&self) {
        loop {
            tokio::time::sleep(RETRY).await;
            match tokio::time::timeout(CALL_DEADLINE, self.try_acquire(&mut Rival::default())).await {
                Ok(Ok(true)) => {}
                Ok(Ok(false)) => {
                    if self.is_anothers().await {
                        return;
                    }
                }
                Ok(Err(error)) => tracing::warn!(%error, lease = self.name, "cannot renew the lease"),
                Err(_) => tracing::warn!(lease = self.name, "the renewal of the lease takes long"),
            }
        }
    }

    /// Whether the lease names another holder for certain. A conflict alone may be our own earlier call, which came late.
    async fn is_anothers(&self) -> bool {
        let Ok(Some(lease)) = self.api.get_opt(&self.name).await else { return false };
        let holder = lease.spec.and_then(|spec| spec.holder_identity).filter(|holder| !holder.is_empty());
        holder.is_some_and(|holder| holder != self.holder)
    }

    /// Gives the lease up, so that another operator need not wait for its end.
    pub async fn release(&self) {
        let Ok(Some(mut lease)) = self.api.get_opt(&self.name).await else { return };
        if let Some(spec) =
            lease.spec.as_mut().filter(|spec| spec.holder_identity.as_ref() == Some(&self.holder))
        {
            spec.holder_identity = None;
            if let Err(error) = self.api.replace(&self.name, &PostParams::default(), &lease).await {
                tracing::debug!(%error, "cannot give up the lease");
            }
        }
    }

    /// Takes or renews the lease, unless somebody else holds it. Two who try at once cannot both succeed: each writes over
    /// the version that it has read.
    async fn try_acquire(&self, rival: &mut Rival) -> Result<bool, kube::Error> {
        let sent = Instant::now();
        let acquired = self.write(rival).await?;
        if acquired {
            self.held.renewed(sent);
        }
        Ok(acquired)
    }

    async fn write(&self, rival: &mut Rival) -> Result<bool, kube::Error> {
        let now = MicroTime(Timestamp::now());
        let last = self.last.lock().take();
        // One request, where nobody has written to it since: the version says so.
        if let Some(mut lease) = last {
            if let Some(spec) = lease.spec.as_mut() {
                spec.renew_time = Some(now.clone());
            }
            if self.written(self.api.replace(&self.name, &PostParams::default(), &lease).await)? {
                return Ok(true);
            }
        }
        let Some(lease) = self.api.get_opt(&self.name).await? else {
            let lease = Lease { metadata: self.metadata(), spec: Some(self.claim(&now, &now, 0)) };
            return self.written(self.api.create(&PostParams::default(), &lease).await);
        };
        let spec = lease.spec.clone().unwrap_or_default();
        let holder = spec.holder_identity.clone().filter(|holder| !holder.is_empty());
        let ours = holder.as_ref() == Some(&self.holder);
        if holder.is_some()
            && !ours
            && !rival.has_expired(lease.metadata.resource_version.clone(), Instant::now())
        {
            return Ok(false);
        }
        let changes = spec.lease_transitions.unwrap_or(0);
        let claim = match spec.acquire_time.filter(|_| ours) {
            Some(acquired) => self.claim(&acquired, &now, changes),
            None => self.claim(&now, &now, changes.saturating_add(1)),
        };
        let lease = Lease { metadata: lease.metadata, spec: Some(claim) };
        self.written(self.api.replace(&self.name, &PostParams::default(), &lease).await)
    }

    /// Whether a write went through. Somebody else's being first is no error.
    fn written(&self, result: Result<Lease, kube::Error>) -> Result<bool, kube::Error> {
        match result {
            Ok(lease) => {
                *self.last.lock() = Some(lease);
                Ok(true)
            }
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn metadata(&self) -> ObjectMeta {
        ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() }
    }

    fn claim(&self, acquired: &MicroTime, renewed: &MicroTime, transitions: i32) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(self.holder.clone()),
            lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
            acquire_time: Some(acquired.clone()),
            renew_time: Some(renewed.clone()),
            lease_transitions: Some(transitions),
            ..LeaseSpec::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rival_expires_only_when_its_claim_stands_still() {
        let start = Instant::now();
        let mut rival = Rival::default();
        let version = |text: &str| Some(text.to_owned());
        assert!(!rival.has_expired(version("1"), start));
        assert!(!rival.has_expired(version("2"), start + DURATION * 2), "it has been renewed");
        assert!(!rival.has_expired(version("2"), start + DURATION * 3));
        assert!(rival.has_expired(version("2"), start + DURATION * 4));
    }

    #[tokio::test(start_paused = true)]
    async fn a_process_that_stood_still_does_not_take_the_lease_for_held() {
        let held = Held::default();
        assert!(!held.is_fresh(), "it was never taken");
        held.renewed(Instant::now());
        assert!(held.is_fresh());
        tokio::time::advance(SURE).await;
        assert!(!held.is_fresh(), "another operator may take it before a request arrives");
    }
}
