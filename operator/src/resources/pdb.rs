//! How many pods may go at once: never more than the quorum can spare.

use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt;

use super::{Blueprint, metadata, pod_selector};

/// A pod that is not ready may go while enough others are ready, so that what is broken holds up no drain. While too few are it stays: nodes
/// are not ready while nobody leads, and they would all go.
pub(super) fn build(blueprint: Blueprint<'_>) -> PodDisruptionBudget {
    let Blueprint { cluster, budget, .. } = blueprint;
    let unhealthy = if budget.always_allow { "AlwaysAllow" } else { "IfHealthyBudget" };
    PodDisruptionBudget {
        metadata: metadata(cluster, cluster.name_any()),
        spec: Some(PodDisruptionBudgetSpec {
            min_available: Some(IntOrString::Int(i32::try_from(budget.min_available).unwrap_or(i32::MAX))),
            selector: Some(pod_selector(cluster)),
            unhealthy_pod_eviction_policy: Some(unhealthy.to_owned()),
            ..PodDisruptionBudgetSpec::default()
        }),
        status: None,
    }
}
