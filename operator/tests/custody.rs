//! Of two installations of the operator, one looks after a cluster.

// Whole files of tests may panic, and take values as `json!` makes them.
#![allow(clippy::panic, clippy::needless_pass_by_value, clippy::similar_names)]

// Rounds without faults of nodes.
#[allow(dead_code)]
mod support;

use std::sync::Arc;
use std::time::Duration;

use kube::runtime::controller::Action;
use quorate_operator::controller::{Context, reconcile};
use quorate_operator::custody::ANNOTATION;
use serde_json::{Value, json};
use support::{CLUSTER, OPERATOR, STATEFUL_SET, Stage, installation};

const OTHER: &str = "other/second-operator";
const OTHERS_LEASE: &str = "/apis/coordination.k8s.io/v1/namespaces/other/leases/second-operator";

fn stage(claimed_by: Option<&str>) -> Stage {
    let stage = Stage::new(json!({"replicas": 3, "storage": {"size": "1Gi"}}));
    let annotations = claimed_by.map_or_else(|| json!({}), |operator| json!({ANNOTATION: operator}));
    stage.api.edit(CLUSTER, |cluster| cluster["metadata"]["annotations"] = annotations);
    stage
}

fn lease_of_the_other(stage: &Stage) {
    stage.api.put(OTHERS_LEASE, json!({"metadata": {"name": "second-operator", "namespace": "other"}}));
}

fn claimed_by(stage: &Stage) -> Value {
    stage.api.get(CLUSTER).expect("the cluster exists")["metadata"]["annotations"][ANNOTATION].clone()
}

fn warnings(stage: &Stage) -> Vec<String> {
    let events = stage.api.under("/apis/events.k8s.io/v1/namespaces/ns/events");
    let ours = events.iter().filter(|event| event["reason"] == "OtherOperator");
    ours.filter_map(|event| Some(event["note"].as_str()?.to_owned())).collect()
}

async fn left_alone(stage: &Stage) {
    let again = stage.round().await.expect("the round succeeds");
    assert_eq!(again, Action::requeue(Duration::from_mins(1)));
    assert_eq!(stage.api.take_log(), [""; 0], "nothing is written");
    assert!(stage.api.get(STATEFUL_SET).is_none());
}

#[tokio::test]
async fn a_cluster_that_nobody_looks_after_is_claimed_before_anything_else() {
    let stage = stage(None);
    stage.round().await.expect("the round succeeds");
    assert_eq!(stage.api.take_log(), [format!("PATCH {CLUSTER}")]);
    assert_eq!(claimed_by(&stage), OPERATOR);
    stage.until_ready().await;
}

#[tokio::test]
async fn of_two_installations_that_claim_a_cluster_at_once_one_succeeds() {
    let stage = stage(None);
    let read_by_both = stage.cluster();
    stage.round().await.expect("the round succeeds");
    let mut second = Stage::new(json!({})).context;
    let context = Arc::get_mut(&mut second).expect("not shared yet");
    context.client = stage.api.client();
    context.installation = installation(OTHER);
    let second: Arc<Context> = second;
    let conflict = reconcile(read_by_both, second).await.expect_err("what was read is not current");
    assert!(conflict.to_string().contains("modified"), "{conflict}");
    assert_eq!(claimed_by(&stage), OPERATOR);
}

#[tokio::test]
async fn a_cluster_of_another_installation_is_left_alone_until_that_is_gone() {
    let stage = stage(Some(OTHER));
    lease_of_the_other(&stage);
    left_alone(&stage).await;
    assert_eq!(warnings(&stage), [""; 0], "two releases are no fault");
    stage.api.remove(OTHERS_LEASE);
    stage.until_ready().await;
    assert_eq!(claimed_by(&stage), OPERATOR);
}

#[tokio::test]
async fn a_claim_that_cannot_be_judged_is_left_alone_and_said() {
    let unreadable = stage(Some("second"));
    left_alone(&unreadable).await;
    let said = warnings(&unreadable).join("\n");
    assert!(said.contains("write NAMESPACE/LEASE") && said.contains("\"second\""), "{said}");

    let hidden = stage(Some(OTHER));
    lease_of_the_other(&hidden);
    hidden.api.refuse(&format!("GET {OTHERS_LEASE}"), 403);
    left_alone(&hidden).await;
    let said = warnings(&hidden).join("\n");
    assert!(said.contains("kubectl annotate raftcluster demo quorate.dev/operator-"), "{said}");
}
