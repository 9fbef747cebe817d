//! Pods end by eviction, so that the budget counts all who end pods, and only while what was seen still stands.

// Whole files of tests may panic, and take values as `json!` makes them.
#![allow(clippy::panic, clippy::needless_pass_by_value, clippy::similar_names)]

// Each file of tests uses a part of it.
#[allow(dead_code)]
mod support;

use quorate_operator::controller::reconcile;
use serde_json::{Value, json};
use support::{CLUSTER, Stage};

const EVICTION: &str = "POST /api/v1/namespaces/ns/pods/demo-2/eviction";

/// Three members, and a new image for their pods.
async fn outdated() -> Stage {
    let stage = Stage::new(json!({"replicas": 3, "storage": {"size": "1Gi"}}));
    stage.until_ready().await;
    stage.api.edit(CLUSTER, |cluster| cluster["spec"]["image"] = "node:next".into());
    stage.round().await.expect("the template is applied");
    stage.kubernetes();
    stage.api.take_log();
    stage
}

fn ended(log: &[String]) -> Vec<&String> {
    log.iter().filter(|line| line.ends_with("/eviction") || line.starts_with("DELETE")).collect()
}

#[tokio::test]
async fn a_rollout_asks_pods_to_go() {
    let stage = outdated().await;
    stage.round().await.expect("the round succeeds");
    assert_eq!(ended(&stage.api.take_log()), [EVICTION]);
}

#[tokio::test]
async fn a_pod_that_the_budget_holds_is_waited_for() {
    let stage = outdated().await;
    stage.api.refuse(EVICTION, 429);
    stage.round().await.expect("it is no failure");
    let plan = stage.status()["plan"].clone();
    assert_eq!(plan["step"], "UpdatePod");
    assert!(plan["waitingFor"].as_str().is_some_and(|text| text.contains("the disruption budget")), "{plan}");
    stage.api.allow_all();
    stage.api.take_log();
    stage.round().await.expect("the round succeeds");
    assert_eq!(ended(&stage.api.take_log()), [EVICTION]);
}

#[tokio::test(start_paused = true)]
async fn an_operator_that_stood_still_ends_no_pod_and_writes_nothing() {
    let stage = outdated().await;
    tokio::time::advance(std::time::Duration::from_secs(30)).await;
    // Not `Stage::round`, which renews the lease.
    reconcile(stage.cluster(), stage.context.clone()).await.expect("it is no failure");
    assert_eq!(stage.api.take_log(), Vec::<String>::new(), "another operator may work by now, on newer news");
    stage.round().await.expect("the round succeeds");
    assert_eq!(ended(&stage.api.take_log()), [EVICTION]);
}

#[tokio::test]
async fn the_budget_protects_every_pod_while_nobody_leads() {
    let stage = outdated().await;
    for ordinal in 0..3 {
        stage.nodes.silence(ordinal);
    }
    stage.round().await.expect("the round succeeds");
    let budget =
        stage.api.get("/apis/policy/v1/namespaces/ns/poddisruptionbudgets/demo").expect("the budget");
    assert_eq!(budget["spec"]["minAvailable"], 3);
    assert_eq!(budget["spec"]["unhealthyPodEvictionPolicy"], "IfHealthyBudget");
    assert_eq!(budget["spec"]["maxUnavailable"], Value::Null);
}
