//! Which installation of the operator looks after a cluster, where there are several.
//!
//! Two releases that both watch a namespace would each make the cluster's objects their own way, for ever. So a cluster is claimed
//! first, by an annotation that is written over the version that was read: of two that try at once, one succeeds. A claim stands for
//! as long as the lease of its installation exists, which comes and goes with the release: what an installation has left that is
//! gone, the next one takes up, under whatever name it was installed.

use std::fmt::{self, Display, Formatter};

use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use quorate_crds::RaftCluster;
use serde_json::json;

/// Names the installation that looks after a cluster: the namespace of its lease, and the lease.
pub const ANNOTATION: &str = "quorate.dev/operator";

/// An installation of the operator: the replicas that share a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installation {
    /// Where it runs.
    pub namespace: String,
    /// The name of its lease.
    pub lease: String,
}

impl Installation {
    fn parse(text: &str) -> Option<Self> {
        let (namespace, lease) = text.split_once('/')?;
        let parts = [namespace, lease];
        let named = parts.iter().all(|part| !part.is_empty() && !part.contains('/'));
        named.then(|| Self { namespace: namespace.to_owned(), lease: lease.to_owned() })
    }
}

impl Display for Installation {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.namespace, self.lease)
    }
}

/// Who looks after a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Custody {
    /// This installation does.
    Ours,
    /// It does from now on: what was read of the cluster is not current any more.
    Taken,
    /// Another one does.
    Anothers(Installation),
    /// Another one, or nobody: what people have to be told.
    Unclear(String),
}

/// Claims a cluster that nobody claims, or only an installation that is gone.
pub async fn claim(
    client: &Client,
    cluster: &RaftCluster,
    own: &Installation,
) -> Result<Custody, kube::Error> {
    let Some(claimed) = cluster.annotations().get(ANNOTATION) else {
        return take(client, cluster, own).await;
    };
    if *claimed == own.to_string() {
        return Ok(Custody::Ours);
    }
    let Some(other) = Installation::parse(claimed) else {
        return Ok(Custody::Unclear(format!(
            "the annotation {ANNOTATION} is {claimed:?}: write NAMESPACE/LEASE of the operator that is to look after the \
             cluster, as in {own}, or remove it"
        )));
    };
    let leases = Api::<Lease>::namespaced(client.clone(), &other.namespace);
    match leases.get_metadata_opt(&other.lease).await {
        Ok(Some(_)) => Ok(Custody::Anothers(other)),
        Ok(None) => take(client, cluster, own).await,
        Err(kube::Error::Api(status)) if status.code == 403 => Ok(Custody::Unclear(format!(
            "the operator of {other} looks after the cluster, and this one, {own}, may not see whether that is still \
             installed. If it is not: kubectl annotate raftcluster {} {ANNOTATION}-",
            cluster.name_any()
        ))),
        Err(error) => Err(error),
    }
}

async fn take(client: &Client, cluster: &RaftCluster, own: &Installation) -> Result<Custody, kube::Error> {
    let namespace = cluster.namespace().unwrap_or_default();
    let name = cluster.name_any();
    let patch = json!({"metadata": {
        "resourceVersion": cluster.resource_version(),
        "annotations": {ANNOTATION: own.to_string()},
    }});
    let clusters = Api::<RaftCluster>::namespaced(client.clone(), &namespace);
    clusters.patch_metadata(&name, &PatchParams::default(), &Patch::Merge(patch)).await?;
    tracing::info!(cluster = format!("{namespace}/{name}"), operator = %own, "looks after the cluster from now on");
    Ok(Custody::Taken)
}
