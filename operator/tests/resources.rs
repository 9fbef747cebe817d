//! The objects of a cluster, as they are kept in `golden/`: a person reads there what the operator makes.
//! `UPDATE_GOLDEN=1 cargo test -p quorate-operator --test resources` writes them anew.

// Whole files of tests may panic, and take values as `json!` makes them.
#![allow(clippy::panic, clippy::needless_pass_by_value, clippy::similar_names)]

use std::path::Path;

use quorate_crds::RaftCluster;
use quorate_operator::plan::Budget;
use quorate_operator::resources::{Blueprint, objects};
use serde::Serialize;
use serde_json::{Value, json};

fn cluster(name: &str, spec: Value) -> RaftCluster {
    serde_json::from_value(json!({
        "apiVersion": "quorate.dev/v1alpha1", "kind": "RaftCluster",
        "metadata": {"name": name, "namespace": "ns", "uid": "0c7e6a1e-0000-4000-8000-000000000000"}, "spec": spec,
    }))
    .expect("a valid manifest")
}

fn blueprint<'a>(cluster: &'a RaftCluster, image: &'a str) -> Blueprint<'a> {
    Blueprint {
        cluster,
        image,
        pods: 3,
        budget: Budget { min_available: 2, always_allow: false },
        claim_size: None,
        operator_namespace: "quorate-system",
    }
}

fn yaml(object: &impl Serialize) -> String {
    // Through a value, so that keys are sorted and the files stay comparable.
    let value = serde_json::to_value(object).expect("an object is serialisable");
    serde_yaml::to_string(&value).expect("an object is serialisable")
}

fn all(blueprint: Blueprint<'_>) -> String {
    let made = objects(blueprint);
    [
        yaml(&made.peers),
        yaml(&made.client),
        yaml(&made.leader),
        yaml(&made.network_policy.expect("a policy")),
        yaml(&made.pdb),
        yaml(&made.stateful_set),
    ]
    .join("---\n")
}

fn assert_golden(name: &str, found: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::create_dir_all(path.parent().expect("a directory")).expect("the directory can be made");
        std::fs::write(&path, found).expect("the file can be written");
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(expected == found, "{} differs from:\n{found}", path.display());
}

#[test]
fn a_cluster_with_defaults() {
    let cluster = cluster("demo", json!({"replicas": 3, "storage": {"size": "1Gi"}}));
    assert_golden("defaults.yaml", &all(blueprint(&cluster, "ghcr.io/quorate/quorate-node:0.1.0")));
}

#[test]
fn a_cluster_with_everything() {
    let cluster = cluster(
        "orders",
        json!({
            "replicas": 5,
            "storage": {"size": "50Gi", "className": "fast"},
            "image": "registry.example/node:1",
            "imagePullPolicy": "Always",
            "imagePullSecrets": [{"name": "registry"}],
            "resources": {"requests": {"cpu": "1", "memory": "2Gi"}, "limits": {"memory": "2Gi"}},
            "env": [
                {"name": "RUST_LOG", "value": "debug"}, {"name": "POD_NAME", "value": "not-this"},
                {"name": "QUORATE_PEER_CA", "value": "not-this"}, {"name": "QUORATE_BOOTSTRAP", "value": "not-this"},
                {"name": "QUORATE_DATA_DIR", "value": "not-this"}, {"name": "QUORATE_LOG", "value": "not-this"}
            ],
            "quota": "1536Mi",
            "compaction": {"mode": "Revision", "retention": 10000},
            "log": {"filter": "info,quorate_node=debug", "format": "Json"},
            "networkPolicy": {
                "clients": [{"podSelector": {"matchLabels": {"app": "shop"}}, "namespaceSelector": {}}],
                "metrics": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}]
            },
            "service": {"type": "LoadBalancer", "annotations": {"example.com/internal": "true"}},
            "metadata": {
                "labels": {"cost-centre": "orders", "app.kubernetes.io/name": "not-this"},
                "annotations": {"example.com/owner": "orders"}
            },
            "podTemplate": {
                "metadata": {
                    "labels": {"team": "orders"},
                    "annotations": {"example.com/scrape": "true"}
                },
                "spec": {
                    "nodeSelector": {"disk": "nvme"},
                    "tolerations": [{"key": "dedicated", "operator": "Exists"}],
                    "affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
                        {"topologyKey": "kubernetes.io/hostname"}
                    ]}},
                    "topologySpreadConstraints": [{
                        "maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": "DoNotSchedule"
                    }],
                    "priorityClassName": "high",
                    "serviceAccountName": "orders",
                    "terminationGracePeriodSeconds": 60
                }
            }
        }),
    );
    assert_golden("everything.yaml", &all(blueprint(&cluster, "registry.example/node:1")));
}

#[test]
fn the_claim_template_of_a_stateful_set_that_exists_is_kept() {
    let cluster = cluster("demo", json!({"storage": {"size": "2Gi"}}));
    let made = objects(Blueprint { claim_size: Some("1Gi"), ..blueprint(&cluster, "image") });
    let spec = serde_json::to_value(made.stateful_set.spec).expect("serialisable");
    assert_eq!(spec["volumeClaimTemplates"][0]["spec"]["resources"]["requests"]["storage"], "1Gi");
}

/// The node's container.
fn node(cluster: &RaftCluster) -> Value {
    let spec =
        serde_json::to_value(objects(blueprint(cluster, "image")).stateful_set.spec).expect("serialisable");
    spec["template"]["spec"]["containers"][0].clone()
}

#[test]
fn a_node_listens_on_both_families() {
    let args = node(&cluster("demo", json!({})))["args"].clone();
    let listeners: Vec<_> = args.as_array().expect("flags").iter().filter_map(Value::as_str).collect();
    for flag in ["--listen-client=[::]:2379", "--listen-peer=[::]:2380", "--listen-http=[::]:2381"] {
        assert!(listeners.contains(&flag), "{flag} is not in {listeners:?}");
    }
}

#[test]
fn a_start_that_takes_long_is_not_ended() {
    let node = node(&cluster("demo", json!({})));
    let paths =
        ["startupProbe", "livenessProbe", "readinessProbe"].map(|probe| &node[probe]["httpGet"]["path"]);
    assert_eq!(paths, ["/startupz", "/livez", "/readyz"]);
    assert_eq!(node["startupProbe"]["failureThreshold"], i32::MAX);
}

#[test]
fn a_pod_has_time_to_hand_over_and_to_let_clients_go() {
    let grace = |spec: Value| {
        let set = serde_json::to_value(objects(blueprint(&cluster("demo", spec), "image")).stateful_set)
            .expect("serialisable");
        set["spec"]["template"]["spec"]["terminationGracePeriodSeconds"].as_i64()
    };
    let asked = |seconds: i64| json!({"podTemplate": {"spec": {"terminationGracePeriodSeconds": seconds}}});
    assert_eq!(grace(json!({})), Some(30));
    assert_eq!(grace(asked(90)), Some(90));
    assert_eq!(grace(asked(1)), Some(30), "an object that is older than the rule");
}

fn with_application(spec: Value) -> RaftCluster {
    cluster("shop", json!({"replicas": 3, "storage": {"size": "1Gi"}, "podTemplate": {"spec": spec}}))
}

#[test]
fn a_cluster_beside_an_application() {
    let cluster = with_application(json!({
        "containers": [
            {"name": "shop", "image": "registry.example/shop:1", "resources": {"requests": {"cpu": 0.5}},
             "ports": [{"name": "http", "containerPort": 8080}]},
            {"name": "node", "volumeMounts": [{"name": "scratch", "mountPath": "/scratch"}]}
        ],
        "initContainers": [{"name": "schema", "image": "registry.example/schema:1"}],
        "volumes": [{"name": "scratch", "emptyDir": {}}],
        "securityContext": {"fsGroup": 2000},
        "automountServiceAccountToken": true,
        "terminationGracePeriodSeconds": 45
    }));
    assert!(cluster.validate_cel().is_ok(), "{:?}", cluster.validate_cel());
    assert_golden(
        "sidecar.yaml",
        &yaml(&objects(blueprint(&cluster, "registry.example/node:1")).stateful_set),
    );
}

#[test]
fn node_is_the_first_to_start_beside_containers_of_the_users_and_ordinary_without() {
    let pod = |spec: Value| {
        let set = objects(blueprint(&with_application(spec), "image")).stateful_set;
        set.spec.and_then(|set| set.template.spec).expect("a pod")
    };
    let names = |containers: &[k8s_openapi::api::core::v1::Container]| {
        containers.iter().map(|container| container.name.clone()).collect::<Vec<_>>()
    };
    let schema = json!({"name": "schema", "image": "schema"});
    let beside = pod(json!({"containers": [{"name": "shop", "image": "shop"}], "initContainers": [schema]}));
    let init = beside.init_containers.expect("init containers");
    assert_eq!(
        (names(&init), names(&beside.containers)),
        (vec!["node".into(), "schema".into()], vec!["shop".into()])
    );
    assert_eq!(init[0].restart_policy.as_deref(), Some("Always"));
    assert_eq!(
        beside.termination_grace_period_seconds,
        Some(60),
        "30 s for the application, 30 s for the node"
    );
    let alone = pod(json!({"containers": [{"name": "node"}], "initContainers": [schema]}));
    assert_eq!(names(&alone.containers), ["node"]);
    assert_eq!(names(&alone.init_containers.expect("init containers")), ["schema"]);
    assert_eq!(alone.containers[0].restart_policy, None);
}

#[test]
fn leadership_is_handed_over_before_an_application_takes_its_time_to_end() {
    let hook = |cluster: &RaftCluster| {
        let pod = objects(blueprint(cluster, "image")).stateful_set.spec.and_then(|set| set.template.spec);
        let pod = pod.expect("a pod");
        let all = pod.init_containers.into_iter().flatten().chain(pod.containers);
        let node = all.into_iter().find(|container| container.name == "node").expect("the node");
        node.lifecycle.and_then(|lifecycle| lifecycle.pre_stop?.exec?.command)
    };
    let beside = with_application(json!({"containers": [{"name": "shop", "image": "shop"}]}));
    let command = hook(&beside).expect("a command");
    assert_eq!(command, ["/usr/local/bin/raftctl", "transfer", "--if-here"]);
    assert_eq!(hook(&with_application(json!({}))), None, "alone it is told to stop at once");
}

#[test]
fn users_of_the_platform_are_its_to_choose() {
    let context = |spec: Value| {
        let set = serde_json::to_value(objects(blueprint(&cluster("demo", spec), "image")).stateful_set);
        set.expect("serialisable")["spec"]["template"]["spec"]["securityContext"].clone()
    };
    assert_eq!(context(json!({}))["runAsUser"], 65532);
    let chosen = context(json!({"users": "Platform"}));
    for number in ["runAsUser", "runAsGroup", "fsGroup"] {
        assert!(chosen[number].is_null(), "{chosen}");
    }
    assert_eq!(chosen["runAsNonRoot"], true);
    let given = context(json!({"podTemplate": {"spec": {"securityContext": {"fsGroup": 2000}}}}));
    assert_eq!((&given["fsGroup"], &given["runAsUser"]), (&2000.into(), &65532.into()));
}

#[test]
fn volumes_may_be_for_one_pod_alone() {
    let claim = |spec: Value| {
        let set = serde_json::to_value(objects(blueprint(&cluster("demo", spec), "image")).stateful_set);
        set.expect("serialisable")["spec"]["volumeClaimTemplates"][0].clone()
    };
    assert_eq!(claim(json!({}))["spec"]["accessModes"], json!(["ReadWriteOnce"]));
    let alone = claim(json!({"storage": {"size": "1Gi", "accessMode": "ReadWriteOncePod"}}));
    assert_eq!(alone["spec"]["accessModes"], json!(["ReadWriteOncePod"]));
}

#[test]
fn clients_reach_the_store_while_an_application_beside_it_is_not_ready() {
    let published = |cluster: &RaftCluster| {
        objects(blueprint(cluster, "image")).client.spec.and_then(|spec| spec.publish_not_ready_addresses)
    };
    let beside = with_application(json!({"containers": [{"name": "shop", "image": "shop"}]}));
    assert_eq!(published(&beside), Some(true));
    assert_eq!(published(&cluster("demo", json!({}))), None, "alone, the pod's readiness is the node's");
}

#[test]
fn clients_speak_tls_where_the_spec_says_so_and_raftctl_in_the_pod_does_too() {
    let of = |tls: Value| {
        let cluster = cluster("demo", json!({"tls": tls}));
        let made = objects(blueprint(&cluster, "image"));
        let protocol = made.client.spec.expect("a spec").ports.expect("ports")[0].app_protocol.clone();
        (node(&cluster), protocol)
    };
    let variable = |node: &Value, name: &str| {
        let all = node["env"].as_array().expect("variables");
        all.iter().find(|variable| variable["name"] == name).map(|variable| variable["value"].clone())
    };
    let flag = |node: &Value, flag: &str| node["args"].as_array().expect("flags").contains(&flag.into());
    let (clear, protocol) = of(json!({}));
    assert_eq!(
        (variable(&clear, "QUORATE_CLIENT_CERT"), protocol.as_deref()),
        (None, Some("kubernetes.io/h2c"))
    );
    let url = "$(POD_NAME).demo-peers.ns.svc:2379";
    assert!(flag(&clear, &format!("--advertise-client=http://{url}")));

    let (open, protocol) = of(json!({"client": {}}));
    assert_eq!(protocol.as_deref(), Some("https"));
    assert!(flag(&open, &format!("--advertise-client=https://{url}")));
    assert_eq!(variable(&open, "QUORATE_ENDPOINTS"), Some(format!("https://{url}").into()));
    assert_eq!(variable(&open, "QUORATE_CLIENT_CERT"), Some("/etc/quorate/client/tls.crt".into()));
    assert_eq!(variable(&open, "QUORATE_CLIENT_CA"), None, "the node would ask clients for certificates");
    let (closed, _) = of(json!({"client": {"clientCertificates": "Required"}}));
    assert_eq!(variable(&closed, "QUORATE_CLIENT_CA"), Some("/etc/quorate/client/ca.crt".into()));
    assert!(
        closed["volumeMounts"].as_array().expect("mounts").iter().any(|mount| mount["name"] == "client-tls")
    );
}

#[test]
fn only_members_speak_as_members_and_the_operator_changes_the_cluster() {
    let args = node(&cluster("demo", json!({})))["args"].clone();
    for flag in ["--peer-allowed-names=demo nodes", "--admin-allowed-names=demo admin"] {
        assert!(args.as_array().expect("flags").contains(&flag.into()), "{flag} is not in {args}");
    }
}

#[test]
fn the_samples_are_valid() {
    let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests/samples");
    let mut count = 0;
    for entry in std::fs::read_dir(samples).expect("the samples are there") {
        let path = entry.expect("an entry").path();
        let text = std::fs::read_to_string(&path).expect("a readable file");
        let sample: RaftCluster =
            serde_yaml::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert!(sample.validate_cel().is_ok(), "{}: {:?}", path.display(), sample.validate_cel());
        count += 1;
    }
    assert!(count >= 3);
}

#[test]
fn nobody_gets_in_but_whom_the_spec_lets_in() {
    let policy = |access: Value| {
        let cluster = cluster("demo", json!({"networkPolicy": access}));
        let made = objects(blueprint(&cluster, "node")).network_policy;
        made.map(|policy| serde_json::to_value(&policy.spec).expect("a policy is serialisable"))
    };
    let from = |policy: &Value, port: u64| -> Vec<Value> {
        let rules = policy["ingress"].as_array().expect("rules").iter();
        let of_port = rules.filter(|rule| rule["ports"] == json!([{"port": port, "protocol": "TCP"}]));
        of_port.map(|rule| rule["from"].clone()).collect()
    };
    let namespace = json!([{"podSelector": {}}]);
    let default = policy(json!({})).expect("a policy by default");
    assert_eq!(
        (from(&default, 2379), from(&default, 2381)),
        (vec![namespace.clone()], vec![namespace.clone()])
    );
    assert_eq!(from(&default, 2380)[0].as_array().map(Vec::len), Some(2), "the members and the operator");

    let everybody = json!([{"namespaceSelector": {}}]);
    let open = policy(json!({"clients": everybody})).expect("a policy");
    assert_eq!((from(&open, 2379), from(&open, 2381)), (vec![everybody], vec![namespace]));
    // A rule without peers would let everybody in.
    let closed = policy(json!({"clients": [], "metrics": []})).expect("a policy");
    assert_eq!(closed["ingress"].as_array().map(Vec::len), Some(1), "the peer port's: {closed}");
    assert_eq!(policy(json!({"enabled": false})), None);
}
