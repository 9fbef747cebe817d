//! The node's container: its flags, its environment, its probes.

use k8s_openapi::api::core::v1::{
    Capabilities, Container, ContainerPort, EnvVar, EnvVarSource, ExecAction, HTTPGetAction, Lifecycle,
    LifecycleHandler, ObjectFieldSelector, Probe, ResourceRequirements, SecurityContext, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt;
use quorate_crds::{ClientCertificates, RaftCluster, is_for_users};

use super::{Blueprint, CLIENT_PORT, HTTP_PORT, PEER_PORT, pod_host};
use crate::quantity;
use crate::trust::{admin_name, member_name};

/// The name of the container.
pub const NODE: &str = "node";
/// The volume of a member; its claims are named `data-NAME-N`.
pub(super) const DATA: &str = "data";
/// The volume of the certificate that members show one another.
pub(super) const PEER_TLS: &str = "peer-tls";
pub(super) const DATA_DIRECTORY: &str = "/var/lib/quorate";
const CERTIFICATE_DIRECTORY: &str = "/etc/quorate/peer";
/// The volume of the certificate of the client port.
pub(super) const CLIENT_TLS: &str = "client-tls";
const CLIENT_DIRECTORY: &str = "/etc/quorate/client";

/// For how long a node that is told to stop serves clients that do not know yet, in seconds: the endpoints of its Services change
/// within that time, on large clusters too.
const STOP_DELAY_SECONDS: i64 = 5;
/// How long a node may take to hand its leadership over, in seconds. It does so twice: once it is told, and once it serves nobody any more, as it may
/// have been elected again.
const HAND_OVER_SECONDS: i64 = 2 * 5;
/// For the calls that are under way, and for a disk that is busy, in seconds.
const LAST_CALLS_SECONDS: i64 = 15;
/// The least time that a pod has for its end, in seconds.
pub const GRACE_PERIOD_SECONDS: i64 = HAND_OVER_SECONDS + STOP_DELAY_SECONDS + LAST_CALLS_SECONDS;

/// How often the startup probe may fail: a start that reads a large log takes its time, and ended early it begins again from nothing. A
/// node that cannot start ends by itself.
const NO_LIMIT: i32 = i32::MAX;

pub(super) fn container(blueprint: Blueprint<'_>) -> Container {
    let cluster = blueprint.cluster;
    Container {
        name: NODE.to_owned(),
        image: Some(blueprint.image.to_owned()),
        image_pull_policy: Some(cluster.spec.image_pull_policy.as_str().to_owned()),
        args: Some(arguments(cluster)),
        env: Some(environment(cluster)),
        ports: Some(vec![port("client", CLIENT_PORT), port("peer", PEER_PORT), port("http", HTTP_PORT)]),
        resources: Some(cluster.spec.resources.clone().unwrap_or_else(modest)),
        volume_mounts: Some(mounts(cluster)),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            read_only_root_filesystem: Some(true),
            run_as_non_root: Some(true),
            capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), add: None }),
            ..SecurityContext::default()
        }),
        startup_probe: Some(probe("/startupz", 1, NO_LIMIT)),
        liveness_probe: Some(probe("/livez", 10, 6)),
        readiness_probe: Some(probe("/readyz", 2, 2)),
        // Its last line says why it ended: the status of the cluster passes it on.
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        ..Container::default()
    }
}

/// What a node does when the end of its pod begins: beside other containers it is told to stop only after their end, and would lead until then, with
/// the others waiting for it.
pub(super) fn hand_over() -> Lifecycle {
    let command = ["/usr/local/bin/raftctl", "transfer", "--if-here"].map(str::to_owned).into();
    Lifecycle {
        pre_stop: Some(LifecycleHandler {
            exec: Some(ExecAction { command: Some(command) }),
            ..LifecycleHandler::default()
        }),
        ..Lifecycle::default()
    }
}

fn mounts(cluster: &RaftCluster) -> Vec<VolumeMount> {
    let mut mounts = vec![mount(DATA, DATA_DIRECTORY, false), mount(PEER_TLS, CERTIFICATE_DIRECTORY, true)];
    mounts.extend(cluster.spec.tls.client.as_ref().map(|_| mount(CLIENT_TLS, CLIENT_DIRECTORY, true)));
    mounts
}

/// The URL of a pod's client port, for clients and for raftctl in the pod: the certificate carries this name.
fn client_url(cluster: &RaftCluster) -> String {
    let host = pod_host(&cluster.name_any(), &cluster.namespace().unwrap_or_default(), "$(POD_NAME)");
    let scheme = if cluster.spec.tls.client.is_some() { "https" } else { "http" };
    format!("{scheme}://{host}:{CLIENT_PORT}")
}

fn arguments(cluster: &RaftCluster) -> Vec<String> {
    let spec = &cluster.spec;
    let host = pod_host(&cluster.name_any(), &cluster.namespace().unwrap_or_default(), "$(POD_NAME)");
    let quota = spec.quota.as_deref().map(|quota| match quantity::bytes(quota) {
        Some(bytes) => bytes.to_string(),
        None => quota.to_owned(),
    });
    // All addresses, of both families.
    let flags = [
        ("data-dir", DATA_DIRECTORY.to_owned()),
        ("name", "$(POD_NAME)".to_owned()),
        ("listen-client", format!("[::]:{CLIENT_PORT}")),
        ("listen-peer", format!("[::]:{PEER_PORT}")),
        ("listen-http", format!("[::]:{HTTP_PORT}")),
        ("advertise-client", client_url(cluster)),
        ("advertise-peer", format!("{host}:{PEER_PORT}")),
        ("peer-allowed-names", member_name(&cluster.name_any())),
        ("admin-allowed-names", admin_name(&cluster.name_any())),
        ("stop-delay", STOP_DELAY_SECONDS.to_string()),
        ("auto-compaction-mode", spec.compaction.mode.flag().to_owned()),
        ("auto-compaction-retention", spec.compaction.retention()),
        ("log", spec.log.filter.clone()),
        ("log-format", spec.log.format.flag().to_owned()),
    ];
    let flags = flags.into_iter().chain(quota.map(|quota| ("quota-bytes", quota)));
    flags.map(|(flag, value)| format!("--{flag}={value}")).collect()
}

fn environment(cluster: &RaftCluster) -> Vec<EnvVar> {
    let pod_name = EnvVar {
        name: "POD_NAME".to_owned(),
        value: None,
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector {
                field_path: "metadata.name".to_owned(),
                api_version: None,
            }),
            ..EnvVarSource::default()
        }),
    };
    // Not as arguments: raftctl in the pod reads them too.
    let file = |option: &str, directory: &str, file: &str| variable(option, format!("{directory}/{file}"));
    let mut variables = vec![
        pod_name,
        file("QUORATE_PEER_CERT", CERTIFICATE_DIRECTORY, "tls.crt"),
        file("QUORATE_PEER_KEY", CERTIFICATE_DIRECTORY, "tls.key"),
        file("QUORATE_PEER_CA", CERTIFICATE_DIRECTORY, "ca.crt"),
    ];
    if let Some(tls) = &cluster.spec.tls.client {
        variables.extend([
            file("QUORATE_CLIENT_CERT", CLIENT_DIRECTORY, "tls.crt"),
            file("QUORATE_CLIENT_KEY", CLIENT_DIRECTORY, "tls.key"),
            variable("QUORATE_ENDPOINTS", client_url(cluster)),
        ]);
        // To the node it says whose clients it lets in; raftctl does without, as it knows its node's certificate.
        if tls.client_certificates == ClientCertificates::Required {
            variables.push(file("QUORATE_CLIENT_CA", CLIENT_DIRECTORY, "ca.crt"));
        }
    }
    // An object that is older than the rules of its schema may hold others: `validate` says so.
    variables.extend(cluster.spec.env.iter().filter(|variable| is_for_users(&variable.name)).cloned());
    variables
}

/// What a small store takes. Under pressure for memory, pods that use more than they asked for are evicted first, past any budget.
fn modest() -> ResourceRequirements {
    let amounts = [("cpu", "100m"), ("memory", "256Mi")];
    let requests = amounts.into_iter().map(|(name, amount)| (name.to_owned(), Quantity(amount.to_owned())));
    ResourceRequirements { requests: Some(requests.collect()), ..ResourceRequirements::default() }
}

fn probe(path: &str, period_seconds: i32, failure_threshold: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::String("http".to_owned()),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period_seconds),
        failure_threshold: Some(failure_threshold),
        // A machine may be busy; a node that is only slow must not be ended.
        timeout_seconds: Some(5),
        ..Probe::default()
    }
}

fn variable(name: &str, value: String) -> EnvVar {
    EnvVar { name: name.to_owned(), value: Some(value), value_from: None }
}

fn port(name: &str, number: i32) -> ContainerPort {
    ContainerPort {
        name: Some(name.to_owned()),
        container_port: number,
        protocol: Some("TCP".to_owned()),
        ..ContainerPort::default()
    }
}

fn mount(name: &str, path: &str, read_only: bool) -> VolumeMount {
    VolumeMount {
        name: name.to_owned(),
        mount_path: path.to_owned(),
        read_only: read_only.then_some(true),
        ..VolumeMount::default()
    }
}
