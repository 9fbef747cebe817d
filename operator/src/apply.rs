//! Making the world as planned: objects by server-side apply, and at most one action.

use std::collections::BTreeMap;
use std::fmt::Debug;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{DeleteParams, ObjectMeta, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Client, ResourceExt};
use quorate_crds::RaftCluster;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::applied::Applied;
use crate::fence::Fence;
use crate::membership::Ordinal;
use crate::nodes::{AdminError, Target};
use crate::observe::Sight;
use crate::observed::{ClaimState, Mark, Observed};
use crate::plan::{Action, Means};
use crate::quantity;
use crate::resources::{self, Blueprint, Objects};
use crate::roles;
use crate::trust::CertificateError;

/// Owns the fields that the operator sets.
pub const FIELD_MANAGER: &str = "quorate-operator";

/// Something could not be made as planned.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The API server refused an object.
    #[error("cannot apply {object}: {source}")]
    Object {
        /// Its kind and name.
        object: String,
        /// Why.
        source: kube::Error,
    },
    /// An object of the same name is there, and is none of the cluster's. What it is for, nobody knows: it is left alone.
    #[error(
        "{0} is there already, and does not belong to this cluster: delete it if nobody needs it, or give the cluster another name"
    )]
    Foreign(String),
    /// An object of an earlier cluster of this name, which the garbage collector takes away: to write to it would save it, with the
    /// settings of the other cluster, or lose what is written.
    #[error(
        "{0} belongs to an earlier cluster of this name, and goes with it: it is made anew when it is gone"
    )]
    Earlier(String),
    /// A certificate could not be made.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// A node refused, or did not answer.
    #[error(transparent)]
    Node(#[from] AdminError),
    /// The action is on a node that was not seen in this round.
    #[error("{0} has no address yet")]
    NoAddress(String),
}

impl From<rcgen::Error> for ApplyError {
    fn from(error: rcgen::Error) -> Self {
        Self::Certificate(error.into())
    }
}

/// What becomes of the template of the pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Template {
    /// It is made as planned.
    Make,
    /// It stays as it is: only the number of pods is written.
    Keep,
    /// The `StatefulSet` is being deleted, and nothing is written to it.
    Going,
}

/// Applies the objects. One that is refused does not hold up the others; the first refusal is returned, and the `StatefulSet`
/// as it is now, if that was not refused.
pub async fn objects(
    client: &Client,
    cluster: &RaftCluster,
    objects: &Objects,
    template: Template,
    applied: &Applied,
) -> (Option<StatefulSet>, Result<(), ApplyError>) {
    let (peers, clients, leader, policy, pdb) = futures::join!(
        apply_once(client, cluster, &objects.peers, applied),
        apply_once(client, cluster, &objects.client, applied),
        apply_once(client, cluster, &objects.leader, applied),
        Box::pin(network_policy(client, cluster, objects.network_policy.as_ref(), applied)),
        apply_once(client, cluster, &objects.pdb, applied),
    );
    // The pods come last: what they need is there.
    let stateful_set = match template {
        Template::Make => apply_once(client, cluster, &objects.stateful_set, applied).await,
        Template::Keep => scale(client, cluster, &objects.stateful_set).await.map(Some),
        Template::Going => Ok(None),
    };
    let (stateful_set, refused) = match stateful_set {
        Ok(stateful_set) => (stateful_set, Ok(())),
        Err(error) => (None, Err(error)),
    };
    (
        stateful_set,
        peers
            .map(drop)
            .and(clients.map(drop))
            .and(leader.map(drop))
            .and(policy)
            .and(pdb.map(drop))
            .and(refused),
    )
}

/// Changes the number of pods alone.
async fn scale(
    client: &Client,
    cluster: &RaftCluster,
    wanted: &StatefulSet,
) -> Result<StatefulSet, ApplyError> {
    let name = wanted.name_any();
    let api = Api::<StatefulSet>::namespaced(client.clone(), &cluster.namespace().unwrap_or_default());
    let replicas = wanted.spec.as_ref().and_then(|spec| spec.replicas);
    let patch = json!({"spec": {"replicas": replicas}});
    let scaled = api.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await;
    scaled.map_err(|source| ApplyError::Object { object: format!("StatefulSet {name}"), source })
}

/// Applies the policy, or takes away the one that was there before the spec wanted none: policies add up, so one that is left behind would
/// still decide.
async fn network_policy(
    client: &Client,
    cluster: &RaftCluster,
    wanted: Option<&NetworkPolicy>,
    applied: &Applied,
) -> Result<(), ApplyError> {
    if let Some(wanted) = wanted {
        return apply_once(client, cluster, wanted, applied).await.map(drop);
    }
    let name = cluster.name_any();
    let api = Api::<NetworkPolicy>::namespaced(client.clone(), &cluster.namespace().unwrap_or_default());
    let there = api
        .get_metadata_opt(&name)
        .await
        .map_err(|source| ApplyError::Object { object: format!("NetworkPolicy {name}"), source })?;
    match there.and_then(|there| there.metadata.uid.clone().filter(|_| is_ours(cluster, &there.metadata))) {
        Some(uid) => {
            let this_one = Preconditions { uid: Some(uid), resource_version: None };
            delete::<NetworkPolicy>(client, cluster, name, this_one).await.map(drop)
        }
        None => Ok(()),
    }
}

/// Applies the budget for disruptions alone.
pub async fn budget(
    client: &Client,
    cluster: &RaftCluster,
    objects: &Objects,
    applied: &Applied,
) -> Result<(), ApplyError> {
    apply_once(client, cluster, &objects.pdb, applied).await.map(drop)
}

/// Applies an object of the cluster, unless it is as it was applied last and is to be the same again. Returns it where it was written.
async fn apply_once<K>(
    client: &Client,
    cluster: &RaftCluster,
    object: &K,
    applied: &Applied,
) -> Result<Option<K>, ApplyError>
where
    K: kube::Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Serialize
        + DeserializeOwned
        + Clone
        + Debug,
{
    let name = format!("{} {}", K::kind(&()), object.name_any());
    let there = metadata_of(client, cluster, object).await?;
    let version = there.and_then(|there| there.resource_version);
    if applied.is_current(cluster, &name, object, version.as_deref()) {
        return Ok(None);
    }
    let made = write(client, cluster, object).await?;
    applied.note(cluster, name, object, made.resource_version());
    Ok(Some(made))
}

/// Applies an object of the cluster. What is there has been looked at.
async fn write<K>(client: &Client, cluster: &RaftCluster, object: &K) -> Result<K, ApplyError>
where
    K: kube::Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Serialize
        + DeserializeOwned
        + Clone
        + Debug,
{
    let name = object.name_any();
    let api = Api::<K>::namespaced(client.clone(), &cluster.namespace().unwrap_or_default());
    let parameters = PatchParams::apply(FIELD_MANAGER).force();
    let made = api.patch(&name, &parameters, &Patch::Apply(object)).await;
    made.map_err(|source| ApplyError::Object { object: format!("{} {name}", K::kind(&())), source })
}

/// The metadata of the object that is there. Applying takes over whatever is there, so what is not the cluster's is refused first.
async fn metadata_of<K>(
    client: &Client,
    cluster: &RaftCluster,
    object: &K,
) -> Result<Option<ObjectMeta>, ApplyError>
where
    K: kube::Resource<DynamicType = (), Scope = NamespaceResourceScope> + DeserializeOwned + Clone + Debug,
{
    let name = object.name_any();
    let api = Api::<K>::namespaced(client.clone(), &cluster.namespace().unwrap_or_default());
    let shown = || format!("{} {name}", K::kind(&()));
    let there = api.get_metadata_opt(&name).await;
    let there = there.map_err(|source| ApplyError::Object { object: shown(), source })?;
    let Some(there) = there else { return Ok(None) };
    refuse_foreign(cluster, shown, &there.metadata)?;
    Ok(Some(there.metadata))
}

/// Refuses to write to an object that is there and none of the cluster's.
pub(crate) fn refuse_foreign(
    cluster: &RaftCluster,
    shown: impl Fn() -> String,
    metadata: &ObjectMeta,
) -> Result<(), ApplyError> {
    if resources::is_of_an_earlier_cluster(cluster, metadata) {
        return Err(ApplyError::Earlier(shown()));
    }
    if is_ours(cluster, metadata) { Ok(()) } else { Err(ApplyError::Foreign(shown())) }
}

/// Whether the cluster owns an object, or an operator made it for a cluster of this name that is gone.
fn is_ours(cluster: &RaftCluster, metadata: &ObjectMeta) -> bool {
    let owners = metadata.owner_references.iter().flatten();
    let owned = cluster.uid().is_some_and(|uid| owners.into_iter().any(|owner| owner.uid == uid));
    owned || metadata.labels.as_ref().is_some_and(|found| resources::are_ours(cluster, found))
}

/// Asks for larger volumes where the spec does, and returns the first refusal: the storage class decides whether they grow.
pub async fn volume_sizes(client: &Client, cluster: &RaftCluster, sight: &Sight) -> Result<(), ApplyError> {
    let wanted = &cluster.spec.storage.size;
    let Some(bytes) = quantity::bytes(wanted) else { return Ok(()) };
    let namespace = cluster.namespace().unwrap_or_default();
    let api = Api::<PersistentVolumeClaim>::namespaced(client.clone(), &namespace);
    let mut refused = Ok(());
    for (ordinal, claim) in &sight.observed.claims {
        let smaller = claim.size.as_deref().and_then(quantity::bytes).is_some_and(|size| size < bytes);
        if !smaller || !claim.bound || claim.terminating {
            continue;
        }
        let name = claim_name(cluster, *ordinal);
        let patch = json!({"spec": {"resources": {"requests": {"storage": wanted}}}});
        let grown = api.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await;
        let object = format!("PersistentVolumeClaim {name}");
        refused = refused.and(grown.map(drop).map_err(|source| ApplyError::Object { object, source }));
    }
    refused
}

/// Labels the pods by what their members are. A pod that is gone, or another one by now, is seen in the next round.
pub async fn roles(client: &Client, cluster: &RaftCluster, seen: &Observed) -> Result<(), ApplyError> {
    let namespace = cluster.namespace().unwrap_or_default();
    let api = Api::<Pod>::namespaced(client.clone(), &namespace);
    for (ordinal, role) in roles::changes(seen) {
        let Some(pod) = seen.pods.get(&ordinal) else { continue };
        let name = seen.pod_name(ordinal);
        let patch = json!({"metadata": {"uid": pod.uid, "labels": {resources::ROLE_LABEL: role}}});
        match api.patch_metadata(&name, &PatchParams::default(), &Patch::Merge(patch)).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
            Err(source) => return Err(ApplyError::Object { object: format!("Pod {name}"), source }),
        }
    }
    Ok(())
}

/// Writes on claims whose volumes they stand for.
pub async fn marks(
    client: &Client,
    cluster: &RaftCluster,
    sight: &Sight,
    marks: &BTreeMap<Ordinal, Mark>,
) -> Result<(), ApplyError> {
    let namespace = cluster.namespace().unwrap_or_default();
    let api = Api::<PersistentVolumeClaim>::namespaced(client.clone(), &namespace);
    for (ordinal, mark) in marks {
        let Some(claim) = sight.observed.claims.get(ordinal) else { continue };
        let name = claim_name(cluster, *ordinal);
        let patch = json!({"metadata": {
            // The claim that was seen, and not the next one of its name.
            "uid": claim.uid,
            "annotations": {
                resources::CLUSTER_ID_ANNOTATION: format!("{:016x}", mark.cluster),
                resources::MEMBER_ID_ANNOTATION: format!("{:016x}", mark.member),
                resources::REMOVED_ANNOTATION: mark.removed.map(|policy| format!("{policy:?}")),
            },
        }});
        match api.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await {
            Ok(_) => {}
            // It is gone, or another one: seen in the next round.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
            Err(source) => {
                return Err(ApplyError::Object { object: format!("PersistentVolumeClaim {name}"), source });
            }
        }
    }
    Ok(())
}

/// What became of an action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was done.
    Done,
    /// It was not: it has to wait for this.
    Later(String),
}

impl From<Result<(), String>> for Outcome {
    fn from(result: Result<(), String>) -> Self {
        result.map_or_else(Self::Later, |()| Self::Done)
    }
}

/// Does one action. Each may be repeated without harm. What cannot be undone is looked at again first. The ID of the cluster is not set
/// here, but with the status.
pub async fn act(
    fence: &Fence<'_>,
    blueprint: Blueprint<'_>,
    action: &Action,
) -> Result<Outcome, ApplyError> {
    let Fence { client, admin, sight, .. } = *fence;
    let cluster = blueprint.cluster;
    let identity = sight.observed.identity.unwrap_or_default();
    match action {
        // They are written with the status.
        Action::SetIdentity { .. } | Action::BeginRecovery(_) | Action::FinishRecovery(_) => {}
        Action::RunRecovery { ordinal, from, to } => {
            if let Err(until) = fence.lease() {
                return Ok(Outcome::Later(until));
            }
            let pod = resources::recovery_pod(blueprint, &claim_name(cluster, *ordinal), *from, *to);
            let namespace = cluster.namespace().unwrap_or_default();
            let made = Api::namespaced(client.clone(), &namespace).create(&PostParams::default(), &pod).await;
            return outcome(made.map(drop), &format!("Pod {}", pod.name_any()));
        }
        Action::EndRecovery { uid } => {
            let this_one = Preconditions { uid: Some(uid.clone()), resource_version: None };
            return delete::<Pod>(
                client,
                cluster,
                resources::recovery_pod_name(&cluster.name_any()),
                this_one,
            )
            .await;
        }
        Action::Bootstrap { ordinal, cluster_id } => {
            if let Err(until) = fence.founding() {
                return Ok(Outcome::Later(until));
            }
            admin.bootstrap(target(sight, *ordinal)?, *cluster_id).await?;
        }
        Action::ChangeMembership { leader, expected, wanted } => {
            admin.change_membership(target(sight, *leader)?, identity, *expected, wanted).await?;
        }
        Action::TransferLeadership { leader, target: successor } => {
            admin.transfer(target(sight, *leader)?, identity, *successor).await?;
        }
        Action::RemakeStatefulSet { uid } => {
            return remake(client, cluster, uid).await;
        }
        Action::RaiseLevel { leader, to } => {
            admin.raise_level(target(sight, *leader)?, identity, *to).await?;
        }
        Action::EndPod { ordinal, uid, by } => {
            let version = match fence.pod(*ordinal, &claim_name(cluster, *ordinal)).await {
                Ok(version) => version,
                Err(until) => return Ok(Outcome::Later(until)),
            };
            let this_one = Preconditions { uid: Some(uid.clone()), resource_version: Some(version) };
            let name = sight.observed.pod_name(*ordinal);
            return match by {
                Means::Eviction => evict(client, cluster, &name, this_one).await,
                Means::Deletion => delete::<Pod>(client, cluster, name, this_one).await,
            };
        }
        Action::RetainVolume { volume, claim, .. } => {
            if let Err(until) = fence.lease() {
                return Ok(Outcome::Later(until));
            }
            return retain(client, volume, claim).await;
        }
        Action::DeleteClaim { ordinal, uid } => {
            let name = claim_name(cluster, *ordinal);
            let version = match fence.claim(*ordinal, &name).await {
                Ok(version) => version,
                Err(until) => return Ok(Outcome::Later(until)),
            };
            let this_one = Preconditions { uid: Some(uid.clone()), resource_version: Some(version) };
            return delete::<PersistentVolumeClaim>(client, cluster, name, this_one).await;
        }
    }
    Ok(Outcome::Done)
}

/// Has a volume stay without its claim, if it is bound to this one.
async fn retain(client: &Client, name: &str, claim: &str) -> Result<Outcome, ApplyError> {
    let object = format!("PersistentVolume {name}");
    let api = Api::<PersistentVolume>::all(client.clone());
    let failed = |source| ApplyError::Object { object: object.clone(), source };
    let Some(volume) = api.get_opt(name).await.map_err(failed)? else {
        return Ok(Outcome::Later(format!("{object} to be seen again: it is gone")));
    };
    let bound_to = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref()?.uid.as_deref());
    if bound_to != Some(claim) {
        return Ok(Outcome::Later(format!("{object} to be seen again: it is bound to another claim")));
    }
    let patch = json!({
        "metadata": {"resourceVersion": volume.resource_version()},
        "spec": {"persistentVolumeReclaimPolicy": "Retain"},
    });
    let answer = api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await;
    outcome(answer.map(drop), &object)
}

/// Takes the `StatefulSet` away, and leaves its pods: the next one, of the same template, takes them over.
async fn remake(client: &Client, cluster: &RaftCluster, uid: &str) -> Result<Outcome, ApplyError> {
    let name = cluster.name_any();
    let this_one = Preconditions { uid: Some(uid.to_owned()), resource_version: None };
    let parameters = DeleteParams::orphan().preconditions(this_one);
    let api = Api::<StatefulSet>::namespaced(client.clone(), &cluster.namespace().unwrap_or_default());
    let answer = api.delete(&name, &parameters).await;
    outcome(answer.map(drop), &format!("StatefulSet {name}"))
}

/// Asks a pod to go, as a drain does: the budget is the one lock of all who end pods.
async fn evict(
    client: &Client,
    cluster: &RaftCluster,
    name: &str,
    this_one: Preconditions,
) -> Result<Outcome, ApplyError> {
    let namespace = cluster.namespace().unwrap_or_default();
    // Written here: the client's own method names the options so that the API server overlooks them.
    let eviction = json!({
        "apiVersion": "policy/v1", "kind": "Eviction",
        "metadata": {"name": name, "namespace": namespace},
        "deleteOptions": {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {
            "uid": this_one.uid, "resourceVersion": this_one.resource_version,
        }},
    });
    let api = Api::<Pod>::namespaced(client.clone(), &namespace);
    let answer: Result<serde_json::Value, _> =
        api.create_subresource("eviction", name, &PostParams::default(), &eviction).await;
    outcome(answer.map(drop), &format!("Pod {name}"))
}

/// What an answer to the end of an object means: one that is gone is what was wanted, one that has changed is looked at again.
fn outcome(answer: Result<(), kube::Error>, object: &str) -> Result<Outcome, ApplyError> {
    match answer {
        Ok(()) => Ok(Outcome::Done),
        Err(kube::Error::Api(status)) => match status.code {
            404 => Ok(Outcome::Done),
            409 => Ok(Outcome::Later(format!("{object} to be seen again: it has changed"))),
            429 => {
                Ok(Outcome::Later(format!("the disruption budget to let {object} go: {}", status.message)))
            }
            _ => Err(ApplyError::Object { object: object.to_owned(), source: kube::Error::Api(status) }),
        },
        Err(source) => Err(ApplyError::Object { object: object.to_owned(), source }),
    }
}

/// Takes away the pods of a cluster that is being deleted. The `StatefulSet` stays until its owner is gone: without it nobody would
/// know which pods are meant.
pub async fn end_pods(client: &Client, cluster: &RaftCluster, sight: &Sight) -> Result<(), ApplyError> {
    let Some(set) = &sight.observed.stateful_set else { return Ok(()) };
    if set.replicas == 0 || sight.observed.earlier.is_some() {
        return Ok(());
    }
    let namespace = cluster.namespace().unwrap_or_default();
    let api = Api::<StatefulSet>::namespaced(client.clone(), &namespace);
    let name = cluster.name_any();
    match api.patch(&name, &PatchParams::default(), &Patch::Merge(json!({"spec": {"replicas": 0}}))).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(source) => Err(ApplyError::Object { object: format!("StatefulSet {name}"), source }),
    }
}

/// Deletes the volumes of a cluster that is being deleted, and says whether any of them are still there. Those that somebody made by
/// hand stay, and those of another cluster of the name.
pub async fn delete_volumes(
    client: &Client,
    cluster: &RaftCluster,
    sight: &Sight,
) -> Result<bool, ApplyError> {
    let identity = sight.observed.identity;
    let goes = |claim: &ClaimState| claim.is_of(identity);
    let mut any = false;
    for (ordinal, claim) in sight.observed.claims.iter().filter(|(_, claim)| goes(claim)) {
        any = true;
        if !claim.terminating {
            let this_one = Preconditions { uid: Some(claim.uid.clone()), resource_version: None };
            delete::<PersistentVolumeClaim>(client, cluster, claim_name(cluster, *ordinal), this_one).await?;
        }
    }
    Ok(any)
}

/// Deletes this object, and not another of the same name.
async fn delete<K>(
    client: &Client,
    cluster: &RaftCluster,
    name: String,
    this_one: Preconditions,
) -> Result<Outcome, ApplyError>
where
    K: kube::Resource<DynamicType = (), Scope = NamespaceResourceScope> + DeserializeOwned + Clone + Debug,
{
    let namespace = cluster.namespace().unwrap_or_default();
    let parameters = DeleteParams::default().preconditions(this_one);
    let answer = Api::<K>::namespaced(client.clone(), &namespace).delete(&name, &parameters).await;
    outcome(answer.map(drop), &format!("{} {name}", K::kind(&())))
}

fn target(sight: &Sight, ordinal: Ordinal) -> Result<&Target, ApplyError> {
    sight.targets.get(&ordinal).ok_or_else(|| ApplyError::NoAddress(sight.observed.pod_name(ordinal)))
}

fn claim_name(cluster: &RaftCluster, ordinal: Ordinal) -> String {
    format!("data-{}-{ordinal}", cluster.name_any())
}
