//! The life of a cluster, step by step.

use std::collections::BTreeMap;
use std::time::Duration;

use quorate_crds::{RaftCluster, RaftClusterStatus};

use crate::guard::{self, Release};
use crate::kubectl::{apply, context, etcdctl, helm, kubectl, wait_for};
use crate::member::{member, pod};
use crate::steps::Step;
use crate::traffic::{Traffic, WayIn};

/// Deadlines, not expectations: a shared machine of two cores is slow at times.
pub(crate) const SOON: Duration = Duration::from_mins(3);
pub(crate) const LONG: Duration = Duration::from_mins(10);
/// An outage: nothing that the steps do may cost this, also where elections and pods are slow.
const OUTAGE: Duration = Duration::from_secs(30);
/// The same, for kubectl and helm.
pub(crate) const TIMEOUT: &str = "10m";

pub(crate) const NAMESPACE: &str = "quorate-e2e";
pub(crate) const OPERATOR_NAMESPACE: &str = "quorate-system";
const RELEASE: Release = Release { name: "quorate", namespace: OPERATOR_NAMESPACE };
pub(crate) const CLUSTER: &str = "life";

/// Everything, in order.
pub(crate) const STEPS: &[Step] = &[
    ("the_operator_is_installed_with_helm", Story::install),
    ("bad_manifests_are_refused_with_a_message", Story::bad_manifests),
    ("a_manifest_becomes_a_ready_cluster", Story::create),
    ("the_columns_show_leader_and_term", Story::columns),
    ("an_even_number_of_voters_is_accepted_and_explained", Story::even_number),
    ("raftctl_tells_of_the_members_inside_of_a_pod", Story::raftctl),
    ("an_unmodified_etcdctl_works_against_a_pod", Story::etcdctl),
    ("clients_write_and_read", Story::traffic_begins),
    ("a_deleted_leader_makes_way_and_comes_back_as_the_same_member", Story::leader_deleted),
    ("the_operator_is_killed_and_comes_back", Story::operator_killed),
    ("three_become_five", Story::five),
    ("five_become_three", Story::three),
    ("a_lost_volume_is_replaced_by_a_new_member", Story::volume_lost),
    ("an_upgraded_operator_leaves_a_living_cluster_as_it_is", Story::operator_upgraded),
    ("an_upgrade_that_is_broken_stops_at_one_pod_and_is_taken_back", Story::broken_upgrade),
    ("the_history_is_linearizable_and_nothing_is_lost", Story::history),
    ("a_change_that_cannot_be_done_is_refused", Story::shrunken_volume),
    ("a_cluster_that_hibernates_wakes_as_it_was", Story::hibernation),
    ("a_protected_cluster_is_not_deleted", Story::protection),
    ("pods_that_the_api_server_refuses_are_told", Story::refused_pods),
    ("a_quorum_that_is_lost_for_good_comes_back_by_recovery", Story::quorum_lost),
    ("a_deleted_cluster_leaves_its_volumes", Story::delete),
    ("an_authority_is_replaced_while_clients_speak_tls", Story::certificates),
    ("a_job_works_only_where_the_member_leads", Story::leader_job),
    ("the_operator_is_uninstalled", Story::uninstall),
];

/// What goes on between the steps.
pub(crate) struct Story {
    traffic: Option<Traffic>,
    /// Whether the CRD was there before.
    crd: bool,
}

impl Story {
    /// A namespace with restricted pod security, empty: what an earlier run has left goes first.
    pub(crate) fn begin() -> Result<Self, String> {
        RELEASE.refuse_what_is_anothers(NAMESPACE)?;
        kubectl(&["delete", "namespace", NAMESPACE, "--ignore-not-found", "--timeout", TIMEOUT])?;
        guard::make_namespace(NAMESPACE)?;
        Ok(Self { traffic: None, crd: guard::crd_is_there()? })
    }

    /// Where the cluster lives.
    #[allow(clippy::unused_self, reason = "the story says where it plays")]
    pub(crate) fn namespace(&self) -> &'static str {
        NAMESPACE
    }

    /// The operator alone, for whoever tells another story.
    pub(crate) fn prepare(&mut self) -> Result<(), String> {
        self.install()
    }

    /// Takes all away again.
    pub(crate) fn end(&mut self) -> Result<(), String> {
        self.uninstall()
    }

    #[allow(clippy::unused_self, reason = "a step")]
    fn install(&mut self) -> Result<(), String> {
        Self::install_with(&[])?;
        kubectl(&[
            "wait",
            "--for=condition=Established",
            "crd/raftclusters.quorate.dev",
            "--timeout",
            TIMEOUT,
        ])
        .map(drop)
    }

    /// Installs the chart, or upgrades it, with these settings beside its own.
    pub(crate) fn install_with(more: &[String]) -> Result<(), String> {
        let chart = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/quorate");
        RELEASE.make_namespace()?;
        let mut arguments =
            vec!["upgrade", "--install", RELEASE.name, chart, "--namespace", RELEASE.namespace];
        // Without values it would keep those of the release before.
        arguments.extend(["--reset-values", "--wait", "--timeout", TIMEOUT]);
        // The demo removes what tests have left, and nothing that somebody else has installed.
        arguments.extend(["--description", "made by the tests"]);
        let mut settings = image_settings();
        // On somebody's cluster it has no rights anywhere else.
        settings.extend(context().map(|_| format!("watchNamespace={NAMESPACE}")));
        // The last of two that are for one value counts.
        settings.extend(more.iter().cloned());
        arguments.extend(settings.iter().flat_map(|setting| ["--set", setting]));
        helm(&arguments).map(drop)
    }

    #[allow(clippy::unused_self, reason = "a step")]
    fn bad_manifests(&mut self) -> Result<(), String> {
        let long = "a".repeat(60);
        let bad = [
            ("none", "replicas: 0", "replicas must be at least 1"),
            ("negative", "replicas: -3", "replicas must be at least 1"),
            ("many", "replicas: 99", "replicas must be at most 9"),
            ("vague", "{replicas: 3, storage: {size: plenty}}", "storage.size"),
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
    fn even_number(&mut self) -> Result<(), String> {
        apply(&manifest("even", "{replicas: 2, storage: {size: 128Mi}}"))?;
        wait_for("a condition or an event that explains the even number", SOON, || {
            let cluster =
                kubectl(&["get", "raftcluster", "even", "--namespace", NAMESPACE, "--output", "yaml"])?;
            if cluster.contains("EvenReplicas") { Ok(()) } else { Err("nothing says so".to_owned()) }
        })?;
        kubectl(&["delete", "raftcluster", "even", "--namespace", NAMESPACE, "--timeout", TIMEOUT])?;
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

    /// What the README says of looking into a member.
    #[allow(clippy::unused_self, reason = "a step")]
    fn raftctl(&mut self) -> Result<(), String> {
        for arguments in [["status"].as_slice(), &["member", "list"]] {
            let mut exec = vec!["exec", "life-0", "--namespace", NAMESPACE, "--", "raftctl"];
            exec.extend(arguments);
            let told = wait_for("raftctl in a pod", SOON, || kubectl(&exec))?;
            if !(0..3).all(|ordinal| told.contains(&format!("life-{ordinal}"))) {
                return Err(format!("raftctl {} does not tell of every member: {told}", arguments.join(" ")));
            }
        }
        Ok(())
    }

    #[allow(clippy::unused_self, reason = "a step")]
    fn etcdctl(&mut self) -> Result<(), String> {
        let way_in = WayIn::open(NAMESPACE, "life-0");
        let ask = |arguments: &[&str], input: &str| etcdctl(way_in.address, arguments, input);
        wait_for("an answer on the client port", SOON, || ask(&["endpoint", "status"], ""))?;
        let answers = [
            (ask(&["put", "by/etcdctl", "1"], "")?, "OK"),
            (ask(&["get", "by/etcdctl"], "")?, "by/etcdctl\n1"),
            (
                ask(&["txn"], "value(\"by/etcdctl\") = \"1\"\n\nput by/etcdctl 2\n\nget by/etcdctl\n\n")?,
                "SUCCESS",
            ),
            (ask(&["get", "by/etcdctl", "--print-value-only"], "")?, "2"),
            (ask(&["del", "by/etcdctl"], "")?, "1"),
            (ask(&["get", "by/etcdctl", "--count-only", "--write-out", "fields"], "")?, "\"Count\" : 0"),
            (ask(&["endpoint", "status"], "")?, "3.7.3"),
            (ask(&["member", "list"], "")?, "life-2"),
        ];
        match answers.iter().find(|(answer, expected)| !answer.contains(expected)) {
            Some((answer, expected)) => Err(format!("etcdctl was to say {expected:?}, and says {answer:?}")),
            None => Ok(()),
        }
    }

    fn leader_deleted(&mut self) -> Result<(), String> {
        let before = status()?;
        let leader = leader()?;
        let (old, old_member) = (pod(NAMESPACE, &leader)?, member(NAMESPACE, &leader)?);
        kubectl(&["delete", "pod", &leader, "--namespace", NAMESPACE, "--wait=false"])?;
        wait_for("a higher term with a leader", SOON, || {
            let now = status()?;
            if now.term > before.term && now.leader.is_some() { Ok(()) } else { Err(brief(&now)) }
        })?;
        // The status may still speak of the pod that was.
        wait_for("another pod in its place, and ready", LONG, || {
            let now = pod(NAMESPACE, &leader)?;
            if now.uid != old.uid && now.ready { Ok(()) } else { Err(format!("{now:?}, before {old:?}")) }
        })?;
        wait_until_ready(3)?;
        let after = status()?;
        if ids(&after) != ids(&before) {
            return Err(format!("the members were {} and are {}", brief(&before), brief(&after)));
        }
        let now = wait_for("an answer of the member", SOON, || member(NAMESPACE, &leader))?;
        if now.id != old_member.id || now.term <= old_member.term {
            return Err(format!("{leader} was {old_member:?} and is {now:?}"));
        }
        self.traffic_goes_on()
    }

    fn operator_killed(&mut self) -> Result<(), String> {
        let pods =
            ["--namespace", OPERATOR_NAMESPACE, "--selector", "app.kubernetes.io/name=quorate-operator"];
        let kill = [&["delete", "pods", "--grace-period", "0", "--force"], &pods[..]].concat();
        let list = [&["get", "pods", "--output", "name"], &pods[..]].concat();
        operators("0")?;
        kubectl(&kill)?;
        wait_for("the end of the operator", SOON, || {
            let left = kubectl(&list)?;
            if left.is_empty() { Ok(()) } else { Err(left) }
        })?;
        let leader = leader()?;
        let before = status()?;
        let term = before.term;
        // What happens while it is away the members know, and the status does not, until it is back.
        kubectl(&["delete", "pod", &leader, "--namespace", NAMESPACE, "--wait=false"])?;
        let other = if leader == "life-0" { "life-1" } else { "life-0" };
        wait_for("the members' word of another term", SOON, || {
            let now = member(NAMESPACE, other)?;
            let is_newer = term.is_none_or(|term| i64::try_from(now.term).is_ok_and(|now| now > term));
            if is_newer && now.leader != 0 { Ok(()) } else { Err(format!("{now:?}")) }
        })?;
        if status()? != before {
            return Err(format!("nobody was there to write {}", brief(&status()?)));
        }
        self.traffic_goes_on()?;
        operators("1")?;
        wait_for("the operator's news of another term", LONG, || {
            let now = status()?;
            if now.term > term && now.leader.is_some() { Ok(()) } else { Err(brief(&now)) }
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
        wait_for("the end of their volumes, and of no others", LONG, || {
            let claims = claims()?;
            let kept: Vec<_> = (0..5).filter(|o| claims.contains(&format!("data-life-{o}"))).collect();
            if kept == [0, 1, 2] { Ok(()) } else { Err(claims) }
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
        match apply(&manifest(CLUSTER, "{replicas: 3, storage: {size: 512Mi}}")) {
            Ok(_) => return Err("a smaller volume was accepted".to_owned()),
            Err(error) if error.contains("storage.size cannot shrink") => {}
            Err(error) => return Err(format!("refused without saying why: {error}")),
        }
        wait_until_ready(3)
    }

    #[allow(clippy::unused_self, reason = "a step")]
    fn delete(&mut self) -> Result<(), String> {
        kubectl(&["delete", "raftcluster", CLUSTER, "--namespace", NAMESPACE, "--timeout", TIMEOUT])?;
        wait_for("the end of its pods", LONG, || no_pods_of(CLUSTER))?;
        let claims = claims()?;
        if (0..3).all(|ordinal| claims.contains(&format!("data-life-{ordinal}"))) {
            Ok(())
        } else {
            Err(claims)
        }
    }

    /// The sample, as it stands: its job runs beside every member, and works beside one.
    #[allow(clippy::unused_self, reason = "a step")]
    fn leader_job(&mut self) -> Result<(), String> {
        // Somebody's cluster has no image of the samples.
        if context().is_some() {
            return Ok(());
        }
        let sample = include_str!("../../../manifests/samples/leader-job.yaml");
        apply(&sample.replace("  name: jobs", &format!("  name: jobs\n  namespace: {NAMESPACE}")))?;
        let said = || -> Result<Vec<String>, String> {
            (0..3)
                .map(|ordinal| {
                    let pod = format!("jobs-{ordinal}");
                    kubectl(&["logs", &pod, "--namespace", NAMESPACE, "--container", "job"])
                })
                .collect()
        };
        wait_for("runs of the job, none of them done twice", LONG, || {
            let said = said()?.join("\n");
            let mut runs: Vec<_> = said.lines().filter_map(|line| line.split_once(": run ")).collect();
            let all = runs.len();
            runs.sort_unstable_by_key(|(_, run)| *run);
            runs.dedup_by_key(|(_, run)| *run);
            if all >= 3 && runs.len() == all { Ok(()) } else { Err(said) }
        })?;
        kubectl(&["delete", "raftcluster", "jobs", "--namespace", NAMESPACE, "--timeout", TIMEOUT]).map(drop)
    }

    /// With TLS for clients: raftctl in a pod shows a certificate of the same authority. Then the members' authority is replaced, and no pod with it.
    #[allow(clippy::unused_self, reason = "a step")]
    fn certificates(&mut self) -> Result<(), String> {
        let spec = "{replicas: 3, storage: {size: 512Mi}, tls: {client: {clientCertificates: Required}}}";
        apply(&manifest("secure", spec))?;
        let cluster = "raftcluster/secure";
        let in_namespace = ["--namespace", NAMESPACE];
        let ready = ["wait", "--for=condition=Ready", cluster, "--timeout", TIMEOUT];
        kubectl(&[&ready[..], &in_namespace].concat())?;
        let raftctl = |arguments: &[&str]| {
            kubectl(&[&["exec", "secure-1"], &in_namespace[..], &["--", "raftctl"], arguments].concat())
        };
        wait_for("a put over TLS", SOON, || raftctl(&["put", "over", "tls"]))?;
        let authority = || {
            let secret = ["get", "secret", "secure-peer-tls", "--output", "jsonpath={.data.ca\\.crt}"];
            kubectl(&[&secret[..], &in_namespace].concat())
        };
        let pods = || (0..3).map(|o| pod(NAMESPACE, &format!("secure-{o}"))).collect::<Result<Vec<_>, _>>();
        let (old, before) = (authority()?, pods()?);
        kubectl(&[&["annotate", cluster, "quorate.dev/rotate-authorities=1"][..], &in_namespace].concat())?;
        wait_for("another authority, and one alone", LONG, || {
            let reason = [
                "get",
                cluster,
                "--output",
                "jsonpath={.status.conditions[?(@.type=='CertificatesCurrent')].reason}",
            ];
            let reason = kubectl(&[&reason[..], &in_namespace].concat())?;
            // The clients' authority waits for 30 days; the members' is the first to be said while it waits.
            let now = authority()?;
            if now != old && now.len() < old.len() * 3 / 2 { Ok(()) } else { Err(reason) }
        })?;
        if pods()? != before {
            return Err(format!("the pods were {before:?} and are {:?}", pods()?));
        }
        wait_for("a read over TLS", SOON, || raftctl(&["get", "over"]))?;
        kubectl(&[&["delete", cluster, "--timeout", TIMEOUT][..], &in_namespace].concat()).map(drop)
    }

    fn uninstall(&mut self) -> Result<(), String> {
        helm(&["uninstall", "quorate", "--namespace", OPERATOR_NAMESPACE, "--wait", "--timeout", TIMEOUT])?;
        kubectl(&["get", "crd", "raftclusters.quorate.dev"])
            .map_err(|error| format!("the CRD went with the chart: {error}"))?;
        RELEASE.remove_namespaces(NAMESPACE, TIMEOUT)?;
        if context().is_some() && !self.crd { guard::remove_crd(TIMEOUT) } else { Ok(()) }
    }

    /// New acknowledgements come: the cluster serves, and has done so since this was asked last, but for what an election takes.
    pub(crate) fn traffic_goes_on(&mut self) -> Result<(), String> {
        let traffic = self.traffic.as_mut().ok_or("there is no traffic")?;
        traffic.wait_for_answers(traffic.answers() + 50, SOON)?;
        let pause = traffic.longest_pause();
        println!("  longest time without an acknowledged write: {:.1} s", pause.as_secs_f64());
        if pause < OUTAGE { Ok(()) } else { Err(format!("no write was acknowledged for {pause:?}")) }
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

pub(crate) fn manifest(name: &str, spec: &str) -> String {
    let spec = if spec.starts_with('{') { spec.to_owned() } else { format!("{{{spec}}}") };
    format!(
        "{{apiVersion: quorate.dev/v1alpha1, kind: RaftCluster, metadata: {{name: {name}, namespace: {NAMESPACE}}}, \
         spec: {spec}}}"
    )
}

/// So many operators are to run.
fn operators(replicas: &str) -> Result<(), String> {
    let operators = ["deployment", "--selector", "app.kubernetes.io/name=quorate-operator"];
    let scale = ["scale", "--namespace", OPERATOR_NAMESPACE, "--replicas", replicas];
    kubectl(&[&scale[..], &operators].concat()).map(drop)
}

pub(crate) fn claims() -> Result<String, String> {
    kubectl(&["get", "persistentvolumeclaims", "--namespace", NAMESPACE, "--output", "name"])
}

pub(crate) fn scale(replicas: u32) -> Result<(), String> {
    let cluster = format!("raftcluster/{CLUSTER}");
    kubectl(&["scale", &cluster, "--namespace", NAMESPACE, "--replicas", &replicas.to_string()]).map(drop)
}

/// `kubectl patch`, merged as JSON.
pub(crate) fn patch(cluster: &str, change: &str) -> Result<(), String> {
    let patch = ["patch", "raftcluster", cluster, "--namespace", NAMESPACE, "--type", "merge", "--patch"];
    kubectl(&[&patch[..], &[change]].concat()).map(drop)
}

/// The leader's pod, as soon as there is one.
fn leader() -> Result<String, String> {
    wait_for("a leader in the status", SOON, || status()?.leader.ok_or_else(|| "none".to_owned()))
}

pub(crate) fn status() -> Result<RaftClusterStatus, String> {
    status_of(CLUSTER)
}

pub(crate) fn status_of(name: &str) -> Result<RaftClusterStatus, String> {
    let cluster = kubectl(&["get", "raftcluster", name, "--namespace", NAMESPACE, "--output", "json"])?;
    let cluster: RaftCluster =
        serde_json::from_str(&cluster).map_err(|error| format!("{error} in {cluster}"))?;
    cluster.status.ok_or_else(|| "no status yet".to_owned())
}

/// Which member is at which ordinal.
pub(crate) fn ids(status: &RaftClusterStatus) -> BTreeMap<i32, String> {
    status.members.iter().map(|member| (member.ordinal, member.id.clone())).collect()
}

pub(crate) fn brief(status: &RaftClusterStatus) -> String {
    format!("{status:?}")
}

/// `kubectl wait` is what people use; the number of voters shows that it waited for the right spec.
pub(crate) fn wait_until_ready(voters: usize) -> Result<(), String> {
    wait_until_ready_of(CLUSTER, voters)
}

pub(crate) fn wait_until_ready_of(name: &str, voters: usize) -> Result<(), String> {
    let cluster = format!("raftcluster/{name}");
    kubectl(&["wait", "--for=condition=Ready", &cluster, "--namespace", NAMESPACE, "--timeout", "240s"])?;
    let wanted = format!("{voters}/{voters}");
    wait_for(&format!("{wanted} voters and nothing left to do"), LONG, || {
        let now = status_of(name)?;
        let done = now.voters.as_deref() == Some(wanted.as_str()) && now.members.len() == voters;
        if done { Ok(()) } else { Err(brief(&now)) }
    })?;
    kubectl(&["wait", "--for=condition=Ready", &cluster, "--namespace", NAMESPACE, "--timeout", "240s"])
        .map(drop)
}

pub(crate) fn no_pods_of(cluster: &str) -> Result<(), String> {
    let selector = format!("quorate.dev/cluster={cluster}");
    let pods =
        kubectl(&["get", "pods", "--namespace", NAMESPACE, "--selector", &selector, "--output", "name"])?;
    if pods.is_empty() { Ok(()) } else { Err(pods) }
}
