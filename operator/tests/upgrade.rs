//! What becomes of living clusters when the operator is upgraded, and of their data when they are.

// Whole files of tests may panic, and take values as `json!` makes them.
#![allow(clippy::panic, clippy::needless_pass_by_value, clippy::similar_names)]

// Each file of tests uses a part of it.
#[allow(dead_code)]
mod support;

use kube::runtime::reflector::ObjectRef;
use serde_json::{Value, json};
use support::{CLUSTER, STATEFUL_SET, Stage};

fn three() -> Value {
    json!({"replicas": 3, "storage": {"size": "1Gi"}})
}

fn image(stage: &Stage) -> Value {
    let set = stage.api.get(STATEFUL_SET).expect("the StatefulSet");
    set["spec"]["template"]["spec"]["containers"][0]["image"].clone()
}

#[tokio::test]
async fn operator_upgrade_leaves_image_of_living_cluster() {
    let mut stage = Stage::new(three());
    stage.until_ready().await;
    stage.upgrade_operator("node:next");
    stage.round().await.expect("the round succeeds");
    assert_eq!(image(&stage), "node:test");
}

#[tokio::test]
async fn new_image_of_operator_is_taken_up_once_it_is_approved_and_one_cluster_waits_for_another() {
    let mut stage = Stage::new(three());
    stage.until_ready().await;
    stage.upgrade_operator("node:next");
    stage.round().await.expect("the round succeeds");
    let upgrade = stage.status()["upgrade"].clone();
    assert_eq!((&upgrade["state"], &upgrade["fromImage"]), (&json!("Available"), &json!("node:test")));
    assert_eq!(stage.find_condition("Upgraded").expect("the condition")["reason"], "Available");
    assert_eq!(stage.condition("Ready"), Some("True".to_owned()));

    let another = ObjectRef::new("another").within("ns");
    stage.context.fleet.take_turn(&another).expect("nobody else is upgraded");
    stage.api.edit(CLUSTER, |cluster| cluster["spec"]["upgrade"] = json!({"approved": upgrade["to"]}));
    stage.round().await.expect("the round succeeds");
    let message = stage.status()["upgrade"]["message"].to_string();
    assert!(message.contains("ns/another"), "{message}");
    assert_eq!(image(&stage), "node:test");

    stage.context.fleet.note(&another, None);
    stage.api.take_log();
    stage.round().await.expect("the round succeeds");
    assert_eq!(stage.api.take_log(), [format!("PATCH {CLUSTER}/status")], "before a pod is touched");
    assert_eq!(stage.status()["upgrade"]["state"], "Rolling");
    assert!(stage.context.fleet.take_turn(&another).is_err());
    assert!(stage.triggers.try_recv().is_err(), "nobody is told yet");
    stage.until_ready().await;
    assert_eq!(image(&stage), "node:next");
    assert_eq!((&stage.status()["upgrade"], &stage.status()["image"]), (&Value::Null, &json!("node:next")));
    assert_eq!(stage.triggers.try_recv(), Ok(another.clone()), "who waits is told");
    stage.context.fleet.take_turn(&another).expect("it is over");
}

#[tokio::test]
async fn other_rendering_of_operator_rolls_nothing_until_the_spec_changes() {
    let stage = Stage::new(three());
    stage.until_ready().await;
    // As another version of the operator made it.
    stage.api.edit(STATEFUL_SET, |set| {
        set["metadata"]["annotations"]["quorate.dev/template"] = "another".into();
        set["spec"]["template"]["spec"]["hostname"] = "another".into();
    });
    stage.api.edit(CLUSTER, |cluster| cluster["spec"]["replicas"] = 5.into());
    stage.until_ready().await;
    let set = stage.api.get(STATEFUL_SET).expect("the set");
    assert_eq!(set["spec"]["replicas"], 5);
    assert_eq!(set["spec"]["template"]["spec"]["hostname"], "another");

    stage.api.edit(CLUSTER, |cluster| cluster["spec"]["quota"] = "1Gi".into());
    stage.until_ready().await;
    let set = stage.api.get(STATEFUL_SET).expect("the set");
    assert_eq!(set["spec"]["template"]["spec"]["hostname"], Value::Null, "it is made anew");
    assert_eq!(image(&stage), "node:test");
}

#[tokio::test]
async fn image_that_is_taken_out_of_the_spec_before_all_pods_run_it_leaves_the_one_before() {
    let stage = Stage::new(three());
    stage.until_ready().await;
    let name = |image: Value| stage.api.edit(CLUSTER, |cluster| cluster["spec"]["image"] = image.clone());
    name("node:broken".into());
    for _ in 0..2 {
        stage.round().await.expect("the round succeeds");
    }
    assert_eq!(image(&stage), "node:broken");
    name(Value::Null);
    stage.until_ready().await;
    assert_eq!((image(&stage), &stage.status()["image"]), ("node:test".into(), &json!("node:test")));

    name("node:mine".into());
    stage.until_ready().await;
    stage.round().await.expect("the round succeeds");
    name(Value::Null);
    stage.until_ready().await;
    assert_eq!((image(&stage), &stage.status()["image"]), ("node:mine".into(), &json!("node:mine")));
}

#[tokio::test]
async fn hands_on_the_template_are_put_right() {
    let stage = Stage::new(three());
    stage.until_ready().await;
    stage.api.edit(STATEFUL_SET, |set| set["spec"]["template"]["spec"]["hostname"] = "mine".into());
    stage.round().await.expect("the round succeeds");
    assert_eq!(
        stage.api.get(STATEFUL_SET).expect("the set")["spec"]["template"]["spec"]["hostname"],
        Value::Null
    );
}

#[tokio::test]
async fn level_is_raised_after_its_time_and_older_images_are_refused_from_then_on() {
    let mut spec = three();
    spec["upgrade"] = json!({"finalizeAfter": "24h"});
    let stage = Stage::new(spec);
    stage.until_ready().await;
    stage.nodes.support(2);
    stage.api.take_log();
    stage.round().await.expect("the round succeeds");
    assert_eq!(stage.find_condition("Upgraded").expect("the condition")["reason"], "CanBeTakenBack");
    let raised = |stage: &Stage| stage.api.take_log().iter().any(|line| line.starts_with("raise"));
    assert!(!raised(&stage));
    stage.api.edit(CLUSTER, |cluster| {
        cluster["status"]["level"]["raisableSince"] = "2026-01-01T00:00:00Z".into();
    });
    stage.round().await.expect("the round succeeds");
    assert!(raised(&stage));
    stage.round().await.expect("the round succeeds");
    assert_eq!(stage.status()["level"], json!({"current": 2}));

    stage.api.edit(CLUSTER, |cluster| cluster["spec"]["image"] = "node:0.0.9".into());
    stage.round().await.expect("the round succeeds");
    let accepted = stage.find_condition("SpecAccepted").expect("the condition");
    assert_eq!(accepted["reason"], "ImageTooOld", "{accepted}");
    assert_eq!(image(&stage), "node:test", "the cluster goes on as it was");
}
