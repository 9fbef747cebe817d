//! What a node does with a start that cannot be right: one clear line, an exit code that is not zero, and nothing overwritten.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};

use quorate_api::admin::Role;
use quorate_api::etcdserverpb::kv_client::KvClient;
use quorate_tests::linearizability::kv::{Input, Key, Value};
use tempfile::TempDir;

use crate::admin;
use crate::certificates::Authority;
use crate::cluster::{DEADLINE, eventually};
use crate::node::Settings;
use quorate_tests::clients::{endpoint, send};

fn folder() -> TempDir {
    tempfile::tempdir().expect("there is a place for temporary files")
}

/// Starts a node that must not run, and returns its last words.
async fn refused(settings: &Settings, mentions: &[&str]) -> String {
    let mut process = settings.start();
    let ended = process.wait(DEADLINE).await;
    let output = process.output();
    let status = ended.unwrap_or_else(|error| panic!("{error}; it says:\n{output}"));
    assert!(status.code().is_some_and(|code| code != 0), "{status}:\n{output}");
    assert!(!output.contains("panicked"), "{output}");
    let complaints: Vec<_> = output.lines().filter(|line| line.starts_with("quorate-node: ")).collect();
    let [complaint] = complaints.as_slice() else { panic!("not one line of complaint:\n{output}") };
    assert_eq!(output.lines().last(), Some(*complaint), "it says more after its complaint:\n{output}");
    for word in mentions {
        assert!(complaint.to_lowercase().contains(word), "no word of {word:?} in: {complaint}");
    }
    (*complaint).to_owned()
}

/// The content of every file below `folder` but the lock, which is nobody's data.
fn contents(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("it can be read") {
            let path = entry.expect("it can be read").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.file_name().is_none_or(|name| name != "lock") {
                files.insert(path.clone(), fs::read(&path).expect("it can be read"));
            }
        }
    }
    files
}

#[track_caller]
fn assert_untouched(before: &BTreeMap<PathBuf, Vec<u8>>, folder: &Path) {
    let after = contents(folder);
    assert!(before.keys().eq(after.keys()), "files came or went: {:?}, {:?}", before.keys(), after.keys());
    for (path, content) in before {
        assert!(after[path] == *content, "{} was overwritten", path.display());
    }
}

async fn put(settings: &Settings, value: u64) -> Result<(), String> {
    let channel = endpoint(settings.client).connect().await.map_err(|error| error.to_string())?;
    let input = Input::Put(vec![Key(0)], Value(value));
    send(&mut KvClient::new(channel), &input, false).await.map(drop).map_err(|status| status.to_string())
}

async fn get(settings: &Settings) -> Result<Option<Value>, String> {
    let channel = endpoint(settings.client).connect().await.map_err(|error| error.to_string())?;
    let answer = send(&mut KvClient::new(channel), &Input::Get(vec![Key(0)]), false).await;
    let answer = answer.map_err(|status| status.to_string())?;
    Ok(answer.values().next().flatten())
}

/// The last value of a cluster of one.
const LAST: u64 = 50;

/// Founds a cluster of one, writes to it, and stops it.
async fn one_that_was(folder: &Path, name: &str) -> Settings {
    let settings = Settings::new(folder, name).with("--bootstrap");
    let mut process = settings.start();
    eventually("a first write", || put(&settings, 1)).await;
    for value in 2..=LAST {
        put(&settings, value).await.expect("it has just done one");
    }
    process.kill().expect("a child can be killed");
    settings
}

#[tokio::test]
async fn a_data_directory_in_use() {
    let folder = folder();
    let first = Settings::new(folder.path(), "first").with("--bootstrap");
    let _running = first.start();
    eventually("a first write", || put(&first, 1)).await;
    let mut second = Settings::new(folder.path(), "second").with("--bootstrap");
    second.data = first.data.clone();
    let data = first.data.display().to_string();
    refused(&second, &[&data.to_lowercase()]).await;
    put(&first, 2).await.expect("the first one goes on");
}

#[tokio::test]
async fn a_port_in_use() {
    let folder = folder();
    for port in ["client", "peer", "http"] {
        let settings = Settings::new(folder.path(), port).with("--bootstrap");
        let address = match port {
            "client" => settings.client,
            "peer" => settings.peer,
            _ => settings.http,
        };
        let _taken = TcpListener::bind(address).expect("it is free");
        refused(&settings, &[&address.to_string()]).await;
    }
}

#[tokio::test]
async fn a_volume_of_another_cluster() {
    let folder = folder();
    let mut stranger = one_that_was(folder.path(), "stranger").await;
    let host = Settings::new(folder.path(), "host").with("--bootstrap");
    let _running = host.start();
    eventually("a first write", || put(&host, 1)).await;
    let identity = |settings: &Settings| fs::read(settings.data.join("identity")).expect("it can be read");
    let before = identity(&stranger);
    stranger.more = vec![format!("--join={}", host.peer)];
    refused(&stranger, &["cluster"]).await;
    assert_eq!(identity(&stranger), before);
    let status = admin::status(host.peer).await.expect("the host goes on");
    let members = status.configuration.and_then(|status| status.configuration).unwrap_or_default().members;
    assert_eq!(members.len(), 1, "the stranger was let in: {members:?}");
    // Its own data is all there, for whoever starts it as what it is.
    stranger.more.clear();
    let _alone = stranger.start();
    let value = eventually("its own data", || get(&stranger)).await;
    assert_eq!(value, Some(Value(LAST)));
}

#[tokio::test]
async fn a_log_that_is_damaged() {
    let folder = folder();
    let settings = one_that_was(folder.path(), "damaged").await;
    // In the middle of what was made durable: one bit of a value that was written early.
    let files = contents(&settings.data);
    let needle = b"key/0";
    let log = files.iter().filter(|(path, _)| path.extension().is_some_and(|kind| kind == "wal"));
    let found = log.into_iter().find_map(|(path, content)| {
        let at = content.windows(needle.len()).position(|window| window == needle)?;
        Some((path.clone(), content.clone(), at))
    });
    let (path, mut content, at) = found.expect("the log holds what was written");
    content[at] ^= 1;
    fs::write(&path, content).expect("it can be written");
    let before = contents(&settings.data);
    let name = path.file_name().expect("it has one").to_string_lossy().to_lowercase();
    refused(&settings, &[&name]).await;
    assert_untouched(&before, &settings.data);
}

#[tokio::test]
async fn a_data_directory_that_is_a_file() {
    let folder = folder();
    let settings = Settings::new(folder.path(), "file").with("--bootstrap");
    fs::write(&settings.data, "something else").expect("it can be written");
    refused(&settings, &[&settings.data.display().to_string().to_lowercase()]).await;
    assert_eq!(fs::read(&settings.data).expect("it is still there"), b"something else");
}

#[tokio::test]
async fn an_address_that_is_none() {
    let folder = folder();
    let settings = Settings::new(folder.path(), "node").with("--bootstrap").with("--listen-client=nonsense");
    let mut process = settings.start();
    let status = process.wait(DEADLINE).await.expect("it ends");
    assert_eq!(status.code(), Some(2), "{}", process.output());
    assert!(process.output().contains("HOST:PORT"), "{}", process.output());
}

#[tokio::test]
async fn certificates_that_do_not_match() {
    let folder = folder();
    let authority = Authority::new();
    let (one, other) = (authority.issue(folder.path(), "one"), authority.issue(folder.path(), "other"));
    for port in ["peer", "client"] {
        let mut settings = Settings::new(folder.path(), port).with("--bootstrap");
        // The certificate of one with the key of the other.
        let [cert, _, ca] = one.flags(port);
        let [_, key, _] = other.flags(port);
        settings.more.extend([cert, key, ca]);
        refused(&settings, &["key"]).await;
        assert!(!settings.data.exists(), "a node that cannot start has made its data directory");
        let mut settings = Settings::new(folder.path(), &format!("{port}-missing")).with("--bootstrap");
        let missing = folder.path().join("missing.pem");
        let [_, key, ca] = one.flags(port);
        settings.more.extend([format!("--{port}-cert={}", missing.display()), key, ca]);
        refused(&settings, &["missing.pem"]).await;
    }
}

#[tokio::test]
async fn a_node_that_was_told_nothing_waits() {
    let folder = folder();
    let settings = Settings::new(folder.path(), "waiting");
    let mut process = settings.start();
    let status = eventually("a status", || admin::status(settings.peer)).await;
    assert_eq!((status.role(), status.cluster_id), (Role::Waiting, 0));
    assert!(put(&settings, 1).await.is_err(), "it took a write without a cluster");
    process.terminate().expect("a child can be asked to stop");
    let status = process.wait(DEADLINE).await.expect("it stops when asked");
    assert!(status.success(), "{status}: {}", process.output());
}
