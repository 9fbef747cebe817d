//! The way in and the way out: what etcdctl saves of a real etcd becomes a cluster of ours, and what it saves of that becomes a real etcd again.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use quorate_api::etcdserverpb as pb;
use quorate_api::etcdserverpb::kv_client::KvClient;
use quorate_api::etcdserverpb::lease_client::LeaseClient;
use quorate_api::etcdserverpb::maintenance_client::MaintenanceClient;
use quorate_tests::clients::endpoint;
use quorate_tests::process::Process;
use quorate_tests::{binaries, ports};

use crate::admin;
use crate::cluster::eventually;
use crate::node::Settings;

/// A program of etcd's.
fn tool(variable: &str) -> PathBuf {
    let found = std::env::var_os(variable).map(PathBuf::from).filter(|path| path.is_file());
    found.unwrap_or_else(|| panic!("{variable} must name a program: `tests/kubernetes/cluster build` builds those of etcd and says where"))
}

fn run(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

fn succeed(command: &mut Command) -> String {
    let output = run(command);
    assert!(output.status.success(), "{command:?}: {output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// An etcd on a data directory.
async fn etcd(folder: &Path, data: &Path) -> (Process, SocketAddr) {
    let (client, peer) = (ports::free(), ports::free());
    let mut command = Command::new(tool("QUORATE_ETCD"));
    command
        .arg(format!("--data-dir={}", data.display()))
        .args([
            format!("--listen-client-urls=http://{client}"),
            format!("--advertise-client-urls=http://{client}"),
        ])
        .args([
            format!("--listen-peer-urls=http://{peer}"),
            format!("--initial-advertise-peer-urls=http://{peer}"),
        ])
        .arg(format!("--initial-cluster=default=http://{peer}"))
        .args(["--log-level=error", "--unsafe-no-fsync"]);
    let log = folder.join(format!("etcd-{}.log", client.port()));
    let process = Process::start("etcd", command, &log).expect("etcd starts");
    eventually("etcd to serve", || range(client, 0)).await;
    (process, client)
}

async fn save(from: SocketAddr, file: &Path) {
    let mut command = Command::new(tool("QUORATE_ETCDCTL"));
    command.arg(format!("--endpoints={from}")).args(["snapshot", "save"]).arg(file);
    tokio::task::spawn_blocking(move || succeed(&mut command)).await.expect("it ends");
}

fn restore(file: &Path, data: &Path, more: &[&str]) -> Output {
    let program = binaries::workspace("raftctl", "QUORATE_RAFTCTL").expect("raftctl");
    run(Command::new(program).args(["snapshot", "restore"]).arg(file).arg("--data-dir").arg(data).args(more))
}

/// All keys at a revision.
async fn range(at: SocketAddr, revision: i64) -> Result<pb::RangeResponse, String> {
    let all = pb::RangeRequest { key: "\0".into(), range_end: "\0".into(), revision, ..Default::default() };
    // The client's buffer must hold what the clusters here have.
    let mut client = KvClient::new(endpoint(at).connect_lazy()).max_decoding_message_size(64 << 20);
    let mut answer = client.range(all).await.map_err(|status| status.message().to_owned())?.into_inner();
    // Who answers, and in which term, is no part of what is stored.
    answer.header =
        answer.header.map(|header| pb::ResponseHeader { revision: header.revision, ..Default::default() });
    Ok(answer)
}

async fn hash(at: SocketAddr) -> (u32, i64, i64) {
    let mut client = MaintenanceClient::new(endpoint(at).connect_lazy());
    let hash = client.hash_kv(pb::HashKvRequest { revision: 0 }).await.expect("a hash").into_inner();
    (hash.hash, hash.compact_revision, hash.hash_revision)
}

/// All that can be read: every revision, from before the first to behind the last, and the hash of the history.
#[derive(Debug, PartialEq)]
struct Everything {
    answers: Vec<Result<pb::RangeResponse, String>>,
    hash: (u32, i64, i64),
    /// By ID, how long each was granted for, and what hangs on it.
    leases: Vec<(i64, i64, Vec<Vec<u8>>)>,
}

async fn leases(at: SocketAddr) -> Vec<(i64, i64, Vec<Vec<u8>>)> {
    let mut client = LeaseClient::new(endpoint(at).connect_lazy());
    let all = client.lease_leases(pb::LeaseLeasesRequest {}).await.expect("the leases").into_inner();
    let mut leases = Vec::new();
    for lease in all.leases {
        let request = pb::LeaseTimeToLiveRequest { id: lease.id, keys: true };
        let told = client.lease_time_to_live(request).await.expect("a lease").into_inner();
        assert!(told.ttl > 0, "{told:?}");
        let mut keys: Vec<_> = told.keys.iter().map(|key| key.to_vec()).collect();
        keys.sort();
        leases.push((told.id, told.granted_ttl, keys));
    }
    leases.sort();
    leases
}

async fn everything(at: SocketAddr) -> Everything {
    let current = range(at, 0).await.expect("it serves").header.expect("a header").revision;
    let mut answers = Vec::new();
    for revision in 0..=current + 1 {
        answers.push(range(at, revision).await);
    }
    Everything { answers, hash: hash(at).await, leases: leases(at).await }
}

async fn put(client: &mut KvClient<tonic::transport::Channel>, key: String, value: Vec<u8>, lease: i64) {
    let put = pb::PutRequest { key: key.into(), value: value.into(), lease, ..Default::default() };
    client.put(put).await.expect("a put");
}

/// Keys that are put, put again, deleted and put anew, from the `start`th change on, and a compaction among them.
async fn write(at: SocketAddr, start: u32, lease: i64) {
    let mut client = KvClient::new(endpoint(at).connect_lazy());
    for number in start..start + 60 {
        let size = if number % 29 == 0 { 300_000 } else { number as usize * 7 % 400 };
        put(
            &mut client,
            format!("k{}", number % 23),
            vec![number as u8; size],
            lease * i64::from(number % 3 == 0),
        )
        .await;
        if number % 5 == 0 {
            let key = format!("k{}", (number + 3) % 23).into();
            let delete = pb::DeleteRangeRequest { key, ..Default::default() };
            client.delete_range(delete).await.expect("a deletion");
        }
        if number == start + 30 {
            let revision = range(at, 0).await.expect("it serves").header.expect("a header").revision - 4;
            let compact = pb::CompactionRequest { revision, physical: true };
            client.compact(compact).await.expect("a compaction");
        }
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Nodes of ours: the first on a restored directory, the others join it.
async fn nodes(folder: &Path, data: &Path) -> (Vec<Settings>, Vec<Process>) {
    let first = Settings { data: data.to_owned(), ..Settings::new(folder, "restored-0") };
    let join = format!("--join={}", first.peer);
    let others = (1..3).map(|number| Settings::new(folder, &format!("restored-{number}")).with(join.clone()));
    let settings: Vec<Settings> = std::iter::once(first).chain(others).collect();
    let processes = settings.iter().map(Settings::start).collect();
    eventually("three voters", || async {
        let status = admin::status(settings[0].peer).await.map_err(|status| status.message().to_owned())?;
        let configuration =
            status.configuration.and_then(|current| current.configuration).unwrap_or_default();
        if configuration.voters.len() == 3 { Ok(()) } else { Err(format!("{:?}", configuration.voters)) }
    })
    .await;
    (settings, processes)
}

#[tokio::test]
async fn an_etcd_becomes_a_cluster_of_ours_and_an_etcd_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let (etcd_process, at) = etcd(folder, &folder.join("etcd")).await;
    let mut grant = Command::new(tool("QUORATE_ETCDCTL"));
    grant.arg(format!("--endpoints={at}")).args(["lease", "grant", "100000"]);
    let granted = succeed(&mut grant);
    let lease = granted.split_whitespace().nth(1).and_then(|id| i64::from_str_radix(id, 16).ok());
    write(at, 0, lease.expect("etcdctl says its ID")).await;
    let (first_file, data) = (folder.join("first.db"), folder.join("data"));
    save(at, &first_file).await;
    let before = everything(at).await;
    assert!(before.leases.len() == 1 && !before.leases[0].2.is_empty(), "{:?}", before.leases);
    drop(etcd_process);

    let restored = restore(&first_file, &data, &["--new-cluster", "c1"]);
    assert!(restored.status.success() && text(&restored.stdout).contains("without --join"), "{restored:?}");
    let again = restore(&first_file, &data, &["--new-cluster", "c1"]);
    assert!(again.status.success() && text(&again.stdout).contains("nothing was changed"), "{again:?}");
    let (settings, processes) = nodes(folder, &data).await;
    for node in &settings {
        assert_eq!(everything(node.client).await, before, "{}", node.name);
    }

    write(settings[0].client, 60, 0).await;
    let after = everything(settings[0].client).await;
    // A follower's snapshot is as good.
    eventually("the follower to have all", || async {
        let at = settings[2].client;
        if everything(at).await == after { Ok(()) } else { Err("it is behind") }
    })
    .await;
    let second_file = folder.join("second.db");
    save(settings[2].client, &second_file).await;
    drop(processes);

    let etcdutl = tool("QUORATE_ETCDUTL");
    let status =
        succeed(Command::new(&etcdutl).args(["snapshot", "status", "--write-out=json"]).arg(&second_file));
    let status: serde_json::Value = serde_json::from_str(&status).expect("JSON");
    assert_eq!(status["revision"], after.hash.2, "{status}");
    assert_eq!(status["version"], "3.7.0", "{status}");
    let again = folder.join("etcd-again");
    succeed(
        Command::new(&etcdutl).args(["snapshot", "restore"]).arg(&second_file).arg("--data-dir").arg(&again),
    );
    let (_etcd, at) = etcd(folder, &again).await;
    assert_eq!(everything(at).await, after);
    // It goes on from there.
    write(at, 200, 0).await;
}

/// What watches and caches know of the past ends, and no revision is dealt out twice.
#[tokio::test]
async fn revisions_go_up_when_that_is_asked_for() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let (_process, at) = etcd(folder, &folder.join("etcd")).await;
    write(at, 0, 0).await;
    let (file, data) = (folder.join("saved.db"), folder.join("data"));
    save(at, &file).await;
    let newest = range(at, 0).await.expect("it serves");
    let revision = newest.header.expect("a header").revision;
    assert_eq!(
        restore(&file, &data, &["--bump-revision", "1000"]).status.code(),
        Some(2),
        "one without the other"
    );
    let restored = restore(&file, &data, &["--bump-revision", "1000", "--mark-compacted"]);
    assert!(restored.status.success(), "{restored:?}");
    let node = Settings { data, ..Settings::new(folder, "restored") };
    let _node = node.start();
    let bumped = eventually("it to serve", || range(node.client, 0)).await;
    assert_eq!(bumped.kvs, newest.kvs);
    assert_eq!(bumped.header.expect("a header").revision, revision + 1000);
    let refused = range(node.client, revision).await.expect_err("it is compacted");
    assert!(refused.contains("compacted"), "{refused}");

    // As etcdutl does it, which puts a revision of no key: that is restored as well.
    let bumped_by_etcd = folder.join("bumped");
    succeed(
        Command::new(tool("QUORATE_ETCDUTL"))
            .args(["snapshot", "restore", "--bump-revision=1000", "--mark-compacted"])
            .arg(&file)
            .arg("--data-dir")
            .arg(&bumped_by_etcd),
    );
    let (again, at) = etcd(folder, &bumped_by_etcd).await;
    assert_eq!(range(at, 0).await.expect("it serves"), bumped);
    drop(again);
    // Its file has no hash: it was not saved, but copied.
    let (database, copied) = (bumped_by_etcd.join("member/snap/db"), folder.join("copied"));
    let refused = restore(&database, &copied, &[]);
    assert!(!refused.status.success() && text(&refused.stderr).contains("--skip-hash-check"), "{refused:?}");
    assert!(restore(&database, &copied, &["--skip-hash-check"]).status.success());
    let node = Settings { data: copied, ..Settings::new(folder, "copied-node") };
    let _process = node.start();
    assert_eq!(eventually("it to serve", || range(node.client, 0)).await, bumped);
}

#[tokio::test]
async fn what_cannot_be_restored_is_refused_and_nothing_is_changed() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let (_etcd, at) = etcd(folder, &folder.join("etcd")).await;
    write(at, 0, 0).await;
    let (file, data) = (folder.join("saved.db"), folder.join("data"));
    save(at, &file).await;
    let saved = std::fs::read(&file).expect("it can be read");
    let refused = |bytes: &[u8], more: &[&str]| {
        let file = folder.join("changed.db");
        std::fs::write(&file, bytes).expect("it can be written");
        let output = restore(&file, &data, more);
        assert!(!output.status.success(), "{output:?}");
        text(&output.stderr)
    };
    let mut changed = saved.clone();
    changed[5 * 4096 + 100] ^= 1;
    assert!(refused(&changed, &[]).contains("--skip-hash-check"));
    assert!(refused(&saved[..saved.len() - 32], &[]).contains("--skip-hash-check"));
    assert!(refused(&saved[..saved.len() / 2 / 512 * 512], &["--skip-hash-check"]).contains("cut short"));
    assert!(refused(b"what else", &["--skip-hash-check"]).contains("no database file of etcd"));
    assert!(restore(&folder.join("missing"), &data, &[]).status.code() == Some(1));

    // The directory is taken for an empty one after all of that, and for none once there is something in it.
    assert!(restore(&file, &data, &[]).status.success());
    let output = restore(&file, &data, &[]);
    assert!(output.status.code() == Some(2) && text(&output.stderr).contains("not empty"), "{output:?}");

    // Keys that had to be asked for by name must not be open to all.
    let etcdctl = |arguments: &[&str]| {
        succeed(Command::new(tool("QUORATE_ETCDCTL")).arg(format!("--endpoints={at}")).args(arguments))
    };
    etcdctl(&["user", "add", "root:secret"]);
    etcdctl(&["user", "grant-role", "root", "root"]);
    etcdctl(&["auth", "enable"]);
    let guarded = folder.join("guarded.db");
    etcdctl(&["--user=root:secret", "snapshot", "save", &guarded.display().to_string()]);
    let open = folder.join("open");
    let output = restore(&guarded, &open, &[]);
    assert!(!output.status.success() && text(&output.stderr).contains("--without-users"), "{output:?}");
    assert!(restore(&guarded, &open, &["--without-users"]).status.success());
}
