//! How many pods may be evicted at once: never more than the quorum can spare.

use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt;

use super::{Blueprint, metadata, pod_selector};

/// A pod that is not ready may always be evicted: it holds up no quorum, and must not hold up a drain.
pub(super) fn build(blueprint: Blueprint<'_>) -> PodDisruptionBudget {
    let cluster = blueprint.cluster;
    PodDisruptionBudget {
        metadata: metadata(cluster, cluster.name_any()),
        spec: Some(PodDisruptionBudgetSpec {
            max_unavailable: Some(IntOrString::Int(i32::try_from(blueprint.disruptions).unwrap_or(0))),
            selector: Some(pod_selector(cluster)),
            unhealthy_pod_eviction_policy: Some("AlwaysAllow".to_owned()),
            ..PodDisruptionBudgetSpec::default()
        }),
        status: None,
    }
}
