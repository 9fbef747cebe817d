//! More clients than a node has descriptors for: each new one is served beside any number of idle ones, and the disk never lacks one.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use quorate_api::etcdserverpb as pb;
use quorate_api::etcdserverpb::kv_client::KvClient;
use quorate_tests::clients::endpoint;
use quorate_tests::process::Process;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tonic::transport::Channel;

use crate::cluster::eventually;
use crate::node::Settings;

/// What each node may open. Containers often get 1024; this shows the same with fewer clients.
const DESCRIPTORS: &str = "256";

/// Idle clients of each kind: far more than there are descriptors.
const IDLE: usize = 500;

/// More than a segment of the log holds, so that the disk has to make, open, rename and sync files while clients hold all connections that they
/// get.
const WRITES: usize = 100;
const VALUE_BYTES: usize = 1 << 20;

/// Starts the node with [`DESCRIPTORS`] as its soft and hard limit.
fn start(settings: &Settings) -> Process {
    let node = settings.command();
    let mut command = Command::new("sh");
    command.args(["-c", &format!("ulimit -n {DESCRIPTORS} && exec \"$0\" \"$@\"")]);
    command.arg(node.get_program()).args(node.get_args());
    for (name, value) in node.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    Process::start(&settings.name, command, &settings.log).expect("a shell starts")
}

async fn connect(address: SocketAddr) -> Result<KvClient<Channel>, String> {
    endpoint(address).connect().await.map(KvClient::new).map_err(|error| format!("{error:?}"))
}

async fn put(kv: &mut KvClient<Channel>, number: usize, bytes: usize) -> Result<(), String> {
    let key = format!("key/{}", number % 4).into();
    let request = pb::PutRequest { key, value: vec![7; bytes].into(), ..pb::PutRequest::default() };
    kv.put(request).await.map(drop).map_err(|status| status.to_string())
}

/// Connections that say nothing, and ones that have spoken HTTP/2 and ask for nothing. A node may close any of them.
async fn idle_clients(address: SocketAddr) -> Vec<TcpStream> {
    let mut idle = Vec::new();
    for number in 0..2 * IDLE {
        let mut socket = TcpStream::connect(address).await.expect("a new client is accepted");
        if number % 2 == 0 {
            // The preface, and an empty SETTINGS frame.
            let words = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
            let _ = socket.write_all(words).await;
        }
        idle.push(socket);
    }
    idle
}

fn nodes(folder: &Path) -> Vec<Settings> {
    let first = Settings::new(folder, "node-0").with("--bootstrap");
    let join = format!("--join={}", first.peer);
    let others = ["node-1", "node-2"].map(|name| Settings::new(folder, name).with(join.clone()));
    [first].into_iter().chain(others).collect()
}

#[tokio::test]
async fn idle_clients_without_number_keep_nobody_out() {
    let folder = tempfile::tempdir().expect("there is a place for temporary files");
    let nodes = nodes(folder.path());
    let mut processes: Vec<Process> = nodes.iter().map(start).collect();
    for node in &nodes {
        eventually(&format!("a write on {}", node.name), async || {
            put(&mut connect(node.client).await?, 0, 1).await
        })
        .await;
    }
    let mut steady = connect(nodes[0].client).await.expect("there is room");
    put(&mut steady, 0, 1).await.expect("it has just done one");
    let mut idle = Vec::new();
    for node in &nodes {
        idle.extend(idle_clients(node.client).await);
    }
    for number in 0..WRITES {
        // A client that goes on is not closed for the idle ones, and a new one is served, at every node.
        eventually("a write of the first client", async || {
            put(&mut steady.clone(), number, VALUE_BYTES).await
        })
        .await;
        if number % 10 == 0 {
            for node in &nodes {
                let mut new = connect(node.client).await.expect("a new client is served");
                eventually("a write of a new client", async || put(&mut new.clone(), number, 1).await).await;
                put(&mut new, number, 1).await.expect("a new client is served");
            }
        }
    }
    // Peers come back to a node that is full of clients.
    processes[2].kill().expect("a child can be killed");
    processes[2] = start(&nodes[2]);
    let again = async || put(&mut connect(nodes[2].client).await?, 0, 1).await;
    eventually("the third node is a member again", again).await;
    drop(idle);
    for process in &mut processes {
        assert_eq!(process.ended().expect("it is our child"), None, "{}", process.last_output(20));
        // The system says it with a capital letter, the log without.
        let lacked = process.output().to_lowercase().contains("too many open files");
        assert!(!lacked, "{}", process.last_output(20));
    }
}

/// The soft limit is what a shell or a container runtime happens to give; the hard one is what the machine allows.
#[tokio::test]
async fn the_soft_limit_is_raised_to_the_hard_one() {
    let folder = tempfile::tempdir().expect("there is a place for temporary files");
    let settings = Settings::new(folder.path(), "node");
    let node = settings.command();
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -S -n 128 && ulimit -H -n 2048 && exec \"$0\" \"$@\""]);
    command.arg(node.get_program()).args(node.get_args());
    let process = Process::start(&settings.name, command, &settings.log).expect("a shell starts");
    let limit = async || {
        let limits =
            std::fs::read_to_string(format!("/proc/{}/limits", process.id())).map_err(|e| e.to_string())?;
        let line =
            limits.lines().find(|line| line.starts_with("Max open files")).unwrap_or_default().to_owned();
        let fields: Vec<_> = line.split_whitespace().collect();
        if fields.get(3..5) == Some(&["2048", "2048"]) { Ok(()) } else { Err(line) }
    };
    eventually("the limit is raised", limit).await;
    let says =
        async || if process.output().contains("raised the limit") { Ok(()) } else { Err(process.output()) };
    eventually("it says so", says).await;
}

/// Of the limit clients get what is left beside a reserve of 160, of which 88 are for the connections of others.
#[tokio::test]
async fn node_has_no_more_files_open_than_are_kept_for_it() {
    const OWN: usize = 72 - 16;
    let folder = tempfile::tempdir().expect("there is a place for temporary files");
    let settings = Settings::new(folder.path(), "node").with("--bootstrap").with("--state-copy");
    let process = settings.start();
    // Enough for several segments of the log, and for snapshots of it.
    for number in 0..4 * WRITES {
        let write = async || put(&mut connect(settings.client).await?, number, VALUE_BYTES).await;
        eventually("a write", write).await;
    }
    let open = std::fs::read_dir(format!("/proc/{}/fd", process.id())).expect("it runs").count();
    assert!(open <= OWN, "{open} files are open");
}
