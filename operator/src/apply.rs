//! Making the world as planned: objects by server-side apply, and at most one action.

use std::fmt::Debug;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Secret};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{DeleteParams, ObjectMeta, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Client, ResourceExt};
use quorate_crds::RaftCluster;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::membership::Ordinal;
use crate::nodes::{Admin, AdminError, Target};
use crate::observe::{Secrets, Sight};
use crate::plan::Action;
use crate::quantity;
use crate::resources::certificates::{self, CertificateError, Purpose};
use crate::resources::{self, Objects};

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

/// Makes certificates that are missing, or that do not serve any more. Nodes take new ones up by themselves.
pub async fn certificates(
    client: &Client,
    cluster: &RaftCluster,
    secrets: &Secrets,
) -> Result<(), ApplyError> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let ca = match &secrets.ca {
        Some(ca) => ca.clone(),
        // Created, never applied: nothing may take the place of a CA that is there.
        None => create(client, cluster, certificates::new_ca(cluster, now)?).await?,
    };
    leaf(client, cluster, Purpose::Admin, secrets.admin.as_ref(), &ca, now).await?;
    leaf(client, cluster, Purpose::Nodes, secrets.peers.as_ref(), &ca, now).await
}

async fn leaf(
    client: &Client,
    cluster: &RaftCluster,
    purpose: Purpose,
    current: Option<&Secret>,
    ca: &Secret,
    now: Duration,
) -> Result<(), ApplyError> {
    if current.is_some_and(|current| certificates::is_current(cluster, purpose, current, ca, now)) {
        return Ok(());
    }
    let made = certificates::new_leaf(cluster, purpose, ca, now)?;
    apply(client, cluster, &made).await?;
    let namespace = cluster.namespace().unwrap_or_default();
    tracing::info!(
        cluster = format!("{namespace}/{}", cluster.name_any()),
        secret = made.name_any(),
        "made a certificate"
    );
    Ok(())
}

async fn create(client: &Client, cluster: &RaftCluster, secret: Secret) -> Result<Secret, ApplyError> {
    let namespace = cluster.namespace().unwrap_or_default();
    let created = Api::namespaced(client.clone(), &namespace).create(&PostParams::default(), &secret).await;
    created.map_err(|source| ApplyError::Object { object: format!("Secret {}", secret.name_any()), source })
}

/// Applies the objects. One that is refused does not hold up the others; the first refusal is returned, and the `StatefulSet`
/// as it is now, if that was not refused.
pub async fn objects(
    client: &Client,
    cluster: &RaftCluster,
    objects: &Objects,
) -> (Option<StatefulSet>, Result<(), ApplyError>) {
    let (peers, clients, policy, pdb) = futures::join!(
        apply(client, cluster, &objects.peers),
        apply(client, cluster, &objects.client),
        Box::pin(network_policy(client, cluster, objects.network_policy.as_ref())),
        apply(client, cluster, &objects.pdb),
    );
    // The pods come last: what they need is there.
    let (stateful_set, refused) = match apply(client, cluster, &objects.stateful_set).await {
        Ok(stateful_set) => (Some(stateful_set), Ok(())),
        Err(error) => (None, Err(error)),
    };
    (stateful_set, peers.map(drop).and(clients.map(drop)).and(policy).and(pdb.map(drop)).and(refused))
}

/// Applies the policy, or takes away the one that was there before the spec wanted none: policies add up, so one that is left behind would
/// still decide.
async fn network_policy(
    client: &Client,
    cluster: &RaftCluster,
    wanted: Option<&NetworkPolicy>,
) -> Result<(), ApplyError> {
    if let Some(wanted) = wanted {
        return apply(client, cluster, wanted).await.map(drop);
    }
    let name = cluster.name_any();
    let api = Api::<NetworkPolicy>::namespaced(client.clone(), &cluster.namespace().unwrap_or_default());
    let there = api
        .get_metadata_opt(&name)
        .await
        .map_err(|source| ApplyError::Object { object: format!("NetworkPolicy {name}"), source })?;
    match there.and_then(|there| there.metadata.uid.clone().filter(|_| is_ours(cluster, &there.metadata))) {
        Some(uid) => delete::<NetworkPolicy>(client, cluster, name, &uid).await,
        None => Ok(()),
    }
}

/// Applies an object of the cluster. Applying takes over whatever is there, so what is not the cluster's is refused first.
async fn apply<K>(client: &Client, cluster: &RaftCluster, object: &K) -> Result<K, ApplyError>
where
    K: kube::Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Serialize
        + DeserializeOwned
        + Clone
        + Debug,
{
    let namespace = cluster.namespace().unwrap_or_default();
    let parameters = PatchParams::apply(FIELD_MANAGER).force();
    let api = Api::<K>::namespaced(client.clone(), &namespace);
    let name = object.name_any();
    let shown = || format!("{} {name}", K::kind(&()));
    let failed = |source| ApplyError::Object { object: shown(), source };
    if let Some(there) = api.get_metadata_opt(&name).await.map_err(failed)?
        && !is_ours(cluster, &there.metadata)
    {
        return Err(ApplyError::Foreign(shown()));
    }
    api.patch(&name, &parameters, &Patch::Apply(object)).await.map_err(failed)
}

/// Whether the cluster owns an object, or an operator made it for a cluster of this name that is gone.
fn is_ours(cluster: &RaftCluster, metadata: &ObjectMeta) -> bool {
    let owners = metadata.owner_references.iter().flatten();
    let owned = cluster.uid().is_some_and(|uid| owners.into_iter().any(|owner| owner.uid == uid));
    owned || metadata.labels.as_ref().is_some_and(|found| resources::are_ours(cluster, found))
}

/// Asks for larger volumes where the spec does. The storage class decides whether they grow.
pub async fn volume_sizes(client: &Client, cluster: &RaftCluster, sight: &Sight) -> Result<(), ApplyError> {
    let wanted = &cluster.spec.storage.size;
    let Some(bytes) = quantity::bytes(wanted) else { return Ok(()) };
    let namespace = cluster.namespace().unwrap_or_default();
    let api = Api::<PersistentVolumeClaim>::namespaced(client.clone(), &namespace);
    for (ordinal, claim) in &sight.observed.claims {
        let smaller = claim.size.as_deref().and_then(quantity::bytes).is_some_and(|size| size < bytes);
        if !smaller || !claim.bound || claim.terminating {
            continue;
        }
        let name = claim_name(cluster, *ordinal);
        let patch = json!({"spec": {"resources": {"requests": {"storage": wanted}}}});
        let grown = api.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await;
        grown.map_err(|source| ApplyError::Object {
            object: format!("PersistentVolumeClaim {name}"),
            source,
        })?;
    }
    Ok(())
}

/// Does one action. Each may be repeated without harm. The ID of the cluster is not set here, but with the status.
pub async fn act(
    client: &Client,
    admin: &dyn Admin,
    cluster: &RaftCluster,
    sight: &Sight,
    action: &Action,
) -> Result<(), ApplyError> {
    let identity = sight.observed.identity.unwrap_or_default();
    match action {
        Action::SetIdentity(_) => Ok(()),
        Action::Bootstrap { ordinal, cluster_id } => {
            Ok(admin.bootstrap(target(sight, *ordinal)?, *cluster_id).await?)
        }
        Action::ChangeMembership { leader, expected, wanted } => {
            Ok(admin.change_membership(target(sight, *leader)?, identity, *expected, wanted).await?)
        }
        Action::TransferLeadership { leader, target: successor } => {
            Ok(admin.transfer(target(sight, *leader)?, identity, *successor).await?)
        }
        Action::DeletePod { ordinal, uid } => {
            delete::<Pod>(client, cluster, sight.observed.pod_name(*ordinal), uid).await
        }
        Action::DeleteClaim { ordinal, uid } => {
            delete::<PersistentVolumeClaim>(client, cluster, claim_name(cluster, *ordinal), uid).await
        }
    }
}

/// Deletes the volumes of a cluster that is being deleted. Those that somebody made by hand stay.
pub async fn delete_volumes(client: &Client, cluster: &RaftCluster, sight: &Sight) -> Result<(), ApplyError> {
    for (ordinal, claim) in &sight.observed.claims {
        if claim.ours && !claim.terminating {
            delete::<PersistentVolumeClaim>(client, cluster, claim_name(cluster, *ordinal), &claim.uid)
                .await?;
        }
    }
    Ok(())
}

/// Deletes this object, and not another of the same name. One that is gone is what was wanted.
async fn delete<K>(client: &Client, cluster: &RaftCluster, name: String, uid: &str) -> Result<(), ApplyError>
where
    K: kube::Resource<DynamicType = (), Scope = NamespaceResourceScope> + DeserializeOwned + Clone + Debug,
{
    let namespace = cluster.namespace().unwrap_or_default();
    let this_one = Preconditions { uid: Some(uid.to_owned()), resource_version: None };
    let parameters = DeleteParams::default().preconditions(this_one);
    match Api::<K>::namespaced(client.clone(), &namespace).delete(&name, &parameters).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(source) => Err(ApplyError::Object { object: format!("{} {name}", K::kind(&())), source }),
    }
}

fn target(sight: &Sight, ordinal: Ordinal) -> Result<&Target, ApplyError> {
    sight.targets.get(&ordinal).ok_or_else(|| ApplyError::NoAddress(sight.observed.pod_name(ordinal)))
}

fn claim_name(cluster: &RaftCluster, ordinal: Ordinal) -> String {
    format!("data-{}-{ordinal}", cluster.name_any())
}
