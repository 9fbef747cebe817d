//! The life of a cluster, step by step.

use std::collections::BTreeMap;
use std::time::Duration;

use quorate_crds::{RaftCluster, RaftClusterStatus};

use crate::kubectl::{apply, etcdctl, helm, kubectl, timeout, wait_for};
use crate::steps::Step;
use crate::traffic::{Traffic, WayIn};

/// Deadlines, not expectations: `patience` makes them longer.
const SOON: Duration = Duration::from_mins(1);
const LONG: Duration = Duration::from_mins(4);

const NAMESPACE: &str = "quorate-e2e";
const OPERATOR_NAMESPACE: &str = "quorate-system";
const CLUSTER: &str = "life";

/// Everything, in order.
pub(crate) const STEPS: &[Step] = &[
    ("the_operator_is_installed_with_helm", Story::install),
    ("bad_manifests_are_refused_with_a_message", Story::bad_manifests),
    ("a_manifest_becomes_a_ready_cluster", Story::create),
    ("the_columns_show_leader_and_term", Story::columns),
    ("raftctl_in_a_pod_says_who_takes_part", Story::raftctl),
    ("etcdctl_works_on_a_pod", Story::etcdctl),
    ("an_even_number_of_voters_is_accepted_and_explained", Story::even_number),
    ("clients_write_and_read", Story::traffic_begins),
    ("a_deleted_leader_makes_way_and_comes_back_as_the_same_member", Story::leader_deleted),
    ("the_operator_is_killed_and_comes_back", Story::operator_killed),
    ("three_become_five", Story::five),
    ("five_become_three", Story::three),
    ("a_lost_volume_is_replaced_by_a_new_member", Story::volume_lost),
    ("the_history_is_linearizable_and_nothing_is_lost", Story::history),
    ("a_change_that_cannot_be_done_is_refused", Story::shrunken_volume),
    ("a_deleted_cluster_leaves_its_volumes", Story::delete),
    ("the_operator_is_uninstalled", Story::uninstall),
];

/// What goes on between the steps.
pub(crate) struct Story {
    traffic: Option<Traffic>,
}

impl Story {
    /// A namespace with restricted pod security, empty: what an earlier run has left goes first.
    pub(crate) fn begin() -> Result<Self, String> {
        kubectl(&["delete", "namespace", NAMESPACE, "--ignore-not-found", "--timeout", &timeout(SOON)])?;
        apply(&format!(
            "{{apiVersion: v1, kind: Namespace, metadata: {{name: {NAMESPACE}, labels: \
             {{pod-security.kubernetes.io/enforce: restricted}}}}}}"
        ))?;
        Ok(Self { traffic: None })
    }

    /// Where the cluster lives.
    #[allow(clippy::unused_self, reason = "the story says where it plays")]
    pub(crate) fn namespace(&self) -> &'static str {
        NAMESPACE
    }

    #[allow(clippy::unused_self, reason = "a step")]
    fn install(&mut self) -> Result<(), String> {
        let chart = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/quorate");
        let mut arguments = vec!["upgrade", "--install", "quorate", chart, "--namespace", OPERATOR_NAMESPACE];
        let long = timeout(LONG);
        arguments.extend(["--create-namespace", "--wait", "--timeout", &long]);
        let settings = image_settings();
        arguments.extend(settings.iter().flat_map(|setting| ["--set", setting]));
        helm(&arguments)?;
        kubectl(&[
            "wait",
            "--for=condition=Established",
            "crd/raftclusters.quorate.dev",
            "--timeout",
            &timeout(SOON),
        ])
        .map(drop)
    }

    #[allow(clippy::unused_self, reason = "a step")]
    fn bad_manifests(&mut self) -> Result<(), String> {
        let long = "a".repeat(60);
        let bad = [
            ("none", "replicas: 0", "replicas must be at least 1"),
            ("negative", "replicas: -3", "replicas must be at least 1"),
            ("many", "replicas: 99", "replicas must be at most 9"),
            ("size", "{replicas: 3, storage: {size: plenty}}", "size"),
            ("Nonsense", "replicas: 3", "lower-case"),
            (long.as_str(), "replicas: 3", "too long"),
        ];
        for (name, spec, message) in bad {
            match apply(&manifest(name, spec)) {
                Ok(_) => return Err(format!("{name}, {spec}: was accepted")),
                Err(error) if error.contains(message) => {}
                Err(error) => {
                    return Err(format!("{name}, {spec}: refused without saying {message:?}: {error}"));
                }
            }
        }
        Ok(())
    }

    #[allow(clippy::unused_self, reason = "a step")]
    fn create(&mut self) -> Result<(), String> {
        apply(&manifest(CLUSTER, "{replicas: 3, storage: {size: 1Gi}}"))?;
        wait_until_ready(3)
    }

    #[allow(clippy::unused_self, reason = "a step")]
    fn columns(&mut self) -> Result<(), String> {
        let table = kubectl(&["get", "raftclusters", "--namespace", NAMESPACE])?;
        let mut lines = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let head = lines.next().unwrap_or_default();
        if head != ["NAME", "QUORATE", "VOTERS", "LEADER", "TERM", "PHASE", "VERSION", "AGE"] {
            return Err(format!("the columns are {head:?}"));
        }
        let row: BTreeMap<_, _> = head.into_iter().zip(lines.next().unwrap_or_default()).collect();
        let holds = row.get("QUORATE") == Some(&"True")
            && row.get("VOTERS") == Some(&"3/3")
            && row.get("LEADER").is_some_and(|leader| leader.starts_with("life-"))
            && row.get("TERM").is_some_and(|term| term.parse::<u64>().is_ok_and(|term| term > 0))
            && row.get("PHASE") == Some(&"Ready")
            && row.get("VERSION") == Some(&env!("CARGO_PKG_VERSION"));
        if holds { Ok(()) } else { Err(format!("the row says {row:?}")) }
    }

    #[allow(clippy::unused_self, reason = "a step")]
    fn raftctl(&mut self) -> Result<(), String> {
        let (_, leader) = led()?;
        for command in [["status"].as_slice(), &["member", "list"]] {
            let mut arguments = vec!["exec", "--namespace", NAMESPACE, "life-0", "--", "raftctl"];
            arguments.extend(command);
            let said = kubectl(&arguments)?;
            if !said.contains(&leader) {
                return Err(format!("raftctl {} does not name {leader}: {said}", command.join(" ")));
            }
        }
        Ok(())
    }

    #[allow(clippy::unused_self, reason = "a step")]
    fn etcdctl(&mut self) -> Result<(), String> {
        let way = WayIn::open(NAMESPACE, "life-1");
        let etcdctl = |arguments: &[&str]| etcdctl(way.address, arguments);
        wait_for("an answer to etcdctl", SOON, || etcdctl(&["get", "greeting"]))?;
        let expect = |arguments: &[&str], wanted: &str| {
            let said = etcdctl(arguments)?;
            if said.contains(wanted) {
                Ok(())
            } else {
                Err(format!("etcdctl {}: {said:?} does not say {wanted:?}", arguments.join(" ")))
            }
        };
        expect(&["put", "greeting", "hello"], "OK")?;
        expect(&["get", "greeting"], "greeting\nhello")?;
        expect(&["txn", "value(\"greeting\") = \"hello\"", "put greeting hi", ""], "SUCCESS")?;
        expect(&["get", "greeting", "--print-value-only"], "hi")?;
        expect(&["del", "greeting"], "1")?;
        expect(&["endpoint", "status"], quorate_node::rpc::ETCD_VERSION)?;
        (0..3).try_for_each(|ordinal| expect(&["member", "list"], &format!("life-{ordinal}")))
    }

    #[allow(clippy::unused_self, reason = "a step")]
    fn even_number(&mut self) -> Result<(), String> {
        apply(&manifest("even", "{replicas: 2, storage: {size: 128Mi}}"))?;
        wait_for("a condition or an event that explains the even number", SOON, || {
            let cluster =
                kubectl(&["get", "raftcluster", "even", "--namespace", NAMESPACE, "--output", "yaml"])?;
            if cluster.contains("EvenReplicas") { Ok(()) } else { Err("nothing says so".to_owned()) }
        })?;
        kubectl(&["delete", "raftcluster", "even", "--namespace", NAMESPACE, "--timeout", &timeout(SOON)])?;
        wait_for("the end of its pods", SOON, || no_pods_of("even"))?;
        kubectl(&[
            "delete",
            "persistentvolumeclaims",
            "--namespace",
            NAMESPACE,
            "--selector",
            "quorate.dev/cluster=even",
        ])
        .map(drop)
    }

    fn traffic_begins(&mut self) -> Result<(), String> {
        let traffic = Traffic::start(NAMESPACE, &["life-0", "life-1", "life-2"])?;
        traffic.wait_for_answers(100, SOON)?;
        self.traffic = Some(traffic);
        Ok(())
    }

    fn leader_deleted(&mut self) -> Result<(), String> {
        let (before, leader) = led()?;
        kubectl(&["delete", "pod", &leader, "--namespace", NAMESPACE, "--wait=false"])?;
        wait_for("a higher term with a leader", SOON, || {
            let now = status()?;
            if now.term > before.term && now.leader.is_some() { Ok(()) } else { Err(brief(&now)) }
        })?;
        wait_until_ready(3)?;
        let after = status()?;
        if ids(&after) != ids(&before) {
            return Err(format!("the members were {} and are {}", brief(&before), brief(&after)));
        }
        self.traffic_goes_on()
    }

    fn operator_killed(&mut self) -> Result<(), String> {
        let selector =
            ["--namespace", OPERATOR_NAMESPACE, "--selector", "app.kubernetes.io/name=quorate-operator"];
        let mut delete = vec!["delete", "pods", "--grace-period", "0", "--force"];
        delete.extend(selector);
        kubectl(&delete)?;
        let (before, leader) = led()?;
        // What happens while it is away is seen when it is back.
        kubectl(&["delete", "pod", &leader, "--namespace", NAMESPACE, "--wait=false"])?;
        wait_for("the operator's news of another term", LONG, || {
            let now = status()?;
            if now.term > before.term && now.leader.is_some() { Ok(()) } else { Err(brief(&now)) }
        })?;
        wait_until_ready(3)?;
        self.traffic_goes_on()
    }

    fn five(&mut self) -> Result<(), String> {
        scale(5)?;
        wait_until_ready(5)?;
        self.traffic_goes_on()
    }

    fn three(&mut self) -> Result<(), String> {
        scale(3)?;
        wait_until_ready(3)?;
        wait_for("the end of the pods life-3 and life-4", LONG, || {
            let pods = kubectl(&["get", "pods", "--namespace", NAMESPACE, "--output", "name"])?;
            if pods.contains("life-3") || pods.contains("life-4") { Err(pods) } else { Ok(()) }
        })?;
        self.traffic_goes_on()
    }

    fn volume_lost(&mut self) -> Result<(), String> {
        let before = status()?;
        let lost = i32::from(before.leader.as_deref() == Some("life-0"));
        let (pod, claim) = (format!("life-{lost}"), format!("data-life-{lost}"));
        kubectl(&["delete", "persistentvolumeclaim", &claim, "--namespace", NAMESPACE, "--wait=false"])?;
        kubectl(&["delete", "pod", &pod, "--namespace", NAMESPACE])?;
        wait_for("a new member at its ordinal, as a voter", LONG, || {
            let now = status()?;
            let (old, new) = (ids(&before), ids(&now));
            let others_stay =
                new.iter().filter(|(ordinal, _)| **ordinal != lost).all(|(o, id)| old.get(o) == Some(id));
            let replaced = new.get(&lost).is_some_and(|id| Some(id) != old.get(&lost));
            if others_stay && replaced && new.len() == 3 { Ok(()) } else { Err(brief(&now)) }
        })?;
        wait_until_ready(3)?;
        self.traffic_goes_on()
    }

    fn history(&mut self) -> Result<(), String> {
        self.traffic.take().ok_or("there is no traffic")?.stop_and_check()
    }

    #[allow(clippy::unused_self, reason = "a step")]
    fn shrunken_volume(&mut self) -> Result<(), String> {
        match apply(&manifest(CLUSTER, "{replicas: 3, storage: {size: 10Mi}}")) {
            Ok(_) => return Err("a smaller volume was accepted".to_owned()),
            Err(error) if error.contains("storage.size") || error.contains("smaller") => {}
            Err(error) => return Err(format!("refused without saying why: {error}")),
        }
        wait_until_ready(3)
    }

    #[allow(clippy::unused_self, reason = "a step")]
    fn delete(&mut self) -> Result<(), String> {
        kubectl(&["delete", "raftcluster", CLUSTER, "--namespace", NAMESPACE, "--timeout", &timeout(SOON)])?;
        wait_for("the end of its pods", LONG, || no_pods_of(CLUSTER))?;
        let claims =
            kubectl(&["get", "persistentvolumeclaims", "--namespace", NAMESPACE, "--output", "name"])?;
        if (0..3).all(|ordinal| claims.contains(&format!("data-life-{ordinal}"))) {
            Ok(())
        } else {
            Err(claims)
        }
    }

    #[allow(clippy::unused_self, reason = "a step")]
    fn uninstall(&mut self) -> Result<(), String> {
        helm(&[
            "uninstall",
            "quorate",
            "--namespace",
            OPERATOR_NAMESPACE,
            "--wait",
            "--timeout",
            &timeout(LONG),
        ])?;
        kubectl(&["get", "crd", "raftclusters.quorate.dev"])
            .map_err(|error| format!("the CRD went with the chart: {error}"))?;
        kubectl(&["delete", "namespace", NAMESPACE, OPERATOR_NAMESPACE, "--timeout", &timeout(LONG)])
            .map(drop)
    }

    /// New acknowledgements come: the cluster serves.
    fn traffic_goes_on(&self) -> Result<(), String> {
        let traffic = self.traffic.as_ref().ok_or("there is no traffic")?;
        traffic.wait_for_answers(traffic.answers() + 50, SOON)
    }
}

/// What the chart is told of the images: what `make images` has loaded are its defaults.
fn image_settings() -> Vec<String> {
    let named = [
        ("imageRegistry", "IMAGE_REGISTRY"),
        ("node.image", "NODE_IMAGE"),
        ("operator.image", "OPERATOR_IMAGE"),
    ];
    let given = |variable| std::env::var(variable).ok().filter(|value| !value.is_empty());
    named.iter().filter_map(|(setting, variable)| Some(format!("{setting}={}", given(variable)?))).collect()
}

fn manifest(name: &str, spec: &str) -> String {
    let spec = if spec.starts_with('{') { spec.to_owned() } else { format!("{{{spec}}}") };
    format!(
        "{{apiVersion: quorate.dev/v1alpha1, kind: RaftCluster, metadata: {{name: {name}, namespace: {NAMESPACE}}}, \
         spec: {spec}}}"
    )
}

fn scale(replicas: u32) -> Result<(), String> {
    let cluster = format!("raftcluster/{CLUSTER}");
    kubectl(&["scale", &cluster, "--namespace", NAMESPACE, "--replicas", &replicas.to_string()]).map(drop)
}

fn status() -> Result<RaftClusterStatus, String> {
    let cluster = kubectl(&["get", "raftcluster", CLUSTER, "--namespace", NAMESPACE, "--output", "json"])?;
    let cluster: RaftCluster =
        serde_json::from_str(&cluster).map_err(|error| format!("{error} in {cluster}"))?;
    cluster.status.ok_or_else(|| "no status yet".to_owned())
}

/// The status, and the leader that it names.
fn led() -> Result<(RaftClusterStatus, String), String> {
    wait_for("a leader in the status", SOON, || {
        let now = status()?;
        let leader = now.leader.clone().ok_or_else(|| brief(&now))?;
        Ok((now, leader))
    })
}

/// Which member is at which ordinal.
fn ids(status: &RaftClusterStatus) -> BTreeMap<i32, String> {
    status.members.iter().map(|member| (member.ordinal, member.id.clone())).collect()
}

fn brief(status: &RaftClusterStatus) -> String {
    format!("{status:?}")
}

/// `kubectl wait` is what people use; the number of voters shows that it waited for the right spec.
fn wait_until_ready(voters: usize) -> Result<(), String> {
    let cluster = format!("raftcluster/{CLUSTER}");
    kubectl(&[
        "wait",
        "--for=condition=Ready",
        &cluster,
        "--namespace",
        NAMESPACE,
        "--timeout",
        &timeout(LONG),
    ])?;
    let wanted = format!("{voters}/{voters}");
    wait_for(&format!("{wanted} voters and nothing left to do"), LONG, || {
        let now = status()?;
        let done = now.voters.as_deref() == Some(wanted.as_str()) && now.members.len() == voters;
        if done { Ok(()) } else { Err(brief(&now)) }
    })?;
    kubectl(&[
        "wait",
        "--for=condition=Ready",
        &cluster,
        "--namespace",
        NAMESPACE,
        "--timeout",
        &timeout(LONG),
    ])
    .map(drop)
}

fn no_pods_of(cluster: &str) -> Result<(), String> {
    let selector = format!("quorate.dev/cluster={cluster}");
    let pods =
        kubectl(&["get", "pods", "--namespace", NAMESPACE, "--selector", &selector, "--output", "name"])?;
    if pods.is_empty() { Ok(()) } else { Err(pods) }
}
