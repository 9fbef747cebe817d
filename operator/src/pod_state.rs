//! What matters of a pod. The node is judged by its own container: an application beside it that crashes, or is never ready, makes no member
//! worse.

use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodStatus};
use kube::ResourceExt;

use crate::observed::PodState;
use crate::resources::{NODE, ROLE_LABEL};

/// The label that names the revision of the template that a pod was made from.
const REVISION_LABEL: &str = "controller-revision-hash";
/// Steps on the way, and no troubles.
const ON_THE_WAY: [&str; 2] = ["ContainerCreating", "PodInitializing"];

/// What matters of a pod, but for how long it has lasted.
pub(crate) fn pod_state(pod: &Pod) -> PodState {
    let status = pod.status.as_ref();
    let node = status.and_then(node);
    // The kubelet that runs the pod is away when it is said not to be ready without a word on its containers.
    let reachable = status.is_none_or(|status| !is_lost(status));
    let pod_ready = status.is_some_and(is_ready);
    let ready = match node {
        Some(node) => node.ready && reachable,
        None => pod_ready,
    };
    PodState {
        uid: pod.uid().unwrap_or_default(),
        revision: pod.labels().get(REVISION_LABEL).cloned(),
        role: pod.labels().get(ROLE_LABEL).cloned(),
        terminating: pod.metadata.deletion_timestamp.is_some(),
        pending: is_pending(status, node),
        ready,
        pod_ready,
        ip: status.and_then(|status| status.pod_ip.clone()),
        trouble: status.and_then(|status| unscheduled(status).or_else(|| node.and_then(waits_for))),
        ..PodState::default()
    }
}

/// The node's container: an ordinary one, or beside the user's a sidecar, which is an init container.
pub(crate) fn node(status: &PodStatus) -> Option<&ContainerStatus> {
    containers(status).find(|container| container.name == NODE)
}

fn containers(status: &PodStatus) -> impl Iterator<Item = &ContainerStatus> {
    status.container_statuses.iter().chain(&status.init_container_statuses).flatten()
}

/// A pod with a sidecar is pending until all that runs beside it has started; its node may run for a long time by then.
fn is_pending(status: Option<&PodStatus>, node: Option<&ContainerStatus>) -> bool {
    let runs = node.and_then(|node| node.state.as_ref()).is_some_and(|state| state.running.is_some());
    status.and_then(|status| status.phase.as_deref()) == Some("Pending") && !runs
}

fn condition<'a>(status: &'a PodStatus, kind: &str) -> Option<&'a k8s_openapi::api::core::v1::PodCondition> {
    status.conditions.iter().flatten().find(|condition| condition.type_ == kind)
}

fn is_ready(status: &PodStatus) -> bool {
    condition(status, "Ready").is_some_and(|ready| ready.status == "True")
}

/// When a machine is not heard of, its pods' condition says so, and what its kubelet said of the containers stays as it was.
fn is_lost(status: &PodStatus) -> bool {
    let reason = condition(status, "Ready").and_then(|ready| ready.reason.as_deref());
    !is_ready(status)
        && !matches!(
            reason,
            None | Some("ContainersNotReady" | "ContainersNotInitialized" | "ReadinessGatesNotReady")
        )
}

fn unscheduled(status: &PodStatus) -> Option<String> {
    let scheduled = condition(status, "PodScheduled").filter(|scheduled| scheduled.status == "False")?;
    scheduled.message.clone().or_else(|| scheduled.reason.clone())
}

fn waits_for(container: &ContainerStatus) -> Option<String> {
    let reason = container.state.as_ref()?.waiting.as_ref()?.reason.clone()?;
    (!ON_THE_WAY.contains(&reason.as_str())).then_some(reason)
}

#[cfg(test)]
// As `json!` makes them.
#[allow(clippy::needless_pass_by_value)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn state(status: Value) -> PodState {
        let pod = json!({"metadata": {"name": "demo-0", "uid": "u", "creationTimestamp": "2026-01-01T00:00:00Z"}, "status": status});
        pod_state(&serde_json::from_value(pod).expect("a pod"))
    }

    fn not_ready(reason: &str) -> Value {
        json!([{"type": "Ready", "status": "False", "reason": reason, "lastTransitionTime": "2026-01-01T00:00:10Z"}])
    }

    fn sidecar(ready: bool) -> Value {
        json!({"name": "node", "ready": ready, "restartCount": 0, "image": "i", "imageID": "", "started": true,
               "state": {"running": {"startedAt": "2026-01-01T00:00:05Z"}}})
    }

    fn application(waits: &str) -> Value {
        json!({"name": "shop", "ready": false, "restartCount": 9, "image": "i", "imageID": "", "state": {"waiting": {"reason": waits}}})
    }

    #[test]
    fn application_that_crashes_makes_no_member_worse() {
        for trouble in ["CrashLoopBackOff", "ImagePullBackOff"] {
            let phase = if trouble == "ImagePullBackOff" { "Pending" } else { "Running" };
            let seen = state(json!({
                "phase": phase, "podIP": "10.0.0.1", "conditions": not_ready("ContainersNotReady"),
                "initContainerStatuses": [sidecar(true)], "containerStatuses": [application(trouble)],
            }));
            assert!(seen.ready && !seen.pod_ready && !seen.pending, "{trouble}: {seen:?}");
            assert_eq!(seen.trouble, None, "it is none of the node's");
        }
    }

    #[test]
    fn sidecar_that_does_not_start_is_the_pods_trouble_whatever_runs_beside_it() {
        let mut node = sidecar(false);
        node["state"] = json!({"waiting": {"reason": "CrashLoopBackOff"}});
        let seen = state(json!({
            "phase": "Running", "conditions": not_ready("ContainersNotReady"),
            "initContainerStatuses": [node], "containerStatuses": [application("ImagePullBackOff")],
        }));
        assert_eq!((seen.ready, seen.trouble.as_deref()), (false, Some("CrashLoopBackOff")));
    }

    #[test]
    fn node_on_a_machine_that_is_away_is_not_ready() {
        let seen = state(json!({
            "phase": "Running", "conditions": not_ready("NodeNotReady"),
            "initContainerStatuses": [sidecar(true)], "containerStatuses": [application("Running")],
        }));
        assert!(!seen.ready, "{seen:?}");
    }

    #[test]
    fn pending_pod_that_runs_nothing_is_pending() {
        let seen = state(json!({"phase": "Pending", "conditions": [
            {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes are available"}
        ]}));
        assert!(seen.pending && !seen.ready);
        assert_eq!(seen.trouble.as_deref(), Some("0/3 nodes are available"));
    }
}
