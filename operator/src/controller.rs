//! The driver: one round for one resource, and what starts rounds.
//!
//! A round observes, validates, plans, applies, and writes the status. It starts when the resource or one of its objects
//! changes, when a node's status changes, and after a time in any case.

mod deletion;
mod upgrades;
mod watches;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::core::{DeserializeGuard, DynamicObject};
use kube::runtime::controller::Action;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, Client, Resource, ResourceExt};
use parking_lot::Mutex;
use quorate_crds::{RaftCluster, RaftClusterStatus, UpgradeState};
use serde_json::json;

pub use self::watches::run;
use crate::ages::Ages;
use crate::applied::Applied;
use crate::apply::{self, ApplyError, FIELD_MANAGER, Outcome, Template};
use crate::custody::{self, Custody, Installation};
use crate::events::Events;
use crate::fence::Fence;
use crate::fleet::Fleet;
use crate::lease::Held;
use crate::metrics::Metrics;
use crate::nodes::Admin;
use crate::observe::{Sight, observe, stateful_set_state};
use crate::pace::Pace;
use crate::plan::{self, Budget, Course, Plan, Step};
use crate::recovery;
use crate::resources::{self, Blueprint, Objects, digest};
use crate::status::{CERTIFICATES, Findings, QUIET, news, status};
use crate::streams::Streams;
use crate::trust::{self, Keeper, Report};
use crate::upgrade::Decision;
use crate::validate::{Invalid, Valid, validate};

/// A resource that may not be readable: one that is malformed must not end the watch of the others.
pub type Guarded = DeserializeGuard<RaftCluster>;

/// A round begins at least this often. All that it sees of Kubernetes but the Secrets is watched, and so are the nodes: this is for what has been
/// missed all the same, and for certificates, which are renewed long before their end.
const IDLE: Duration = Duration::from_hours(4);
/// The same where the spec names a Secret: somebody else renews it, and nobody says when.
const IDLE_WITH_A_SECRET: Duration = Duration::from_mins(5);
/// The same while the upgrade waits for its turn: who ends one starts a round of the next, unless that was lost.
const TURN: Duration = Duration::from_mins(10);
/// While a step is pending, in case that no event says that it can go on.
const PENDING: Duration = Duration::from_secs(10);
/// After something was done, in case that no event says so.
const ACTED: Duration = Duration::from_secs(2);
/// How long until a cluster that another installation looks after is looked at again.
const ANOTHERS: Duration = Duration::from_mins(1);
/// A change of membership that was asked for is carried out, or never, within this.
const CHANGE_UNDER_WAY: Duration = Duration::from_secs(30);
const FIRST_BACKOFF: Duration = Duration::from_secs(1);
const LAST_BACKOFF: Duration = Duration::from_mins(5);

/// What every round needs.
pub struct Context {
    /// The API server.
    pub client: Client,
    /// The nodes.
    pub admin: Arc<dyn Admin>,
    /// The nodes' streams.
    pub streams: Streams,
    /// What people are told.
    pub events: Events,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// The image of nodes whose resource names none.
    pub node_image: String,
    /// The domain of the Kubernetes cluster.
    pub domain: String,
    /// The upgrades of all clusters.
    pub fleet: Fleet,
    /// Where the operator runs, and which of several it is.
    pub installation: Installation,
    /// What has been applied.
    pub applied: Applied,
    /// When the rounds began.
    pub pace: Pace,
    /// How long what is wrong has lasted.
    pub ages: Ages,
    /// Whether this operator holds the lease.
    pub held: Held,
    /// The changes of membership that were asked for last, and the budgets that go with them.
    pub asked: Mutex<HashMap<ObjectRef<Guarded>, (tokio::time::Instant, Budget)>>,
    /// How often in a row each resource's round has failed.
    pub failures: Mutex<HashMap<ObjectRef<Guarded>, u32>>,
}

/// A round that could not be finished. It is tried again, later each time.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The cluster's objects could not be read.
    #[error("cannot observe the cluster: {0}")]
    Observe(#[source] kube::Error),
    /// The status, or the finalizer, could not be written.
    #[error("cannot write the resource: {0}")]
    Write(#[source] kube::Error),
    /// Something could not be made as planned.
    #[error(transparent)]
    Apply(#[from] ApplyError),
}

impl Error {
    /// Whether it is only that nothing can be made any more in a namespace that is being deleted. What is there goes with it.
    fn is_of_a_namespace_that_goes(&self) -> bool {
        let (Self::Observe(source) | Self::Write(source) | Self::Apply(ApplyError::Object { source, .. })) =
            self
        else {
            return false;
        };
        let kube::Error::Api(status) = source else { return false };
        status.code == 403 && status.message.contains("because it is being terminated")
    }
}

/// What of a plan could not be done.
#[derive(Debug, thiserror::Error)]
enum Unfinished {
    /// Objects were refused. The step was done all the same, or waits for something else.
    #[error(transparent)]
    Objects(ApplyError),
    /// The step itself, or what comes before every step.
    #[error(transparent)]
    Step(ApplyError),
}

impl From<Unfinished> for Error {
    fn from(unfinished: Unfinished) -> Self {
        match unfinished {
            Unfinished::Objects(error) | Unfinished::Step(error) => Self::Apply(error),
        }
    }
}

impl Context {
    /// A resource that is gone was not always seen going: without a finalizer there is no last round.
    pub fn forget_gone(&self, gone: &ObjectRef<DynamicObject>) {
        let namespace = gone.namespace.as_deref().unwrap_or_default();
        self.forget(&ObjectRef::new(&gone.name).within(namespace));
    }

    /// Ends the streams of a cluster, closes its connections, and forgets how often its rounds have failed.
    fn forget(&self, cluster: &ObjectRef<Guarded>) {
        self.streams.forget(cluster);
        self.ages.forget(cluster);
        if self.fleet.forget(cluster) {
            self.hand_turn_on();
        }
        self.applied.forget(cluster);
        self.pace.forget(cluster);
        self.metrics.forget(cluster.namespace.as_deref().unwrap_or_default(), &cluster.name);
        self.failures.lock().remove(cluster);
        self.metrics.forget_certificates(cluster);
        let namespace = cluster.namespace.as_deref().unwrap_or_default();
        // With the dot before it: the name of another cluster may end like this one's.
        self.admin.forget(&resources::pod_host(&cluster.name, namespace, ""));
    }

    /// An upgrade is over: those that wait for their turn begin a round.
    fn hand_turn_on(&self) {
        for next in self.fleet.next() {
            self.streams.wake(next);
        }
    }
}

/// The authorities of a cluster are in the operator's namespace, where nothing takes them away with it. One that stays serves the next cluster of
/// the name.
async fn forget_authorities(context: Arc<Context>, gone: ObjectRef<DynamicObject>) {
    let (home, namespace) = (&context.installation.namespace, gone.namespace.unwrap_or_default());
    if let Err(error) = trust::forget(&context.client, home, &namespace, &gone.name).await {
        tracing::debug!(%error, cluster = format!("{namespace}/{}", gone.name), "cannot delete the authorities");
    }
}

/// One round, unless the one before began just now.
async fn paced(object: Arc<Guarded>, context: Arc<Context>) -> Result<Action, Error> {
    match context.pace.begin(&ObjectRef::from_obj(&*object)) {
        Ok(()) => reconcile(object, context).await,
        Err(wait) => Ok(Action::requeue(wait)),
    }
}

/// One round.
pub async fn reconcile(object: Arc<Guarded>, context: Arc<Context>) -> Result<Action, Error> {
    let reference = ObjectRef::from_obj(&*object);
    let cluster = match &object.0 {
        Ok(cluster) => cluster,
        Err(invalid) => {
            tracing::warn!(cluster = short(&reference), error = invalid.error, "the resource cannot be read");
            let note = format!("the resource cannot be read: {}", invalid.error);
            context.events.warning(&object.object_ref(&()), "Malformed", &note).await;
            return Ok(Action::await_change());
        }
    };
    let started = Instant::now();
    let round = Round { context: &context, cluster, reference: &reference };
    let result = Box::pin(round.run()).await;
    context.metrics.round(result.is_ok(), started.elapsed());
    if result.is_ok() {
        context.failures.lock().remove(&reference);
    }
    result
}

/// Each resource has a backoff of its own: one that fails does not slow the others.
pub fn on_error(object: &Guarded, error: &Error, context: &Context) -> Action {
    let reference = ObjectRef::from_obj(object);
    if error.is_of_a_namespace_that_goes() {
        tracing::debug!(cluster = short(&reference), %error, "its namespace is being deleted");
        return Action::requeue(PENDING);
    }
    let mut failures = context.failures.lock();
    let count = failures.entry(reference.clone()).or_default();
    let delay = FIRST_BACKOFF.saturating_mul(1 << (*count).min(16)).min(LAST_BACKOFF);
    *count = count.saturating_add(1);
    tracing::warn!(cluster = short(&reference), %error, again_in = ?delay, "the round failed");
    Action::requeue(delay)
}

struct Round<'a> {
    context: &'a Context,
    cluster: &'a RaftCluster,
    reference: &'a ObjectRef<Guarded>,
}

impl Round<'_> {
    async fn run(&self) -> Result<Action, Error> {
        let Context { client, admin, installation, .. } = self.context;
        match custody::claim(client, self.cluster, installation).await.map_err(Error::Write)? {
            Custody::Ours => {}
            // What was read is not current any more. The change starts the next round.
            Custody::Taken => return Ok(Action::requeue(ACTED)),
            Custody::Anothers(other) => return Ok(self.leave_alone(&format!("{other} looks after it"))),
            Custody::Unclear(note) => {
                let about = self.cluster.object_ref(&());
                self.context.events.warning(&about, "OtherOperator", &note).await;
                return Ok(self.leave_alone(&note));
            }
        }
        let look = self.context.ages.look(self.reference);
        let mut sight = observe(client, &**admin, self.cluster, &installation.namespace, look)
            .await
            .map_err(Error::Observe)?;
        if self.cluster.metadata.deletion_timestamp.is_some() && !self.is_protected() {
            return self.wind_up(&sight).await;
        }
        self.context.streams.watch(self.reference, sight.watched());
        let served = trust::can_serve_clients(self.cluster, &sight.secrets, Timestamp::now().as_second());
        let valid = validate(self.cluster, &sight.observed);
        match valid.and_then(|valid| served.map(|()| valid)) {
            Ok(valid) => Box::pin(self.work(&mut sight, &valid)).await,
            Err(invalid) => Box::pin(self.report(&mut sight, &invalid)).await,
        }
    }

    /// Another installation's cluster is not touched. When that is gone, nothing about the cluster changes: it is looked at again.
    fn leave_alone(&self, why: &str) -> Action {
        tracing::debug!(cluster = short(self.reference), why, "leaves a cluster alone");
        self.context.forget(self.reference);
        Action::requeue(ANOTHERS)
    }

    async fn work(&self, sight: &mut Sight, valid: &Valid) -> Result<Action, Error> {
        let mut decision = self.decide(sight);
        sight.observed.keeps_template = decision.keep_template;
        let mut plan = plan::plan(&valid.wanted, &sight.observed, fresh_id());
        self.hold_budget(&mut plan);
        if self.write_first(&plan).await? {
            // Written before anything else is done. The change of the status starts the next round.
            return Ok(Action::requeue(ACTED));
        }
        if !valid.wanted.paused && self.keep_finalizers(valid.deletion_policy).await? {
            // What was read is not current any more. The change starts the next round.
            return Ok(Action::requeue(ACTED));
        }
        if !self.context.held.is_fresh() {
            // It stood still since the round began: another operator may work by now, on newer news.
            tracing::debug!(cluster = short(self.reference), "the lease is to be renewed first");
            return Ok(Action::requeue(ACTED));
        }
        if !valid.wanted.paused && self.begin_upgrade(&mut decision, &plan).await? {
            // Written before a pod is touched. The change of the status starts the next round.
            return Ok(Action::requeue(ACTED));
        }
        let certificates = Box::pin(self.keep_certificates(sight)).await;
        let (certificates, kept) =
            certificates.map_or_else(|error| (None, Err(error)), |found| (found, Ok(())));
        let result = match (&sight.observed.earlier, kept) {
            // What is there goes with its owner; what is made now could go with it.
            (Some(_), _) => Ok(()),
            (None, kept) if valid.wanted.paused => {
                let client = &self.context.client;
                let objects = self.objects(sight, &decision, &plan);
                let budget = apply::budget(client, self.cluster, &objects, &self.context.applied).await;
                kept.and(budget).map_err(Unfinished::Objects)
            }
            // Pods wait for it.
            (None, Err(error)) if !sight.secrets.has_what_pods_mount(self.cluster) => {
                Err(Unfinished::Step(error))
            }
            (None, kept) => {
                let applied = Box::pin(self.apply(sight, valid, &decision, &mut plan)).await;
                applied.and(kept.map_err(Unfinished::Objects))
            }
        };
        let problem = result.as_ref().err().map(ToString::to_string);
        let findings = Findings {
            cluster: self.cluster,
            seen: &sight.observed,
            spec: Ok(valid),
            plan: Some(&plan),
            upgrade: Some(&decision),
            problem: problem.as_deref(),
            certificates: certificates.as_ref(),
            now: Timestamp::now(),
        };
        let written = self.write_status(&findings).await?;
        match (&result, &plan.step) {
            // An object that is refused does not slow the steps of the plan: they go on at their own pace.
            (Err(Unfinished::Objects(error)), Some(_)) => {
                tracing::warn!(cluster = short(self.reference), %error, "not all objects could be applied");
            }
            _ => result?,
        }
        Ok(Action::requeue(match plan.step {
            _ if !written => ACTED,
            // Whether it lasts, no event may say.
            None if sight.observed.troubles.iter().any(|trouble| trouble.lasting < QUIET) => PENDING,
            None if certificates.is_some_and(|found| found.nodes_are_awaited) => PENDING,
            None if decision.approved => TURN,
            None => self.rest(valid),
            Some(_) if plan.action().is_some() => ACTED,
            Some(_) => PENDING,
        }))
    }

    /// How long nothing has to be done, if nothing happens: until the level may be raised, or for long.
    fn rest(&self, valid: &Valid) -> Duration {
        let level = self.cluster.status.as_ref().and_then(|status| status.level.as_ref());
        let since = level.and_then(|level| level.raisable_since.as_ref());
        let stands =
            since.and_then(|since| Duration::try_from(Timestamp::now().duration_since(since.0)).ok());
        match (valid.wanted.finalize_after, stands) {
            (Some(after), Some(stands)) => after.saturating_sub(stands).clamp(PENDING, self.idle()),
            _ => self.idle(),
        }
    }

    fn idle(&self) -> Duration {
        let given = self.cluster.spec.tls.client.as_ref().and_then(|tls| tls.secret_name.as_ref());
        if given.is_some() { IDLE_WITH_A_SECRET } else { IDLE }
    }

    /// Makes the objects as planned, and does the step. The step is planned again with the `StatefulSet` as it has become: a
    /// new template has pods to replace, and what they are made from is not known before its controller has seen it.
    async fn apply(
        &self,
        sight: &mut Sight,
        valid: &Valid,
        decision: &Decision,
        plan: &mut Plan,
    ) -> Result<(), Unfinished> {
        let Context { client, admin, .. } = self.context;
        let objects = self.objects(sight, decision, plan);
        let template = match &sight.observed.stateful_set {
            Some(set) if set.terminating => Template::Going,
            Some(_) if decision.keep_template => Template::Keep,
            _ => Template::Make,
        };
        // An object that is refused does not keep the cluster from changing its members.
        let (stateful_set, applied) =
            apply::objects(client, self.cluster, &objects, template, &self.context.applied).await;
        if let Some(stateful_set) = stateful_set {
            sight.observed.stateful_set = Some(stateful_set_state(&stateful_set));
            let again = plan::plan(&valid.wanted, &sight.observed, fresh_id());
            let raised = again.budget != plan.budget;
            (plan.step, plan.budget) = (again.step, again.budget);
            self.hold_budget(plan);
            if raised {
                // Before the step: more voters are asked for only when the budget counts them.
                let objects = self.objects(sight, decision, plan);
                apply::budget(client, self.cluster, &objects, &self.context.applied)
                    .await
                    .map_err(Unfinished::Step)?;
            }
        }
        // A class that does not let volumes grow leaves the cluster as it is.
        let grown = apply::volume_sizes(client, self.cluster, sight).await;
        sight.observed.resize_refused = grown.err().map(|error| error.to_string());
        let labelled = apply::roles(client, self.cluster, &sight.observed).await;
        let marks = plan::marks(&valid.wanted, &sight.observed);
        let marked = apply::marks(client, self.cluster, sight, &marks).await;
        if let Some(step) = &plan.step
            && let Course::Act(action) = &step.course
        {
            let kind = format!("{:?}", step.kind);
            let namespace = self.cluster.namespace().unwrap_or_default();
            let held = &self.context.held;
            let fence = Fence { client, admin: &**admin, held, namespace: &namespace, sight };
            let done =
                apply::act(&fence, self.blueprint(sight, &decision.image, plan.pods, plan.budget), action)
                    .await
                    .map_err(Unfinished::Step)?;
            if let Outcome::Later(until) = done {
                tracing::debug!(cluster = short(self.reference), step = kind, until, "not yet");
                plan.step = Some(Step { course: Course::Wait(until), ..step.clone() });
                return applied.and(labelled).and(marked).map_err(Unfinished::Objects);
            }
            tracing::info!(cluster = short(self.reference), step = kind, reason = step.reason, "done");
            self.context.metrics.step(&kind);
            self.context.events.normal(&self.cluster.object_ref(&()), &kind, &step.reason).await;
        }
        applied.and(labelled).and(marked).map_err(Unfinished::Objects)
    }

    /// Certificates do not expire, also while the cluster is paused, or its spec cannot be worked on.
    async fn keep_certificates(&self, sight: &mut Sight) -> Result<Option<Report>, ApplyError> {
        if sight.observed.earlier.is_some() {
            return Ok(None);
        }
        let Context { client, installation, domain, metrics, .. } = self.context;
        let keeper = Keeper { client, cluster: self.cluster, home: &installation.namespace, domain };
        let report = keeper.keep(&mut sight.secrets, &sight.observed).await?;
        metrics.certificates(self.reference, &report.terms);
        for (reason, note) in &report.done {
            self.context.events.normal(&self.cluster.object_ref(&()), reason, note).await;
        }
        Ok(Some(report))
    }

    /// A change that was asked for may be carried out late, even if its answer was lost: the budget that counts its voters stays until then.
    fn hold_budget(&self, plan: &mut Plan) {
        let now = tokio::time::Instant::now();
        let mut asked = self.context.asked.lock();
        asked.retain(|_, (since, _)| now.duration_since(*since) < CHANGE_UNDER_WAY);
        if let Some((_, budget)) = asked.get(self.reference)
            && budget.min_available > plan.budget.min_available
        {
            plan.budget = *budget;
        }
        if let Some(plan::Action::ChangeMembership { .. }) = plan.action() {
            asked.insert(self.reference.clone(), (now, plan.budget));
        }
    }

    fn objects(&self, sight: &Sight, decision: &Decision, plan: &Plan) -> Objects {
        let mut objects = resources::objects(self.blueprint(sight, &decision.image, plan.pods, plan.budget));
        digest::write(&mut objects.stateful_set, &decision.made);
        objects
    }

    fn blueprint<'b>(&'b self, sight: &'b Sight, image: &'b str, pods: u32, budget: Budget) -> Blueprint<'b> {
        Blueprint {
            cluster: self.cluster,
            image,
            pods,
            budget,
            claim_size: sight.observed.stateful_set.as_ref().and_then(|set| set.claim_size.as_deref()),
            operator_namespace: &self.context.installation.namespace,
        }
    }

    /// A spec that cannot be worked on changes nothing but the status.
    async fn report(&self, sight: &mut Sight, invalid: &Invalid) -> Result<Action, Error> {
        let certificates = Box::pin(self.keep_certificates(sight)).await;
        if let Err(error) = &certificates {
            tracing::warn!(cluster = short(self.reference), %error, "cannot keep the certificates");
        }
        let certificates = certificates.ok().flatten();
        let findings = Findings {
            cluster: self.cluster,
            seen: &sight.observed,
            spec: Err(invalid),
            plan: None,
            upgrade: None,
            problem: None,
            certificates: certificates.as_ref(),
            now: Timestamp::now(),
        };
        let written = self.write_status(&findings).await?;
        Ok(Action::requeue(match invalid {
            _ if !written => ACTED,
            // It may come any moment, and no event says so.
            Invalid::ClientSecret { .. } => PENDING,
            _ => self.idle(),
        }))
    }

    /// What is written to the status before anything else is done. Returns whether there was something.
    async fn write_first(&self, plan: &Plan) -> Result<bool, Error> {
        let status = match plan.action() {
            Some(&plan::Action::SetIdentity { id, founded }) => {
                self.set_identity(id, founded).await?;
                return Ok(true);
            }
            Some(plan::Action::BeginRecovery(begun)) => recovery::begun(self.cluster, begun),
            Some(plan::Action::FinishRecovery(finished)) => recovery::finished(self.cluster, finished),
            _ => return Ok(false),
        };
        self.patch_status(&status).await?;
        let reason = plan.step.as_ref().map(|step| step.reason.clone()).unwrap_or_default();
        tracing::warn!(cluster = short(self.reference), reason, "recovers");
        self.context.events.warning(&self.cluster.object_ref(&()), "Recover", &reason).await;
        Ok(true)
    }

    /// Of two operators, one succeeds. Where the ID is taken from volumes, the same write says that the cluster has been founded: there
    /// is no moment at which it could be founded again.
    async fn set_identity(&self, id: u64, founded: bool) -> Result<(), Error> {
        let mut status = self.cluster.status.clone().unwrap_or_default();
        status.cluster_id = Some(format!("{id:016x}"));
        status.bootstrapped |= founded;
        self.patch_status(&status).await?;
        tracing::info!(cluster = short(self.reference), id = format!("{id:016x}"), "the cluster has its ID");
        Ok(())
    }

    /// Whether the status is written. If what was read is not current any more, the next round writes what it finds.
    async fn write_status(&self, findings: &Findings<'_>) -> Result<bool, Error> {
        let before = self.cluster.status.clone().unwrap_or_default();
        let after = status(findings);
        let namespace = self.cluster.namespace().unwrap_or_default();
        self.context.metrics.cluster(&namespace, &self.cluster.name_any(), &after);
        if Some(&after) == self.cluster.status.as_ref() {
            self.note_upgrade(&before, &after);
            return Ok(true);
        }
        match self.patch_status(&after).await {
            Err(Error::Write(kube::Error::Api(status))) if status.code == 409 => {
                tracing::debug!(
                    cluster = short(self.reference),
                    "the resource has changed: written next time"
                );
                return Ok(false);
            }
            result => result?,
        }
        self.note_upgrade(&before, &after);
        self.tell(&before, &after, findings).await;
        Ok(true)
    }

    /// Written over the very version that was read: a status made from an older one could lack the cluster's ID.
    async fn patch_status(&self, status: &RaftClusterStatus) -> Result<(), Error> {
        let name = self.cluster.name_any();
        let namespace = self.cluster.namespace().unwrap_or_default();
        let mut metadata = json!({ "name": name });
        // A resource of the same name that was created since is another cluster.
        if let Some(uid) = self.cluster.uid() {
            metadata["uid"] = uid.into();
        }
        if let Some(version) = self.cluster.resource_version() {
            metadata["resourceVersion"] = version.into();
        }
        let patch = json!({
            "apiVersion": RaftCluster::api_version(&()), "kind": RaftCluster::kind(&()),
            "metadata": metadata, "status": status,
        });
        let api = Api::<RaftCluster>::namespaced(self.context.client.clone(), &namespace);
        let parameters = PatchParams::apply(FIELD_MANAGER).force();
        api.patch_status(&name, &parameters, &Patch::Apply(patch)).await.map_err(Error::Write)?;
        Ok(())
    }

    /// Tells people what has changed.
    async fn tell(&self, before: &RaftClusterStatus, after: &RaftClusterStatus, findings: &Findings<'_>) {
        let events = &self.context.events;
        let about = self.cluster.object_ref(&());
        if let (Some(leader), Some(term)) = (&after.leader, after.term)
            && (before.leader.as_ref() != Some(leader) || before.term != Some(term))
        {
            tracing::info!(cluster = short(self.reference), leader, term, "a leader is elected");
            events.normal(&about, "LeaderElected", &format!("{leader} leads in term {term}")).await;
        }
        let (come, gone) = news(&before.troubles, &after.troubles);
        for (cause, note) in come {
            tracing::warn!(cluster = short(self.reference), cause, note, "a pod does not serve");
            events.warning(&about, cause, &note).await;
        }
        for note in gone {
            events.normal(&about, "TroubleEnded", &note).await;
        }
        let new_generation = before.observed_generation != after.observed_generation;
        match findings.spec {
            Ok(Valid { advice: Some(advice), .. }) if new_generation => {
                events.normal(&about, advice.reason, &advice.message).await;
            }
            Err(invalid) if new_generation => {
                events.warning(&about, invalid.reason(), &invalid.to_string()).await;
            }
            _ => {}
        }
        let certificates = |status: &RaftClusterStatus| {
            let found = status.conditions.iter().find(|one| one.type_ == CERTIFICATES);
            found.filter(|one| one.status == "False").map(|one| (one.reason.clone(), one.message.clone()))
        };
        if let Some((reason, message)) = certificates(after)
            && certificates(before).map(|(reason, _)| reason).as_ref() != Some(&reason)
        {
            tracing::warn!(cluster = short(self.reference), reason, message, "certificates");
            events.warning(&about, &reason, &message).await;
        }
        if let Some(Course::Refuse(needs)) =
            findings.plan.and_then(|plan| plan.step.as_ref()).map(|step| &step.course)
            && before.plan != after.plan
            && let Some(plan) = &after.plan
        {
            tracing::warn!(
                cluster = short(self.reference),
                step = plan.step,
                reason = plan.reason,
                needs,
                "refused"
            );
            events.warning(&about, &plan.step, &format!("refused: {}; needs {needs}", plan.reason)).await;
        }
        let failed = |status: &RaftClusterStatus| {
            let upgrade = status.upgrade.as_ref().filter(|upgrade| upgrade.state == UpgradeState::Failed);
            upgrade.and_then(|upgrade| upgrade.message.clone())
        };
        if let Some(why) =
            findings.seen.resize_refused.as_ref().filter(|_| before.conditions != after.conditions)
        {
            events.warning(&about, "VolumesRefused", why).await;
        }
        if let Some(why) = failed(after).filter(|_| failed(before).is_none()) {
            tracing::warn!(cluster = short(self.reference), why, "the upgrade has failed");
            events.warning(&about, "UpgradeFailed", &why).await;
        }
        if let Some(problem) = findings.problem {
            events.warning(&about, "Failed", problem).await;
        }
    }
}

/// `NAMESPACE/NAME`, as people write it.
fn short(reference: &ObjectRef<Guarded>) -> String {
    format!("{}/{}", reference.namespace.as_deref().unwrap_or_default(), reference.name)
}

/// A random ID that is not zero: zero stands for no cluster.
fn fresh_id() -> u64 {
    loop {
        if let Ok(id @ 1..) = getrandom::u64() {
            return id;
        }
    }
}
