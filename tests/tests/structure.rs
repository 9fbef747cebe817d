//! The shape of the workspace: which crate may know which, and what every file has to keep to.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Who may depend on whom within the workspace. The crate of tests may depend on anything.
const EDGES: [(&str, &[&str]); 5] = [
    ("quorate-raft", &[]),
    ("quorate-api", &[]),
    ("quorate-crds", &[]),
    ("quorate-node", &["quorate-raft", "quorate-api"]),
    ("quorate-operator", &["quorate-crds", "quorate-api"]),
];

/// Crates of others that a crate must not reach by any way, other than for its tests.
const FORBIDDEN: [(&str, &[&str]); 3] = [
    ("quorate-node", &["kube", "kube-client", "k8s-openapi"]),
    // Pure: no async, sockets or clocks from elsewhere.
    ("quorate-raft", &["tokio", "futures", "tonic", "hyper", "rustix"]),
    ("quorate-operator", &["quorate-node", "quorate-raft"]),
];

/// The rooms of the node's crate, and which of the others each may use. A room stands below those that use it: no arrow runs back.
const ROOMS: [(&str, &[&str]); 28] = [
    ("level", &[]),
    ("bolt", &[]),
    ("codec", &["level"]),
    ("command", &["level"]),
    ("storage", &["codec", "level"]),
    ("leases", &[]),
    ("kv", &["leases", "level"]),
    ("backup", &["bolt", "kv", "leases", "level"]),
    ("snapshots", &["codec", "kv", "level", "storage"]),
    ("copy", &["kv"]),
    ("found", &["kv", "snapshots", "storage"]),
    ("recover", &["codec", "command", "found", "kv", "level", "snapshots", "storage"]),
    ("replica", &["codec", "command", "kv", "leases", "level", "snapshots"]),
    ("doors", &["command", "kv", "level", "replica", "snapshots"]),
    ("metrics", &["doors", "net", "tls"]),
    ("tls", &[]),
    ("address", &[]),
    ("retention", &[]),
    ("cli", &["address", "level", "retention", "tls"]),
    ("net", &["tls"]),
    ("peer", &["codec", "doors", "level", "net", "replica", "snapshots", "tls"]),
    ("admin", &["codec", "doors", "level", "net", "replica", "tls"]),
    ("rpc", &["backup", "doors", "kv", "leases", "replica"]),
    ("http", &["doors", "metrics", "net"]),
    ("ctl", &["backup", "bolt", "codec", "found", "kv", "recover", "snapshots", "storage", "tls"]),
    (
        "server",
        &[
            "level",
            "codec",
            "copy",
            "doors",
            "kv",
            "metrics",
            "peer",
            "replica",
            "retention",
            "snapshots",
            "storage",
        ],
    ),
    (
        "process",
        &[
            "address",
            "admin",
            "cli",
            "copy",
            "doors",
            "http",
            "kv",
            "level",
            "metrics",
            "net",
            "peer",
            "replica",
            "retention",
            "rpc",
            "server",
            "snapshots",
            "storage",
            "tls",
        ],
    ),
    // The programs and what they are built of.
    ("lib", &["peer"]),
];

/// A file of more lines has more than one role.
const LINES: usize = 700;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate is in the workspace").to_owned()
}

/// The platform of this machine: of others' dependencies a build here downloads none.
fn platform() -> String {
    let output = Command::new("rustc").arg("-vV").output().expect("rustc runs: it has compiled this test");
    let version = String::from_utf8_lossy(&output.stdout).into_owned();
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    host.expect("rustc says which platform it runs on").to_owned()
}

fn metadata() -> Value {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version=1", "--offline", "--locked", "--filter-platform", &platform()])
        .current_dir(root())
        .output()
        .expect("cargo runs: it has started this test");
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("cargo writes JSON")
}

fn text(value: &Value) -> &str {
    value.as_str().expect("it is a string")
}

fn array(value: &Value) -> &[Value] {
    value.as_array().expect("it is an array")
}

/// The names of all packages by their IDs.
fn names(metadata: &Value) -> BTreeMap<&str, &str> {
    array(&metadata["packages"])
        .iter()
        .map(|package| (text(&package["id"]), text(&package["name"])))
        .collect()
}

/// What each package needs in order to be built and run, by name.
fn dependencies(metadata: &Value) -> BTreeMap<&str, BTreeSet<&str>> {
    let names = names(metadata);
    let mut dependencies: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for node in array(&metadata["resolve"]["nodes"]) {
        let needs = dependencies.entry(names[text(&node["id"])]).or_default();
        for dependency in array(&node["deps"]) {
            // Kinds: null is an ordinary dependency, others are "build" and "dev".
            if array(&dependency["dep_kinds"]).iter().any(|kind| kind["kind"].is_null()) {
                needs.insert(names[text(&dependency["pkg"])]);
            }
        }
    }
    dependencies
}

#[test]
fn crates_know_only_whom_they_may() {
    let metadata = metadata();
    let members: BTreeSet<_> =
        array(&metadata["workspace_members"]).iter().map(|id| names(&metadata)[text(id)]).collect();
    let known: BTreeSet<_> = EDGES.iter().map(|(name, _)| *name).chain(["quorate-tests"]).collect();
    assert_eq!(members, known, "a crate came or went: say here whom it may know");
    for package in array(&metadata["packages"]) {
        let name = text(&package["name"]);
        let Some((_, allowed)) = EDGES.iter().find(|(crate_name, _)| *crate_name == name) else { continue };
        for dependency in array(&package["dependencies"]) {
            let dependency = text(&dependency["name"]);
            let stranger = members.contains(dependency) && !allowed.contains(&dependency);
            assert!(!stranger, "{name} must not depend on {dependency}, not even for its tests");
        }
    }
}

#[test]
fn crates_do_without_what_is_not_theirs() {
    let metadata = metadata();
    let dependencies = dependencies(&metadata);
    for (name, forbidden) in FORBIDDEN {
        let mut reached = BTreeSet::from([name]);
        let mut next = vec![name];
        while let Some(package) = next.pop() {
            next.extend(dependencies[package].iter().filter(|needed| reached.insert(needed)));
        }
        let found: Vec<_> = forbidden.iter().filter(|forbidden| reached.contains(*forbidden)).collect();
        assert!(found.is_empty(), "{name} depends on {found:?}, itself or through others");
    }
}

/// The other rooms of the crate that a text of `room` names, comments left aside.
fn used_rooms<'t>(room: &str, text: &'t str) -> BTreeSet<&'t str> {
    let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    let named = code.flat_map(|line| line.split("crate::").skip(1));
    named
        .filter_map(|rest| rest.split(|c: char| !c.is_ascii_lowercase() && c != '_').next())
        .filter(|name| *name != room && !name.is_empty())
        .collect()
}

#[test]
fn rooms_of_the_node_use_only_those_below_them() {
    let source = root().join("node/src");
    for path in files(".rs")
        .into_iter()
        .filter(|path| path.starts_with(&source) && !path.starts_with(source.join("bin")))
    {
        let inside = path.strip_prefix(&source).expect("it lies there");
        let first = inside.components().next().expect("a file has a name").as_os_str();
        let room = Path::new(first).file_stem().expect("a file has a name").to_string_lossy().into_owned();
        let allowed = ROOMS.iter().find(|(name, _)| *name == room);
        let (_, allowed) =
            allowed.unwrap_or_else(|| panic!("{room} is new: say here which rooms it may use"));
        let text = fs::read_to_string(&path).expect("it is text");
        let strangers: Vec<_> =
            used_rooms(&room, &text).into_iter().filter(|used| !allowed.contains(used)).collect();
        assert!(strangers.is_empty(), "{} uses {strangers:?}, which {room} must not", path.display());
    }
}

#[test]
fn every_crate_takes_the_lints_of_the_workspace() {
    let settings = fs::read_to_string(root().join("Cargo.toml")).expect("the workspace has a manifest");
    assert!(settings.contains("unsafe_code = \"forbid\""), "the workspace no longer forbids unsafe code");
    for package in array(&metadata()["packages"]).iter().filter(|package| package["source"].is_null()) {
        let manifest = fs::read_to_string(text(&package["manifest_path"])).expect("it can be read");
        let taken = manifest
            .split_once("[lints]")
            .is_some_and(|(_, rest)| rest.trim_start().starts_with("workspace = true"));
        assert!(taken, "{} does not take the workspace's lints", package["name"]);
    }
}

/// The files that are part of the repository, or are about to be.
fn files(suffix: &str) -> Vec<PathBuf> {
    let list = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard", "--", &format!("*{suffix}")])
        .current_dir(root())
        .output()
        .expect("git runs");
    assert!(list.status.success(), "git ls-files: {}", String::from_utf8_lossy(&list.stderr));
    let files: Vec<_> = String::from_utf8_lossy(&list.stdout).lines().map(|line| root().join(line)).collect();
    assert!(!files.is_empty(), "there are no files that end in {suffix}");
    files.into_iter().filter(|path| path.is_file()).collect()
}

#[test]
fn files_have_one_role_each() {
    for path in files(".rs") {
        let lines = fs::read_to_string(&path).expect("it is text").lines().count();
        assert!(lines <= LINES, "{} has {lines} lines: split it by role", path.display());
    }
}

#[test]
fn nothing_is_left_for_later_in_a_comment() {
    let marks = ["TO", "FIX", "XX"].map(|begin| {
        begin.to_owned()
            + if begin == "TO" {
                "DO"
            } else if begin == "XX" {
                "X"
            } else {
                "ME"
            }
    });
    for path in files(".rs").into_iter().chain(files(".proto")) {
        let content = fs::read_to_string(&path).expect("it is text");
        for (number, line) in content.lines().enumerate() {
            let left = marks.iter().find(|mark| line.contains(mark.as_str()));
            assert!(left.is_none(), "{}:{}: {line}", path.display(), number + 1);
        }
    }
}

#[test]
fn nothing_is_switched_off_in_silence() {
    for path in files(".rs") {
        let content = fs::read_to_string(&path).expect("it is text");
        for (number, line) in
            content.lines().enumerate().filter(|(_, line)| line.trim_start().starts_with("#[ignore"))
        {
            assert!(
                line.contains("= \""),
                "{}:{}: a test is ignored without a reason",
                path.display(),
                number + 1
            );
        }
    }
}
