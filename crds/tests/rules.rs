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
fn a_size_that_the_class_did_not_give_can_be_taken_back() {
    let sized = |wanted: &str, has: &str| {
        let mut cluster = cluster("demo", json!({"storage": {"size": wanted}}));
        let storage = Some(quorate_crds::StorageStatus { size: has.to_owned() });
        cluster.status = Some(quorate_crds::RaftClusterStatus { storage, ..Default::default() });
        cluster
    };
    let change = |to: &str| sized(to, "1Gi").validate_cel_update(&sized("2Gi", "1Gi"));
    assert!(change("1Gi").is_ok(), "the volumes have 1Gi");
    assert!(change("1536Mi").is_ok());
    assert_refused(change("1000Mi").err().map(|errors| format!("{errors:?}")), "status.storage.size");
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
fn the_access_mode_stays() {
    let mode = |mode: &str| json!({"storage": {"size": "1Gi", "accessMode": mode}});
    assert_eq!(refused_change(mode("ReadWriteOncePod"), mode("ReadWriteOncePod")), None);
    let unsaid = json!({"storage": {"size": "1Gi"}});
    assert_eq!(refused_change(unsaid.clone(), mode("ReadWriteOnce")), None);
    assert_refused(refused_change(unsaid, mode("ReadWriteOncePod")), "accessMode cannot be changed");
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
fn variables_that_are_not_for_users_are_refused_with_what_to_write_instead() {
    let env = |name: &str| json!({"env": [{"name": "RUST_LOG"}, {"name": name, "value": "x"}]});
    for name in ["QUORATE_PRIORITY", "QUORATE_MAX_CLIENT_CONNECTIONS", "TZ"] {
        assert_eq!(refusal("demo", env(name)), None, "{name}");
    }
    for name in ["QUORATE_BOOTSTRAP", "QUORATE_JOIN"] {
        assert_refused(refusal("demo", env(name)), "the operator founds the cluster");
    }
    for name in
        ["POD_NAME", "QUORATE_LISTEN_HTTP", "QUORATE_PEER_CA", "QUORATE_CLIENT_CERT", "QUORATE_DATA_DIR"]
    {
        assert_refused(refusal("demo", env(name)), "the operator sets them");
    }
    for name in ["QUORATE_LOG", "QUORATE_QUOTA_BYTES", "QUORATE_AUTO_COMPACTION_RETENTION"] {
        assert_refused(refusal("demo", env(name)), "write spec.quota, spec.compaction and spec.log");
    }
}

#[test]
fn a_quota_is_a_sane_quantity_or_none() {
    for quota in ["none", "16Mi", "2Gi", "1.5G"] {
        assert_eq!(refusal("demo", json!({"quota": quota})), None, "{quota}");
    }
    for quota in ["", "plenty", "2GiB"] {
        assert_refused(refusal("demo", json!({"quota": quota})), "quota is not a quantity");
    }
    for quota in ["0", "-1Gi", "1Mi"] {
        assert_refused(refusal("demo", json!({"quota": quota})), "quota is too small");
    }
}

#[test]
fn a_retention_fits_its_mode() {
    assert_eq!(cluster("demo", json!({})).spec.compaction.retention(), "1h");
    let compaction = |mode: &str, retention: Value| {
        refusal("demo", json!({"compaction": {"mode": mode, "retention": retention}}))
    };
    for retention in [json!("1h30m"), json!("1.5h"), json!("90s"), json!(8), json!("0"), json!(0)] {
        assert_eq!(compaction("Periodic", retention.clone()), None, "{retention}");
    }
    for retention in [json!("soon"), json!("1 h"), json!(""), json!(-1), json!("1d")] {
        assert_refused(compaction("Periodic", retention), "compaction.retention is no time");
    }
    for retention in [json!(10000), json!("10000"), json!(0)] {
        assert_eq!(compaction("Revision", retention.clone()), None, "{retention}");
    }
    // The default is a time.
    let default = refusal("demo", json!({"compaction": {"mode": "Revision"}}));
    assert_refused(default, "must be a number of revisions");
    assert_refused(compaction("Revision", json!("1h")), "must be a number of revisions");
}

#[test]
fn a_log_filter_is_not_the_form() {
    assert_eq!(
        refusal("demo", json!({"log": {"filter": "info,quorate_node=debug", "format": "Json"}})),
        None
    );
    assert_refused(refusal("demo", json!({"log": {"filter": "json"}})), "log.format");
}

#[test]
fn a_node_has_time_to_end() {
    let grace = |seconds: i64| {
        refusal("demo", json!({"podTemplate": {"spec": {"terminationGracePeriodSeconds": seconds}}}))
    };
    assert_eq!(grace(30), None);
    for seconds in [0, 1, 29] {
        assert_refused(grace(seconds), "must be at least 30");
    }
}

#[test]
fn resources_are_read_as_pods_have_them() {
    let cpu = |amount: Value| cluster("demo", json!({"resources": {"requests": {"cpu": amount}}}));
    for (written, read) in [(json!(0.5), "0.5"), (json!(2), "2"), (json!("500m"), "500m")] {
        let resources = cpu(written).spec.resources.expect("resources");
        assert_eq!(resources.requests.expect("requests")["cpu"].0, read);
    }
}

#[test]
fn labels_that_the_operator_finds_its_objects_by_are_refused() {
    let labels = |name: &str| refusal("demo", json!({"metadata": {"labels": {"team": "a", name: "b"}}}));
    assert_eq!(labels("app.kubernetes.io/part-of"), None);
    for name in ["app.kubernetes.io/name", "app.kubernetes.io/instance", "quorate.dev/cluster"] {
        assert_refused(labels(name), "Choose others");
    }
}

#[test]
fn a_pod_template_takes_what_a_pod_takes_but_what_the_operator_owns() {
    let refusal = |spec: Value| refusal("demo", json!({"podTemplate": {"spec": spec}}));
    let shop = json!({"name": "shop", "image": "shop:1", "ports": [{"containerPort": 8080}]});
    assert_eq!(
        refusal(
            json!({"containers": [shop], "volumes": [{"name": "scratch", "emptyDir": {}}], "hostNetwork": false})
        ),
        None
    );
    let node = |field: &str, value: Value| json!({"containers": [{"name": "node", field: value}]});
    assert_eq!(refusal(node("volumeMounts", json!([{"name": "scratch", "mountPath": "/scratch"}]))), None);
    for (field, value) in
        [("image", json!("mine")), ("args", json!(["--bootstrap"])), ("env", json!([{"name": "A"}]))]
    {
        assert_refused(refusal(node(field, value)), "Write spec.image, spec.env and spec.resources");
    }
    let mount = |name: &str, path: &str| json!([{"name": name, "mountPath": path}]);
    assert_refused(
        refusal(node("volumeMounts", mount("scratch", "/var/lib/quorate/x"))),
        "nothing may be mounted over",
    );
    let mut spy = shop.clone();
    spy["volumeMounts"] = mount("data", "/data");
    assert_refused(refusal(json!({"containers": [spy]})), "for its node alone");
    assert_refused(refusal(json!({"volumes": [{"name": "peer-tls"}]})), "these are the node's");
    assert_refused(
        refusal(json!({"initContainers": [{"name": "node", "image": "x"}]})),
        "must not hold node",
    );
    assert_refused(refusal(json!({"containers": [{"name": "shop"}]})), "needs an image");
    let mut clash = shop.clone();
    clash["ports"][0]["containerPort"] = 2379.into();
    assert_refused(refusal(json!({"containers": [clash]})), "Choose others");
    for (field, value) in
        [("hostname", json!("x")), ("nodeName", json!("x")), ("restartPolicy", json!("Never"))]
    {
        assert_refused(refusal(json!({field: value})), "members have their pods' names");
    }
    // Beside an application it is the application's time.
    assert_eq!(refusal(json!({"containers": [shop], "terminationGracePeriodSeconds": 5})), None);
}

#[test]
fn labels_that_the_operator_selects_by_are_refused() {
    let labels = |key: &str| refusal("demo", json!({"podTemplate": {"metadata": {"labels": {key: "x"}}}}));
    assert_eq!(labels("team"), None);
    for key in ["app.kubernetes.io/instance", "quorate.dev/cluster"] {
        assert_refused(labels(key), "the operator finds the pods by them");
    }
}

#[test]
fn patience_is_a_time_or_never_and_only_volumes_that_are_of_no_use_are_replaced() {
    for patience in ["30m", "12h", "1h30m", "0s", "Never"] {
        assert_eq!(refusal("demo", json!({"replacement": {"patience": patience}})), None, "{patience}");
    }
    for patience in ["never", "30", "-5m", "1d", "soon"] {
        assert_refused(
            refusal("demo", json!({"replacement": {"patience": patience}})),
            "replacement.patience is no time",
        );
    }
}

#[test]
fn only_a_recovery_that_was_asked_for_changes_the_id_of_a_cluster() {
    const OLD: &str = "00000000000000a1";
    const NEW: &str = "00000000000000b2";
    let request = json!({"cluster": OLD, "pod": "demo-0", "member": "000000000000000a"});
    let recovery = json!({"from": OLD, "clusterID": NEW, "pod": "demo-0", "member": "000000000000000a"});
    let with = |recover: Option<&Value>, id: &str, recovery: Option<&Value>| {
        let mut status = json!({"clusterID": id, "bootstrapped": true, "replicas": 0});
        let mut spec = json!({});
        if let Some(recover) = recover {
            spec["recover"] = recover.clone();
        }
        if let Some(recovery) = recovery {
            status["recovery"] = recovery.clone();
        }
        let mut made = cluster("demo", spec);
        made.status = Some(serde_json::from_value(status).expect("a status"));
        made
    };
    let change = |old: &RaftCluster, new: &RaftCluster| {
        new.validate_cel_update(old).err().map(|errors| format!("{errors:?}"))
    };
    let plain = with(None, OLD, None);
    let asked = with(Some(&request), OLD, None);
    let begun = with(Some(&request), OLD, Some(&recovery));
    let done = with(Some(&request), NEW, Some(&recovery));
    for (old, new) in [
        (&plain, &asked),
        (&asked, &begun),
        (&begun, &done),
        (&done, &done),
        (&done, &with(None, NEW, Some(&recovery))),
    ] {
        assert_eq!(change(old, new), None, "{old:?}\n{new:?}");
    }
    assert_refused(change(&plain, &with(None, NEW, None)), "cannot be changed but by a recovery");
    assert_refused(
        change(&asked, &with(Some(&request), NEW, Some(&recovery))),
        "cannot be changed but by a recovery",
    );
    assert_refused(
        change(&plain, &with(None, OLD, Some(&recovery))),
        "begins only with what spec.recover asks for",
    );
    let other = json!({"cluster": NEW, "pod": "demo-0", "member": "000000000000000a"});
    assert_refused(
        change(&plain, &with(Some(&other), OLD, None)),
        "recover.cluster is not this cluster's ID",
    );
}

#[test]
fn tls_of_clients_is_the_operators_or_a_secrets() {
    let tls = |client: Value| json!({"tls": {"client": client}});
    for fine in [
        json!({}),
        json!({"clientCertificates": "Required"}),
        json!({"secretName": "store"}),
        json!({"names": ["store.example.com", "*.example.com", "203.0.113.7", "2001:db8::7", "store"]}),
    ] {
        assert_eq!(refusal("demo", tls(fine.clone())), None, "{fine}");
    }
    assert_refused(
        refusal("demo", tls(json!({"secretName": "store", "names": ["a.example.com"]}))),
        "have the names put into the certificate of tls.client.secretName",
    );
    for name in ["https://a.example.com", "a.example.com:2379", "", "a..b", "*"] {
        assert_refused(refusal("demo", tls(json!({"names": [name]}))), "must hold DNS names");
    }
}

#[test]
fn an_upgrade_is_final_after_a_time_or_never() {
    let after = |after: &str| json!({"upgrade": {"finalizeAfter": after}});
    for fine in ["24h", "1h30m", "0s", "Never"] {
        assert_eq!(refusal("demo", after(fine)), None, "{fine}");
    }
    for wrong in ["", "never", "24", "1d", "-1h", "h"] {
        assert_refused(refusal("demo", after(wrong)), "upgrade.finalizeAfter must be a time");
    }
}
