//! The cluster as a person works with it: `kubectl` and `helm`, and waiting for what they show.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// How often a condition that is waited for is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// `kubectl`, on the local cluster (`KUBECONFIG`), or on the context that `CONTEXT` names.
pub(crate) fn command() -> Command {
    let mut command = Command::new("kubectl");
    if let Some(context) = context() {
        command.arg("--context").arg(context);
    }
    command
}

/// `helm`, on the same cluster.
pub(crate) fn helm(arguments: &[&str]) -> Result<String, String> {
    let mut command = Command::new("helm");
    if let Some(context) = context() {
        command.arg("--kube-context").arg(context);
    }
    command.args(arguments);
    output(command)
}

/// The context of a cluster of the user's, if the tests run there.
pub(crate) fn context() -> Option<String> {
    std::env::var("CONTEXT").ok().filter(|name| !name.is_empty())
}

/// Runs `kubectl` and returns what it prints; what it complains of when it fails.
pub(crate) fn kubectl(arguments: &[&str]) -> Result<String, String> {
    let mut command = command();
    command.args(arguments);
    output(command)
}

/// `kubectl apply` of a manifest.
pub(crate) fn apply(manifest: &str) -> Result<String, String> {
    let mut command = command();
    command.args(["apply", "--filename", "-"]);
    with_input(command, manifest)
}

/// An unmodified `etcdctl` (`QUORATE_ETCDCTL`), given `input`.
pub(crate) fn etcdctl(endpoint: SocketAddr, arguments: &[&str], input: &str) -> Result<String, String> {
    let program = std::env::var_os("QUORATE_ETCDCTL").unwrap_or_else(|| "etcdctl".into());
    let mut command = Command::new(program);
    command.args(["--endpoints", &endpoint.to_string(), "--dial-timeout", "5s", "--command-timeout", "30s"]);
    command.args(arguments);
    with_input(command, input)
}

fn with_input(mut command: Command, input: &str) -> Result<String, String> {
    let shown = command.get_program().to_string_lossy().into_owned();
    command.stdin(Stdio::piped());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| format!("cannot start {shown}: {error}"))?;
    let mut stdin = child.stdin.take().ok_or("there is no standard input")?;
    stdin.write_all(input.as_bytes()).map_err(|error| format!("{shown} does not read its input: {error}"))?;
    drop(stdin);
    let done = child.wait_with_output().map_err(|error| error.to_string())?;
    if done.status.success() { Ok(text(&done.stdout)) } else { Err(text(&done.stderr)) }
}

fn output(mut command: Command) -> Result<String, String> {
    let shown = format!("{command:?}").replace('"', "");
    let done = command.output().map_err(|error| format!("cannot run {shown}: {error}"))?;
    if done.status.success() {
        Ok(text(&done.stdout))
    } else {
        Err(format!("{shown}: {}", text(&done.stderr)))
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim().to_owned()
}

/// Looks until `condition` holds, and returns what it found; after `within`, an error that says what was waited for and how it
/// stood last.
pub(crate) fn wait_for<T>(
    what: &str,
    within: Duration,
    mut condition: impl FnMut() -> Result<T, String>,
) -> Result<T, String> {
    let deadline = Instant::now() + within;
    loop {
        match condition() {
            Ok(found) => return Ok(found),
            Err(last) if Instant::now() > deadline => {
                return Err(format!("waited {} s for {what}; at last: {last}", within.as_secs()));
            }
            Err(_) => thread::sleep(LOOK_EVERY),
        }
    }
}

/// What helps to understand a failure.
pub(crate) fn circumstances(namespace: &str) -> String {
    let asked: [&[&str]; 5] = [
        &["get", "raftclusters", "--all-namespaces", "--output", "yaml"],
        &["get", "pods,persistentvolumeclaims", "--all-namespaces", "--output", "wide"],
        &["get", "events", "--namespace", namespace, "--sort-by", ".lastTimestamp"],
        &[
            "logs",
            "--namespace",
            "quorate-system",
            "--selector",
            "app.kubernetes.io/name=quorate-operator",
            "--tail",
            "40",
        ],
        &["logs", "--namespace", namespace, "--selector", "quorate.dev/cluster", "--tail", "20", "--prefix"],
    ];
    let mut told = String::new();
    for arguments in asked {
        let answer = kubectl(arguments).unwrap_or_else(|error| error);
        let _ = writeln!(told, "$ kubectl {}\n{answer}\n", arguments.join(" "));
    }
    told
}
