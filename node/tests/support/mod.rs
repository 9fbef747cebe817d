//! Real nodes on loopback, and what is asked of them.

#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    reason = "each test file uses a part of it, and nobody else does"
)]
#![allow(clippy::panic, reason = "a test fails by it")]

#[path = "../../../tests/src/ports.rs"]
mod ports;

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use quorate_api::admin::admin_client::AdminClient;
use quorate_api::admin::{Role, StatusRequest, StatusResponse, TransferLeadershipRequest};
use quorate_api::etcdserverpb as pb;
use quorate_api::etcdserverpb::kv_client::KvClient;
use tempfile::TempDir;
use tonic::Status;
use tonic::transport::Channel;

/// How long anything may take before a test gives up: long, because the machine may be busy.
pub const DEADLINE: Duration = Duration::from_secs(90);

/// A node that has not been started, or is stopped: its directory and its addresses stay.
pub struct Home {
    pub name: String,
    pub dir: TempDir,
    ports: Option<[String; 3]>,
}

/// A running node. Killed when dropped.
pub struct Node {
    pub home: Home,
    child: Child,
    /// Of its client, peer and HTTP listeners.
    pub client: String,
    pub peer: String,
    pub http: String,
    log: Arc<Mutex<Vec<String>>>,
    reader: Option<JoinHandle<()>>,
}

impl Home {
    pub fn new(name: &str) -> Self {
        Home { name: name.into(), dir: tempfile::tempdir().expect("a directory"), ports: None }
    }

    pub fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// Chooses ports before the first start.
    pub fn choose_ports(&mut self) {
        let any = || ports::free().to_string();
        self.ports = Some([any(), any(), any()]);
    }

    /// The addresses of its client, peer and HTTP listeners, once they are known.
    pub fn ports(&self) -> Option<[String; 3]> {
        self.ports.clone()
    }

    /// The next start listens elsewhere.
    pub fn forget_ports(&mut self) {
        self.ports = None;
    }

    /// The command that starts the node, with `more` arguments.
    pub fn command(&self, more: &[&str]) -> Command {
        let any = || ports::free().to_string();
        let [client, peer, http] = self.ports.clone().unwrap_or_else(|| [any(), any(), any()]);
        let mut command = Command::new(env!("CARGO_BIN_EXE_quorate-node"));
        command.args(["--name", &self.name, "--log-format", "json"]).arg("--data-dir").arg(self.data_dir());
        command.args(["--listen-client", &client, "--listen-peer", &peer, "--listen-http", &http]).args(more);
        command.env_clear().stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        command
    }

    /// Starts the node and waits until it listens.
    pub fn start(mut self, more: &[&str]) -> Node {
        let mut child = self.command(more).spawn().expect("the node starts");
        let mut lines = BufReader::new(child.stderr.take().expect("stderr is piped")).lines();
        let log = Arc::new(Mutex::new(Vec::new()));
        let [client, peer, http] = loop {
            let Some(Ok(line)) = lines.next() else {
                panic!("{} ended: {:?}", self.name, log.lock());
            };
            let listening = addresses(&line);
            log.lock().push(line);
            if let Some(addresses) = listening {
                break addresses;
            }
        };
        let sink = Arc::clone(&log);
        let reader = thread::spawn(move || {
            lines.map_while(Result::ok).for_each(|line| sink.lock().push(line));
        });
        self.ports = Some([client.clone(), peer.clone(), http.clone()]);
        Node { home: self, child, client, peer, http, log, reader: Some(reader) }
    }

    /// Starts a node that is to fail: its exit code and what it says on stderr.
    pub fn fail(&self, more: &[&str]) -> (ExitStatus, String) {
        let mut child = self.command(more).spawn().expect("the node starts");
        let mut stderr = child.stderr.take().expect("stderr is piped");
        let reader = thread::spawn(move || {
            let mut said = String::new();
            stderr.read_to_string(&mut said).expect("text");
            said
        });
        let status = ends(&mut child);
        (status, reader.join().expect("it reads to the end"))
    }
}

/// How a process ends that is to end by itself. One that does not is killed, and its test fails.
fn ends(child: &mut Child) -> ExitStatus {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(status) = child.try_wait().expect("it is our child") {
            return status;
        }
        if Instant::now() > deadline {
            let _ = child.kill();
            panic!("the process does not end within {DEADLINE:?}");
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// The addresses in the line that a node says when it listens.
fn addresses(line: &str) -> Option<[String; 3]> {
    let field = |name: &str| {
        let (_, rest) = line.split_once(&format!("\"{name}\":\""))?;
        Some(rest.split_once('"')?.0.to_owned())
    };
    Some([field("client")?, field("peer")?, field("http")?])
}

impl Node {
    /// kill -9.
    pub fn kill(mut self) -> Home {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it ends");
        self.take_home()
    }

    /// SIGTERM.
    pub fn tell_to_stop(&self) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().expect("kill runs").success());
    }

    /// SIGTERM: how it ends, and all that it has said.
    pub fn terminate(mut self) -> (ExitStatus, Home, String) {
        self.tell_to_stop();
        let status = ends(&mut self.child);
        self.reader.take().expect("it was started").join().expect("it reads to the end");
        let log = self.log();
        (status, self.take_home(), log)
    }

    fn take_home(mut self) -> Home {
        let empty = Home { name: String::new(), dir: tempfile::tempdir().expect("a directory"), ports: None };
        std::mem::replace(&mut self.home, empty)
    }

    /// Everything that it has logged.
    pub fn log(&self) -> String {
        self.log.lock().join("\n")
    }

    pub async fn admin(&self) -> AdminClient<Channel> {
        eventually("the admin service answers", async || {
            AdminClient::connect(format!("http://{}", self.peer)).await.ok()
        })
        .await
    }

    pub async fn kv(&self) -> KvClient<Channel> {
        eventually("the client port answers", async || {
            KvClient::connect(format!("http://{}", self.client)).await.ok()
        })
        .await
    }

    pub async fn status(&self) -> StatusResponse {
        self.admin().await.status(StatusRequest {}).await.expect("a status").into_inner()
    }

    /// Waits until the node's status is as wanted.
    pub async fn status_when(&self, what: &str, wanted: impl Fn(&StatusResponse) -> bool) -> StatusResponse {
        let mut admin = self.admin().await;
        let what = format!("{}: {what}", self.home.name);
        eventually(&what, async || {
            let status = admin.status(StatusRequest {}).await.ok()?.into_inner();
            wanted(&status).then_some(status)
        })
        .await
    }

    pub async fn put(&self, key: &str, value: &str) -> Result<i64, Status> {
        let request = pb::PutRequest {
            key: key.to_owned().into(),
            value: value.to_owned().into(),
            ..Default::default()
        };
        let response = self.kv().await.put(request).await?.into_inner();
        Ok(response.header.expect("a header").revision)
    }

    /// Asks this node to hand leadership to `target` until it does not lead any more.
    pub async fn transfer(&self, target: u64) {
        let what = format!("{} hands leadership over", self.home.name);
        eventually(&what, async || {
            let status = self.status().await;
            let request = TransferLeadershipRequest { cluster_id: status.cluster_id, target };
            if status.role() == Role::Leader {
                let _ = self.admin().await.transfer_leadership(request).await;
            }
            (status.leader_id != 0 && status.leader_id != status.member_id).then_some(())
        })
        .await;
    }

    /// Puts until it is acknowledged: while leaders change, a request may fail.
    pub async fn put_surely(&self, key: &str, value: &str) -> i64 {
        eventually("a put is acknowledged", async || self.put(key, value).await.ok()).await
    }

    /// A linearizable read.
    pub async fn get(&self, key: &str) -> Result<Option<String>, Status> {
        let request = pb::RangeRequest { key: key.to_owned().into(), ..Default::default() };
        let response = self.kv().await.range(request).await?.into_inner();
        Ok(response.kvs.first().map(|kv| String::from_utf8_lossy(&kv.value).into_owned()))
    }

    /// A linearizable read, until it is answered.
    pub async fn get_surely(&self, key: &str) -> Option<String> {
        eventually("a read is answered", async || self.get(key).await.ok()).await
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("--- log of {}\n{}", self.home.name, self.log());
        }
    }
}

/// Asks again until there is an answer.
pub async fn eventually<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "not within {DEADLINE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Whether a status shows a settled configuration of so many voters.
pub fn has_voters(count: usize) -> impl Fn(&StatusResponse) -> bool {
    move |status| {
        let Some(configuration) = &status.configuration else { return false };
        let members = configuration.configuration.clone().unwrap_or_default();
        configuration.committed
            && members.outgoing.is_empty()
            && members.voters.len() == count
            && status.leader_id != 0
    }
}

/// Three voters, formed by --bootstrap and --join. The first one began as the leader.
pub async fn cluster_of_three() -> Vec<Node> {
    cluster_of_three_with(&[]).await
}

/// The same, each started with `more`.
pub async fn cluster_of_three_with(more: &[&str]) -> Vec<Node> {
    let first = Home::new("n1").start(&[&["--bootstrap"], more].concat());
    let peer = first.peer.clone();
    let join = [&["--join", &peer], more].concat();
    let nodes = vec![first, Home::new("n2").start(&join), Home::new("n3").start(&join)];
    for node in &nodes {
        node.status_when("three voters", has_voters(3)).await;
    }
    nodes
}

/// Where the leader stands among `nodes`.
pub async fn leader(nodes: &[Node]) -> usize {
    eventually("one of the nodes leads", async || {
        for (place, node) in nodes.iter().enumerate() {
            if node.status().await.role() == Role::Leader {
                return Some(place);
            }
        }
        None
    })
    .await
}
