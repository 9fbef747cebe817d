//! `--check`: whether the operator's surroundings are as it needs them. `helm test` asks it.

use std::error::Error;

use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{ListParams, PostParams};
use kube::{Api, Client};
use quorate_crds::RaftCluster;

use crate::cli::Cli;

/// What the operator does to which resources, as far as a cluster cannot be without it. The chart's role says the same.
const NEEDED: [(&str, &str, &str); 16] = [
    ("quorate.dev", "raftclusters", "watch"),
    ("quorate.dev", "raftclusters", "patch"),
    ("quorate.dev", "raftclusters/status", "patch"),
    ("quorate.dev", "raftclusters/finalizers", "update"),
    ("apps", "statefulsets", "create"),
    ("apps", "statefulsets", "patch"),
    ("apps", "statefulsets", "delete"),
    ("policy", "poddisruptionbudgets", "patch"),
    ("networking.k8s.io", "networkpolicies", "patch"),
    ("", "services", "patch"),
    ("", "pods", "delete"),
    ("", "pods/eviction", "create"),
    ("", "persistentvolumeclaims", "patch"),
    ("", "persistentvolumeclaims", "delete"),
    ("", "secrets", "create"),
    ("events.k8s.io", "events", "create"),
];

/// Says on the standard output what is as it should be. The first thing that is not is the error.
pub(crate) async fn check(client: Client, cli: &Cli) -> Result<(), Box<dyn Error>> {
    let scopes = cli.scopes();
    for namespace in &scopes {
        let shown = if namespace.is_empty() { "all namespaces" } else { namespace };
        clusters_are_served(&client, namespace).await.map_err(|error| {
            format!("cannot list RaftClusters in {shown}: {error}. Is the CRD installed, and the role bound?")
        })?;
        for (group, resource, verb) in NEEDED {
            if !may(&client, namespace, group, resource, verb).await? {
                let group = if group.is_empty() { "" } else { &format!(".{group}") };
                return Err(format!("the operator may not {verb} {resource}{group} in {shown}").into());
            }
        }
        say(&format!("{shown}: the CRD is served, and the operator may do what it does"))?;
    }
    let leases = Api::<Lease>::namespaced(client, &cli.namespace);
    let lease = leases.get_opt(&cli.lease).await?;
    let holder = lease.and_then(|lease| lease.spec?.holder_identity).filter(|holder| !holder.is_empty());
    let holder =
        holder.ok_or_else(|| format!("no operator holds the lease {}/{}", cli.namespace, cli.lease))?;
    say(&format!("{holder} holds the lease"))?;
    Ok(())
}

async fn clusters_are_served(client: &Client, namespace: &str) -> Result<(), kube::Error> {
    let one = ListParams::default().limit(1);
    let api = if namespace.is_empty() {
        Api::<RaftCluster>::all(client.clone())
    } else {
        Api::<RaftCluster>::namespaced(client.clone(), namespace)
    };
    // Their metadata is enough: one that cannot be read is no fault of the surroundings.
    api.list_metadata(&one).await.map(drop)
}

async fn may(
    client: &Client,
    namespace: &str,
    group: &str,
    resource: &str,
    verb: &str,
) -> Result<bool, kube::Error> {
    let (resource, subresource) = match resource.split_once('/') {
        Some((resource, subresource)) => (resource, Some(subresource.to_owned())),
        None => (resource, None),
    };
    let review = SelfSubjectAccessReview {
        spec: SelfSubjectAccessReviewSpec {
            resource_attributes: Some(ResourceAttributes {
                group: Some(group.to_owned()),
                resource: Some(resource.to_owned()),
                subresource,
                verb: Some(verb.to_owned()),
                namespace: Some(namespace.to_owned()),
                ..ResourceAttributes::default()
            }),
            ..SelfSubjectAccessReviewSpec::default()
        },
        ..SelfSubjectAccessReview::default()
    };
    let answer =
        Api::<SelfSubjectAccessReview>::all(client.clone()).create(&PostParams::default(), &review).await?;
    Ok(answer.status.is_some_and(|status| status.allowed))
}

fn say(line: &str) -> std::io::Result<()> {
    use std::io::Write;
    writeln!(std::io::stdout(), "{line}")
}
