//! Rounds of the controller against an API server and nodes in memory.

// Whole files of tests may panic, and take values as `json!` makes them.
#![allow(clippy::panic, clippy::needless_pass_by_value, clippy::similar_names)]

// Each file of tests uses a part of it.
#[allow(dead_code)]
mod support;

use std::sync::Arc;
use std::time::Duration;

use kube::Resource;
use kube::core::ApiResource;
use kube::runtime::controller::Action;
use kube::runtime::reflector::ObjectRef;
use quorate_operator::controller::{on_error, reconcile};
use serde_json::{Value, json};
use support::{CLUSTER, STATEFUL_SET, Stage};

fn three() -> Value {
    json!({"replicas": 3, "storage": {"size": "1Gi"}})
}

fn position(log: &[String], line: &str) -> usize {
    log.iter().position(|found| found.contains(line)).unwrap_or_else(|| panic!("{line} is not in {log:#?}"))
}

#[tokio::test]
async fn the_first_round_writes_the_id_and_nothing_else() {
    let stage = Stage::new(three());
    stage.round().await.expect("the round succeeds");
    assert_eq!(stage.api.take_log(), [format!("PATCH {CLUSTER}/status")]);
    let id = stage.status()["clusterID"].as_str().expect("an ID").to_owned();
    assert!(id.len() == 16 && id != "0000000000000000", "{id}");
}

#[tokio::test]
async fn an_id_that_somebody_else_wrote_is_never_replaced() {
    let stage = Stage::new(three());
    let stale = stage.cluster();
    stage.round().await.expect("the round succeeds");
    let id = stage.status()["clusterID"].clone();
    let conflict = reconcile(stale, stage.context.clone()).await.expect_err("what was read is not current");
    assert!(conflict.to_string().contains("modified"), "{conflict}");
    assert_eq!(stage.status()["clusterID"], id);
}

#[tokio::test]
async fn a_new_cluster_comes_up_in_order() {
    let stage = Stage::new(three());
    stage.until_ready().await;
    let log = stage.api.take_log();
    let order = [
        "raftclusters/demo/status",
        "POST /api/v1/namespaces/quorate-system/secrets",
        "POST /api/v1/namespaces/ns/secrets",
        "services/demo-peers",
        "statefulsets/demo",
        "bootstrap 0",
        "change to 1 voters and 2 learners",
        "change to 3 voters and 0 learners",
    ];
    let found: Vec<_> = order.iter().map(|line| position(&log, line)).collect();
    assert!(found.is_sorted(), "{found:?} in {log:#?}");
    let changes = log.iter().filter(|line| line.starts_with("change")).count();
    assert_eq!(changes, 2, "learners, and one joint change: {log:#?}");

    let status = stage.status();
    let id = u64::from_str_radix(status["clusterID"].as_str().expect("an ID"), 16).expect("hexadecimal");
    assert_eq!(stage.nodes.cluster_id(), Some(id), "the nodes have the ID of the status");
    assert_eq!((&status["leader"], &status["voters"]), (&json!("demo-0"), &json!("3/3")));
    assert_eq!((&status["phase"], &status["version"]), (&json!("Ready"), &json!("0.1.0")));
    assert_eq!(status["members"].as_array().map(Vec::len), Some(3));
    for condition in ["Ready", "Quorate", "SpecAccepted", "Reconciled"] {
        assert_eq!(stage.condition(condition), Some("True".to_owned()), "{condition}");
    }
}

#[tokio::test]
async fn a_round_with_nothing_to_do_writes_nothing() {
    let stage = Stage::new(three());
    stage.until_ready().await;
    // The controller of the StatefulSet has written its status since: whether anything else changed is not known.
    stage.round().await.expect("the round succeeds");
    stage.api.take_log();
    let again = stage.round().await.expect("the round succeeds");
    assert_eq!(again, Action::requeue(Duration::from_hours(4)));
    assert_eq!(stage.api.take_log(), [""; 0], "an object that is as it was applied is not written again");
    stage.api.edit("/api/v1/namespaces/ns/services/demo-client", |service| service["spec"] = json!({}));
    stage.round().await.expect("the round succeeds");
    assert_eq!(
        stage.api.take_log(),
        ["PATCH /api/v1/namespaces/ns/services/demo-client"],
        "hands are put right"
    );
}

#[tokio::test]
async fn a_new_leader_reaches_the_status_in_one_round() {
    let stage = Stage::new(three());
    stage.until_ready().await;
    stage.nodes.lead(2);
    stage.round().await.expect("the round succeeds");
    let status = stage.status();
    assert_eq!((&status["leader"], &status["term"]), (&json!("demo-2"), &json!(2)));
}

#[tokio::test]
async fn the_label_of_the_leader_moves_with_it_and_is_written_once() {
    let stage = Stage::new(three());
    stage.until_ready().await;
    let role = |ordinal: u32| {
        let pod = stage.api.get(&format!("/api/v1/namespaces/ns/pods/demo-{ordinal}")).expect("the pod");
        pod["metadata"]["labels"]["quorate.dev/role"].clone()
    };
    stage.round().await.expect("the round succeeds");
    assert_eq!([role(0), role(1), role(2)], [json!("leader"), json!("follower"), json!("follower")]);
    stage.nodes.lead(2);
    stage.api.take_log();
    stage.round().await.expect("the round succeeds");
    assert_eq!([role(0), role(1), role(2)], [json!("follower"), json!("follower"), json!("leader")]);
    let log = stage.api.take_log();
    let pods: Vec<_> = log.iter().filter(|line| line.contains("/pods/")).collect();
    let patch = |ordinal: u32| format!("PATCH /api/v1/namespaces/ns/pods/demo-{ordinal}");
    assert_eq!(pods, [&patch(0), &patch(2)], "the old one first");
    stage.round().await.expect("the round succeeds");
    let log = stage.api.take_log();
    assert!(!log.iter().any(|line| line.contains("/pods/")), "{log:#?}");
    let selector = stage.api.get("/api/v1/namespaces/ns/services/demo-leader").expect("the Service")["spec"]
        ["selector"]
        .clone();
    assert_eq!(selector["quorate.dev/role"], "leader");
}

#[tokio::test]
async fn what_is_said_again_is_counted_and_what_is_new_is_said() {
    let stage = Stage::new(three());
    stage.until_ready().await;
    let events = &stage.context.events;
    let about = stage.cluster().object_ref(&());
    for note in ["demo-1 leads in term 2", "demo-1 leads in term 2", "demo-2 leads in term 3"] {
        events.normal(&about, "LeaderElected", note).await;
    }
    let found = stage.api.under("/apis/events.k8s.io/v1/namespaces/ns/events");
    let count = |note: &str| -> Vec<_> {
        found
            .iter()
            .filter(|event| event["note"] == note)
            .map(|event| event["series"]["count"].clone())
            .collect()
    };
    assert_eq!(count("demo-1 leads in term 2"), [json!(2)]);
    assert_eq!(count("demo-2 leads in term 3"), [Value::Null]);
    let reasons: Vec<_> = found.iter().map(|event| event["reason"].as_str().unwrap_or_default()).collect();
    for reason in ["Bootstrap", "ChangeLearners", "ChangeVoters"] {
        assert!(reasons.contains(&reason), "{reasons:?}");
    }
}

#[tokio::test]
async fn scaling_up_and_down_changes_voters_once_each_way() {
    let stage = Stage::new(three());
    stage.until_ready().await;
    stage.api.take_log();

    stage.api.edit(CLUSTER, |cluster| cluster["spec"]["replicas"] = 5.into());
    stage.until_ready().await;
    let log = stage.api.take_log();
    assert!(
        position(&log, "3 voters and 2 learners") < position(&log, "5 voters and 0 learners"),
        "{log:#?}"
    );

    stage.nodes.lead(4);
    stage.api.edit(CLUSTER, |cluster| cluster["spec"]["replicas"] = 3.into());
    stage.until_ready().await;
    for _ in 0..8 {
        stage.round().await.expect("the round succeeds");
        stage.kubernetes();
    }
    let log = stage.api.take_log();
    let order = [
        position(&log, "transfer to 0"),
        position(&log, "change to 3 voters"),
        position(&log, "DELETE /api/v1/namespaces/ns/persistentvolumeclaims/data-demo-4"),
        position(&log, "DELETE /api/v1/namespaces/ns/persistentvolumeclaims/data-demo-3"),
    ];
    assert!(order.is_sorted(), "{log:#?}");
    assert_eq!(stage.nodes.voters().len(), 3);
}

#[tokio::test]
async fn a_lost_volume_is_replaced_at_its_ordinal() {
    let stage = Stage::new(three());
    stage.until_ready().await;
    let before = stage.nodes.voters();
    stage.api.take_log();
    stage.nodes.lose_volume(1);
    for _ in 0..12 {
        stage.round().await.expect("the round succeeds");
        stage.nodes.progress();
    }
    let after = stage.nodes.voters();
    assert_eq!((after.len(), before.iter().filter(|id| after.contains(id)).count()), (3, 2));
    let log = stage.api.take_log();
    let changes: Vec<_> = log.iter().filter(|line| line.starts_with("change")).collect();
    assert_eq!(changes, ["change to 3 voters and 1 learners", "change to 3 voters and 0 learners"]);
    assert_eq!(stage.condition("Ready"), Some("True".to_owned()));
}

#[tokio::test]
async fn an_object_that_is_refused_shows_in_the_status_and_the_cluster_goes_on() {
    let stage = Stage::new(three());
    stage.until_ready().await;
    stage.api.refuse(&format!("PATCH {STATEFUL_SET}"), 422);
    stage.nodes.lead(1);
    let error = stage.round().await.expect_err("the round reports it");
    assert!(error.to_string().starts_with("cannot apply StatefulSet demo"), "{error}");
    let reconciled = stage.find_condition("Reconciled").expect("the condition");
    assert_eq!(reconciled["status"], "False");
    assert_eq!(stage.status()["leader"], "demo-1", "what was observed is reported all the same");

    stage.api.allow_all();
    stage.round().await.expect("the round succeeds");
    assert_eq!(stage.condition("Reconciled"), Some("True".to_owned()));
}

#[tokio::test]
async fn failures_are_tried_again_later_each_time_and_success_forgets_them() {
    let stage = Stage::new(three());
    stage.api.refuse("GET", 500);
    let mut delays = Vec::new();
    for _ in 0..10 {
        let error = stage.round().await.expect_err("the API server fails");
        delays.push(on_error(&stage.cluster(), &error, &stage.context));
    }
    let seconds = |seconds| Action::requeue(Duration::from_secs(seconds));
    assert_eq!(delays[..4], [seconds(1), seconds(2), seconds(4), seconds(8)]);
    assert_eq!(delays[9], seconds(300));
    stage.api.allow_all();
    stage.round().await.expect("the round succeeds");
    assert!(stage.context.failures.lock().is_empty());
}

#[tokio::test]
async fn a_spec_that_cannot_be_worked_on_changes_nothing_but_the_status() {
    let stage = Stage::new(three());
    stage.until_ready().await;
    stage.api.take_log();
    stage.api.edit(CLUSTER, |cluster| cluster["spec"]["replicas"] = 0.into());
    stage.round().await.expect("the round succeeds");
    assert_eq!(stage.api.take_log(), [format!("PATCH {CLUSTER}/status")]);
    let accepted = stage.find_condition("SpecAccepted").expect("the condition");
    assert_eq!((&accepted["status"], &accepted["reason"]), (&json!("False"), &json!("InvalidReplicas")));
    assert_eq!(stage.condition("Quorate"), Some("True".to_owned()));
}

#[tokio::test]
async fn a_malformed_resource_is_reported_and_harms_nobody() {
    let stage = Stage::new(three());
    stage.api.edit(CLUSTER, |cluster| cluster["spec"] = json!({"replicas": "many"}));
    assert_eq!(stage.round().await.expect("no error"), Action::await_change());
    assert!(stage.api.take_log().is_empty());
}

#[tokio::test]
async fn a_paused_cluster_is_kept_safe_and_not_changed() {
    let stage = Stage::new(three());
    stage.until_ready().await;
    stage.api.take_log();
    stage.api.edit(CLUSTER, |cluster| {
        cluster["spec"]["paused"] = true.into();
        cluster["spec"]["replicas"] = 5.into();
    });
    let budget = "/apis/policy/v1/namespaces/ns/poddisruptionbudgets/demo";
    stage.api.edit(budget, |budget| budget["spec"] = json!({}));
    stage.round().await.expect("the round succeeds");
    assert_eq!(stage.api.take_log(), [format!("PATCH {budget}"), format!("PATCH {CLUSTER}/status")]);
    assert_eq!(stage.status()["phase"], "Paused");
    assert_eq!(stage.condition("Paused"), Some("True".to_owned()));
}

#[tokio::test]
async fn volumes_go_with_the_cluster_only_where_the_policy_says_so() {
    for (policy, deleted) in [("Retain", 0), ("Delete", 3)] {
        let mut spec = three();
        spec["deletionPolicy"] = policy.into();
        let stage = Stage::new(spec);
        stage.until_ready().await;
        stage.api.take_log();
        stage.api.edit(CLUSTER, |cluster| {
            cluster["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        });
        for _ in 0..5 {
            stage.round().await.expect("the round succeeds");
            stage.kubernetes();
        }
        let log = stage.api.take_log();
        let claims = log.iter().filter(|line| line.starts_with("DELETE") && line.contains("data-demo-"));
        assert_eq!(claims.count(), deleted, "{policy}: {log:#?}");
        let finalizers = stage.api.get(CLUSTER).expect("the cluster")["metadata"]["finalizers"].clone();
        assert!(finalizers.as_array().is_none_or(Vec::is_empty), "{finalizers}");
    }
}

#[tokio::test]
async fn the_policy_at_the_end_decides_over_the_volumes() {
    let mut spec = three();
    spec["deletionPolicy"] = "Delete".into();
    let stage = Stage::new(spec);
    stage.until_ready().await;
    // Nobody takes the finalizer away while the cluster is paused, or the operator is down.
    stage.api.edit(CLUSTER, |cluster| {
        cluster["spec"]["deletionPolicy"] = "Retain".into();
        cluster["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
    });
    stage.api.take_log();
    stage.round().await.expect("the round succeeds");
    assert_eq!(stage.status()["phase"], "Deleting");
    stage.round().await.expect("the round succeeds");
    let log = stage.api.take_log();
    assert!(!log.iter().any(|line| line.starts_with("DELETE")), "{log:#?}");
    let finalizers = stage.api.get(CLUSTER).expect("the cluster")["metadata"]["finalizers"].clone();
    assert_eq!(finalizers, json!([]));
}

#[tokio::test]
async fn a_volume_made_by_hand_is_used_and_never_deleted() {
    const CLAIM: &str = "/api/v1/namespaces/ns/persistentvolumeclaims/data-demo-0";
    let mut spec = three();
    spec["deletionPolicy"] = "Delete".into();
    let stage = Stage::new(spec);
    stage.api.put(
        CLAIM,
        json!({"metadata": {"name": "data-demo-0", "namespace": "ns"},
            "spec": {"resources": {"requests": {"storage": "1Gi"}}}, "status": {"phase": "Bound"}}),
    );
    stage.round().await.expect("the round succeeds");
    assert_eq!(stage.status()["clusterID"], Value::Null, "it may hold a cluster");
    stage.until_ready().await;
    stage.api.edit(CLUSTER, |cluster| {
        cluster["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
    });
    for _ in 0..5 {
        stage.round().await.expect("the round succeeds");
        stage.kubernetes();
    }
    assert!(stage.api.get(CLAIM).is_some());
    assert!(stage.api.get(&CLAIM.replace("demo-0", "demo-1")).is_none());
}

#[tokio::test]
async fn a_status_made_from_an_old_resource_is_not_written() {
    let stage = Stage::new(three());
    let stale = stage.cluster();
    stage.until_ready().await;
    stage.nodes.lead(1);
    let before = stage.status();
    // The very same resource, as a cache knew it before it had an ID.
    let _ = reconcile(stale, stage.context.clone()).await;
    assert_eq!(stage.status(), before);

    let stale = stage.cluster();
    stage.api.edit(CLUSTER, |cluster| cluster["metadata"]["annotations"]["a"] = "b".into());
    let again = reconcile(stale, stage.context.clone()).await.expect("no failure");
    assert_eq!((again, stage.status()), (Action::requeue(Duration::from_secs(2)), before));
    stage.round().await.expect("the round succeeds");
    assert_eq!(stage.status()["leader"], "demo-1");
}

#[tokio::test]
async fn a_cluster_is_not_ready_before_its_new_template_has_been_rolled_out() {
    let stage = Stage::new(three());
    stage.until_ready().await;
    stage.api.edit(CLUSTER, |cluster| {
        cluster["spec"]["image"] = "node:next".into();
        cluster["metadata"]["generation"] = 2.into();
    });
    stage.round().await.expect("the round succeeds");
    let ready = stage.find_condition("Ready").expect("the condition");
    assert_eq!((&ready["status"], &ready["observedGeneration"]), (&json!("False"), &json!(2)));
    stage.until_ready().await;

    stage.api.edit(CLUSTER, |cluster| cluster["spec"]["image"] = "node:refused".into());
    stage.api.refuse(&format!("PATCH {STATEFUL_SET}"), 422);
    stage.round().await.expect_err("the round reports it");
    for kind in ["Ready", "Progressing"] {
        let found = stage.find_condition(kind).expect("the condition");
        assert_eq!((&found["status"], &found["reason"]), (&json!("False"), &json!("Failed")), "{kind}");
    }
}

#[tokio::test]
async fn a_leader_that_does_not_answer_is_named_by_the_others() {
    let stage = Stage::new(three());
    stage.until_ready().await;
    let before = stage.status();
    stage.nodes.silence(0);
    stage.round().await.expect("the round succeeds");
    let status = stage.status();
    for field in ["leader", "term", "voters", "phase"] {
        assert_eq!(status[field], before[field], "{field}");
    }
    for kind in ["Quorate", "Ready", "Degraded"] {
        assert_eq!(stage.condition(kind), Some("Unknown".to_owned()), "{kind}");
    }
}

#[tokio::test]
async fn objects_of_others_are_left_alone() {
    const SERVICE: &str = "/api/v1/namespaces/ns/services/demo-client";
    let stage = Stage::new(three());
    stage.api.put(SERVICE, json!({"metadata": {"name": "demo-client", "namespace": "ns"}, "spec": {"a": 1}}));
    stage.round().await.expect("the round writes the ID");
    let again = stage.round().await.expect("the steps of the plan go on at their own pace");
    assert_eq!(again, Action::requeue(Duration::from_secs(10)), "it waits for the first node");
    let reconciled = stage.find_condition("Reconciled").expect("the condition");
    let message = reconciled["message"].as_str().unwrap_or_default();
    assert!(message.starts_with("Service demo-client is there already"), "{message}");
    assert_eq!(stage.api.get(SERVICE).expect("the service")["spec"], json!({"a": 1}));
    assert_eq!(stage.condition("Reconciled"), Some("False".to_owned()));
    assert!(stage.api.get(STATEFUL_SET).is_some(), "the others are made all the same");

    stage.api.remove(SERVICE);
    stage.until_ready().await;
    // One of a cluster of this name that is gone, which was orphaned.
    stage.api.edit(SERVICE, |service| service["metadata"]["ownerReferences"] = Value::Null);
    stage.round().await.expect("the round succeeds");
}

#[tokio::test]
async fn a_cluster_that_is_gone_is_forgotten() {
    let stage = Stage::new(three());
    stage.api.refuse("GET", 500);
    let error = stage.round().await.expect_err("the API server fails");
    on_error(&stage.cluster(), &error, &stage.context);
    assert_eq!(stage.context.failures.lock().len(), 1);
    let kind = ApiResource::erase::<quorate_crds::RaftCluster>(&());
    stage.context.forget_gone(&ObjectRef::new_with("demo", kind).within("ns"));
    assert!(stage.context.failures.lock().is_empty());
    assert_eq!(stage.nodes.forgotten(), [".demo-peers.ns.svc"]);
}

#[tokio::test]
async fn a_cluster_made_anew_takes_its_retained_volumes_up() {
    let stage = Stage::new(three());
    stage.until_ready().await;
    let id = stage.status()["clusterID"].clone();
    let voters = stage.nodes.voters();
    stage.api.edit(CLUSTER, |cluster| cluster["status"] = Value::Null);
    stage.until_ready().await;
    assert_eq!(stage.status()["clusterID"], id);
    assert_eq!(stage.nodes.voters(), voters);
}

#[tokio::test]
async fn certificates_are_kept_and_made_anew_when_they_do_not_serve() {
    const VAULT: &str = "/api/v1/namespaces/quorate-system/secrets/ns.demo.authorities";
    const PEERS: &str = "/api/v1/namespaces/ns/secrets/demo-peer-tls";
    let stage = Stage::new(three());
    stage.until_ready().await;
    let get = |path: &str| stage.api.get(path).expect("the secret")["data"].clone();
    let (authorities, peers) = (get(VAULT), get(PEERS));
    stage.round().await.expect("the round succeeds");
    assert_eq!((get(VAULT), get(PEERS)), (authorities.clone(), peers.clone()), "they are kept");
    assert_eq!(authorities["peer-signing.crt"], peers["ca.crt"]);
    // A certificate that does not serve is made anew.
    stage.api.edit(PEERS, |secret| secret["data"]["tls.crt"] = "AAAA".into());
    stage.round().await.expect("the round succeeds");
    assert_eq!(get(VAULT), authorities, "the authority stays");
    assert_ne!(get(PEERS), peers);
}

#[tokio::test]
async fn a_cluster_without_an_answer_from_its_leader_says_so() {
    let stage = Stage::new(three());
    stage.until_ready().await;
    for ordinal in 0..3 {
        stage.nodes.stop(ordinal);
    }
    stage.round().await.expect("the round succeeds");
    let status = stage.status();
    assert_eq!((&status["phase"], &status["leader"]), (&json!("Unavailable"), &Value::Null));
    assert_eq!(stage.condition("Quorate"), Some("False".to_owned()));
    assert_eq!(status["members"].as_array().map(Vec::len), Some(3), "the last known members stay");
    assert_eq!(Arc::strong_count(&stage.context), 1);
}

#[tokio::test]
async fn a_policy_that_is_not_wanted_any_more_goes_and_somebody_elses_stays() {
    const POLICY: &str = "/apis/networking.k8s.io/v1/namespaces/ns/networkpolicies/demo";
    let stage = Stage::new(three());
    stage.until_ready().await;
    assert!(stage.api.get(POLICY).is_some());
    stage.api.edit(CLUSTER, |cluster| cluster["spec"]["networkPolicy"] = json!({"enabled": false}));
    stage.round().await.expect("the round succeeds");
    assert!(stage.api.get(POLICY).is_none());

    stage.api.put(POLICY, json!({"metadata": {"name": "demo", "namespace": "ns"}}));
    stage.round().await.expect("the round succeeds");
    assert!(stage.api.get(POLICY).is_some(), "it is not the cluster's");
}
