//! The CEL rules of the schema, as the API server evaluates them.

// Whole files of tests may panic, and take values as `json!` makes them.
#![allow(clippy::panic, clippy::needless_pass_by_value)]

use quorate_crds::RaftCluster;
use serde_json::{Value, json};

fn cluster(name: &str, spec: Value) -> RaftCluster {
    serde_json::from_value(json!({
        "apiVersion": "quorate.dev/v1alpha1", "kind": "RaftCluster",
        "metadata": {"name": name, "namespace": "default"}, "spec": spec,
    }))
    .expect("the manifest has the right shape")
}

/// What the API server says to a new resource.
fn refusal(name: &str, spec: Value) -> Option<String> {
    cluster(name, spec).validate_cel().err().map(|errors| format!("{errors:?}"))
}

/// What the API server says to a change.
fn refused_change(old: Value, new: Value) -> Option<String> {
    cluster("demo", new).validate_cel_update(&cluster("demo", old)).err().map(|errors| format!("{errors:?}"))
}

fn assert_refused(found: Option<String>, part: &str) {
    let found = found.unwrap_or_else(|| panic!("accepted; wanted a refusal that says {part:?}"));
    assert!(found.contains(part), "{found} does not say {part:?}");
}

#[test]
fn the_least_manifests_are_whole() {
    for spec in [json!({}), json!({"replicas": 3, "storage": {"size": "1Gi"}})] {
        assert_eq!(refusal("demo", spec), None);
    }
    let spec = cluster("demo", json!({})).spec;
    assert_eq!((spec.replicas, spec.storage.size.as_str()), (3, "10Gi"));
}

#[test]
fn replicas_are_one_to_nine() {
    for replicas in 1..=9 {
        assert_eq!(refusal("demo", json!({"replicas": replicas})), None, "{replicas}");
    }
    for replicas in [0, -1, i32::MIN] {
        assert_refused(refusal("demo", json!({"replicas": replicas})), "replicas must be at least 1");
    }
    for replicas in [10, 100, i32::MAX] {
        assert_refused(refusal("demo", json!({"replicas": replicas})), "replicas must be at most 9");
    }
}

#[test]
fn a_size_is_a_sane_quantity() {
    for size in ["128Mi", "1Gi", "1.5Gi", "10G", "64Ti", "134217728"] {
        assert_eq!(refusal("demo", json!({"storage": {"size": size}})), None, "{size}");
    }
    for size in ["", "big", "1 Gi", "1Gib", "--1"] {
        assert_refused(refusal("demo", json!({"storage": {"size": size}})), "not a quantity");
    }
    for size in ["0", "-1Gi", "1", "127Mi"] {
        assert_refused(refusal("demo", json!({"storage": {"size": size}})), "too small");
    }
    assert_refused(refusal("demo", json!({"storage": {"size": "65Ti"}})), "larger than any volume");
}

#[test]
fn a_size_grows_and_never_shrinks() {
    let size = |size: &str| json!({"storage": {"size": size}});
    assert_eq!(refused_change(size("1Gi"), size("1024Mi")), None);
    assert_eq!(refused_change(size("1Gi"), size("2Gi")), None);
    assert_refused(refused_change(size("2Gi"), size("1Gi")), "cannot shrink");
}

#[test]
fn the_storage_class_stays() {
    let class = |class: Option<&str>| json!({"storage": {"size": "1Gi", "className": class}});
    assert_eq!(refused_change(class(Some("fast")), class(Some("fast"))), None);
    assert_eq!(refused_change(class(None), class(None)), None);
    for (old, new) in [(Some("fast"), Some("slow")), (Some("fast"), None), (None, Some("fast"))] {
        assert_refused(refused_change(class(old), class(new)), "className cannot be changed");
    }
}

#[test]
fn a_name_makes_valid_names() {
    for name in ["a", "demo", "demo-2", &"a".repeat(52)] {
        assert_eq!(refusal(name, json!({})), None, "{name}");
    }
    assert_refused(refusal(&"a".repeat(53), json!({})), "too long");
    for name in ["2demo", "demo.prod", "demo-", "-demo"] {
        assert_refused(refusal(name, json!({})), "DNS label");
    }
}

#[test]
fn the_identity_of_a_cluster_stays() {
    let mut old = cluster("demo", json!({}));
    old.status =
        Some(quorate_crds::RaftClusterStatus { cluster_id: Some("1f".into()), ..Default::default() });
    let mut new = old.clone();
    assert!(new.validate_cel_update(&old).is_ok());
    new.status =
        Some(quorate_crds::RaftClusterStatus { cluster_id: Some("2f".into()), ..Default::default() });
    assert_refused(
        new.validate_cel_update(&old).err().map(|errors| format!("{errors:?}")),
        "clusterID cannot be changed",
    );
    new.status = Some(quorate_crds::RaftClusterStatus::default());
    assert_refused(
        new.validate_cel_update(&old).err().map(|errors| format!("{errors:?}")),
        "clusterID cannot be taken away",
    );
}

#[test]
fn a_cluster_that_was_founded_stays_so() {
    let founded = |bootstrapped| {
        let mut cluster = cluster("demo", json!({}));
        cluster.status = Some(quorate_crds::RaftClusterStatus { bootstrapped, ..Default::default() });
        cluster
    };
    for (old, new) in [(false, false), (false, true), (true, true)] {
        assert!(founded(new).validate_cel_update(&founded(old)).is_ok(), "{old} to {new}");
    }
    assert_refused(
        founded(false).validate_cel_update(&founded(true)).err().map(|errors| format!("{errors:?}")),
        "bootstrapped cannot be taken back",
    );
}

#[test]
fn users_do_not_found_clusters_or_let_nodes_in() {
    assert_eq!(refusal("demo", json!({"env": [{"name": "QUORATE_LOG", "value": "debug"}]})), None);
    for name in ["QUORATE_BOOTSTRAP", "QUORATE_JOIN"] {
        let env = json!({"env": [{"name": "RUST_LOG"}, {"name": name, "value": "x"}]});
        assert_refused(refusal("demo", env), "the operator founds the cluster");
    }
}
