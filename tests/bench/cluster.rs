//! Three nodes of one system on loopback.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use quorate_api::admin::{self, admin_client::AdminClient};
use quorate_api::etcdserverpb::{PutRequest, StatusRequest, StatusResponse};
use quorate_tests::clients::endpoint;
use quorate_tests::faulty_disk::{Faults, FaultyDisk};
use quorate_tests::ports;
use quorate_tests::process::Process;
use serde::Serialize;
use tempfile::TempDir;
use tokio::time::timeout;

use crate::client::Connection;

/// How long a cluster may take until it serves, and a node until it has stopped.
const START: Duration = Duration::from_mins(1);
const NODES: usize = 3;

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Product {
    Quorate,
    Etcd,
}

/// A product and the program that it is.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct System {
    product: Product,
    program: PathBuf,
    version: String,
}

impl System {
    pub(crate) fn new(product: Product, program: PathBuf) -> Result<Self, String> {
        let output = Command::new(&program).arg("--version").output();
        let output = output.map_err(|error| format!("cannot run {}: {error}", program.display()))?;
        let version =
            String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or("of unknown version").to_owned();
        Ok(Self { product, program, version })
    }

    pub(crate) fn name(&self) -> &'static str {
        match self.product {
            Product::Quorate => "quorate",
            Product::Etcd => "etcd",
        }
    }

    pub(crate) fn product(&self) -> Product {
        self.product
    }

    pub(crate) fn version(&self) -> &str {
        &self.version
    }
}

struct Node {
    command: NodeCommand,
    client: SocketAddr,
    process: Process,
}

#[derive(Clone)]
struct NodeCommand {
    program: PathBuf,
    arguments: Vec<String>,
    log: PathBuf,
}

impl NodeCommand {
    fn start(&self, name: &str) -> Result<Process, String> {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments);
        Process::start(name, command, &self.log).map_err(|error| error.to_string())
    }
}

/// A running cluster. Its processes and its data go when it is dropped.
pub(crate) struct Cluster {
    system: System,
    addresses: Vec<Addresses>,
    nodes: Vec<Node>,
    // After the nodes: their processes end first.
    disks: Vec<FaultyDisk>,
    folder: TempDir,
}

/// Of the client, the peer and the HTTP port.
type Addresses = [SocketAddr; 3];

impl Cluster {
    /// Starts three nodes and waits until each of them has done a write.
    pub(crate) fn start(system: &System, data: &Path) -> Result<Self, String> {
        Self::start_on(system, folder_in(data)?, Vec::new())
    }

    /// The same, each node with a disk that can fail; none where there are no such disks, and need not be.
    pub(crate) fn start_on_faulty_disks(system: &System, data: &Path) -> Result<Option<Self>, String> {
        let folder = folder_in(data)?;
        let mut disks = Vec::new();
        for n in 0..NODES {
            let files = folder.path().join(format!("disk-{n}"));
            std::fs::create_dir(&files)
                .map_err(|error| format!("cannot make {}: {error}", files.display()))?;
            match FaultyDisk::mount_unless_excused(&files)? {
                Some(disk) => disks.push(disk),
                None => return Ok(None),
            }
        }
        Self::start_on(system, folder, disks).map(Some)
    }

    fn start_on(system: &System, folder: TempDir, disks: Vec<FaultyDisk>) -> Result<Self, String> {
        let addresses = (0..NODES).map(|_| free()).collect();
        let mut cluster = Self { system: system.clone(), addresses, nodes: Vec::new(), disks, folder };
        for _ in 0..NODES {
            cluster.start_node()?;
        }
        cluster.wait_until_it_serves()?;
        cluster.wait_until_all_vote()?;
        Ok(cluster)
    }

    /// Starts the next node of those that have addresses.
    fn start_node(&mut self) -> Result<(), String> {
        let n = self.nodes.len();
        let folder = self.disks.get(n).map_or_else(|| self.folder.path(), FaultyDisk::path);
        let data = folder.join(format!("node-{n}"));
        let arguments = match self.system.product {
            Product::Etcd => etcd(n, &self.addresses, &data),
            Product::Quorate => quorate(n, &self.addresses, &data),
        };
        let log = self.folder.path().join(format!("node-{n}.log"));
        let command = NodeCommand { program: self.system.program.clone(), arguments, log };
        let process = command.start(&format!("node-{n}"))?;
        self.nodes.push(Node { command, client: self.addresses[n][0], process });
        Ok(())
    }

    /// Chooses the addresses of one more node: its name, and where its peers find it.
    pub(crate) fn prepare_another(&mut self) -> (String, SocketAddr) {
        let addresses = free();
        self.addresses.push(addresses);
        (format!("node-{}", self.nodes.len()), addresses[1])
    }

    /// Starts the node that was prepared, and returns where its clients connect.
    pub(crate) fn start_another(&mut self) -> Result<SocketAddr, String> {
        self.start_node()?;
        Ok(self.addresses[self.nodes.len() - 1][0])
    }

    pub(crate) fn product(&self) -> Product {
        self.system.product()
    }

    /// What goes wrong with the disk of a node.
    pub(crate) fn faults(&self, node: usize) -> &Faults {
        self.disks[node].faults()
    }

    /// Where clients connect.
    pub(crate) fn clients(&self) -> Vec<SocketAddr> {
        self.nodes.iter().map(|node| node.client).collect()
    }

    /// Where the data is.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn processes(&self) -> Vec<u32> {
        self.nodes.iter().map(|node| node.process.id()).collect()
    }

    /// Which node leads.
    pub(crate) async fn leader(&self) -> Result<usize, String> {
        let end = Instant::now() + START;
        while Instant::now() < end {
            for (n, node) in self.nodes.iter().enumerate() {
                if matches!(timeout(Duration::from_secs(1), leads(node.client)).await, Ok(Ok(true))) {
                    return Ok(n);
                }
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Err(format!("no leader after {START:?}"))
    }

    /// The newest term that a node knows: how often a leader was sought.
    pub(crate) fn term(&self) -> Result<u64, String> {
        crate::load::runtime()?.block_on(async {
            let mut newest = 0;
            for node in &self.nodes {
                let asked = timeout(Duration::from_secs(5), status(node.client)).await;
                newest = newest.max(asked.map_err(|_| "no status".to_owned())??.raft_term);
            }
            Ok(newest)
        })
    }

    /// kill -9.
    pub(crate) fn kill(&mut self, node: usize) -> Result<(), String> {
        self.nodes[node].process.kill().map(drop).map_err(|error| error.to_string())
    }

    /// SIGTERM to all of them, and waits for their end.
    pub(crate) fn stop(&mut self) -> Result<(), String> {
        for node in &self.nodes {
            node.process.terminate().map_err(|error| error.to_string())?;
        }
        crate::load::runtime()?.block_on(async {
            for node in &mut self.nodes {
                node.process.wait(START).await.map_err(|error| error.to_string())?;
            }
            Ok(())
        })
    }

    /// How many nodes there are.
    pub(crate) fn size(&self) -> usize {
        self.nodes.len()
    }

    /// An error with its last words when a node has ended by itself.
    pub(crate) fn assert_alive(&mut self) -> Result<(), String> {
        for process in self.nodes.iter_mut().map(|node| &mut node.process) {
            if let Some(status) = process.ended().map_err(|error| error.to_string())? {
                let (name, words) = (process.name(), process.last_output(20));
                return Err(format!("{name} ended: {status}; it says:\n{words}"));
            }
        }
        Ok(())
    }

    /// Starts a killed node again.
    pub(crate) fn restart(&mut self, node: usize) -> Result<(), String> {
        let node = &mut self.nodes[node];
        node.process = node.command.start(node.process.name())?;
        Ok(())
    }

    /// Waits until every node has done a write.
    pub(crate) fn wait_until_it_serves(&mut self) -> Result<(), String> {
        let runtime = crate::load::runtime()?;
        for node in &mut self.nodes {
            let end = Instant::now() + START;
            loop {
                let answer =
                    runtime.block_on(async { timeout(Duration::from_secs(2), write(node.client)).await });
                let Err(reason) = answer.map_err(|_| "no answer to a write".to_owned()).flatten() else {
                    break;
                };
                let ended = node.process.ended().map_err(|error| error.to_string())?;
                if ended.is_some() || Instant::now() > end {
                    let name = node.process.name();
                    let state = ended.map_or_else(
                        || format!("does not serve: {reason}"),
                        |status| format!("ended: {status}"),
                    );
                    return Err(format!("{name} {state}; it says:\n{}", node.process.last_output(20)));
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        Ok(())
    }
}

/// How often a node is asked whether it has got there.
const LOOK: Duration = Duration::from_millis(20);

impl Cluster {
    /// Waits until every node knows that the last change of the membership is finished. Before that the loss of the leader may be that of
    /// a majority: a cluster that grows from one needs its first member until the joint configuration is left
    /// (`node/raft/testscripts/change-crash-alone.txt`).
    fn wait_until_all_vote(&self) -> Result<(), String> {
        if self.system.product == Product::Etcd {
            return Ok(());
        }
        let runtime = crate::load::runtime()?;
        let end = Instant::now() + START;
        for [_, peer, _] in &self.addresses {
            while !runtime.block_on(has_voters(*peer, self.nodes.len())).unwrap_or(false) {
                if Instant::now() > end {
                    return Err(format!(
                        "the node at {peer} does not know of {NODES} voters after {START:?}"
                    ));
                }
                std::thread::sleep(LOOK);
            }
        }
        Ok(())
    }
}

/// Whether the configuration that the node at this peer port has is one of `count` voters, finished and committed.
async fn has_voters(peer: SocketAddr, count: usize) -> Result<bool, String> {
    let channel = endpoint(peer).connect().await.map_err(|error| error.to_string())?;
    let status = AdminClient::new(channel).status(admin::StatusRequest {}).await;
    let status = status.map_err(|status| status.to_string())?.into_inner();
    let finished = status.configuration.filter(|configuration| configuration.committed);
    let members = finished.and_then(|finished| finished.configuration);
    Ok(members.is_some_and(|members| members.outgoing.is_empty() && members.voters.len() == count))
}

impl Drop for Cluster {
    /// A process that waits for its disk cannot end.
    fn drop(&mut self) {
        self.disks.iter().for_each(|disk| disk.faults().heal());
    }
}

fn folder_in(data: &Path) -> Result<TempDir, String> {
    let folder = tempfile::Builder::new().prefix(".bench-").tempdir_in(data);
    folder.map_err(|error| format!("cannot make a folder in {}: {error}", data.display()))
}

fn free() -> Addresses {
    [ports::free(), ports::free(), ports::free()]
}

async fn status(client: SocketAddr) -> Result<StatusResponse, String> {
    let mut maintenance = Connection::maintenance(client).await?;
    let answer = maintenance.status(StatusRequest {}).await;
    Ok(answer.map_err(|status| status.to_string())?.into_inner())
}

async fn leads(client: SocketAddr) -> Result<bool, String> {
    let answer = status(client).await?;
    Ok(answer.header.is_some_and(|header| header.member_id == answer.leader))
}

async fn write(client: SocketAddr) -> Result<(), String> {
    let request = PutRequest { key: "ready".into(), value: "yes".into(), ..PutRequest::default() };
    Connection::kv(client).await?.put(request).await.map(drop).map_err(|status| status.to_string())
}

/// etcd with its default settings, and quiet.
fn etcd(n: usize, addresses: &[Addresses], data: &Path) -> Vec<String> {
    let [client, peer, _] = addresses[n];
    let members: Vec<_> =
        addresses.iter().enumerate().map(|(n, [_, peer, _])| format!("node-{n}=http://{peer}")).collect();
    vec![
        format!("--name=node-{n}"),
        format!("--data-dir={}", data.display()),
        format!("--listen-client-urls=http://{client}"),
        format!("--advertise-client-urls=http://{client}"),
        format!("--listen-peer-urls=http://{peer}"),
        format!("--initial-advertise-peer-urls=http://{peer}"),
        format!("--initial-cluster={}", members.join(",")),
        format!("--initial-cluster-state={}", if n < NODES { "new" } else { "existing" }),
        "--log-level=error".to_owned(),
    ]
}

/// Quorate with its default settings.
fn quorate(n: usize, addresses: &[Addresses], data: &Path) -> Vec<String> {
    let [client, peer, http] = addresses[n];
    let mut arguments = vec![
        format!("--name=node-{n}"),
        format!("--data-dir={}", data.display()),
        format!("--listen-client={client}"),
        format!("--advertise-client=http://{client}"),
        format!("--listen-peer={peer}"),
        format!("--advertise-peer={peer}"),
        format!("--listen-http={http}"),
    ];
    match n {
        0 => arguments.push("--bootstrap".to_owned()),
        _ => arguments.push(format!("--join={}", addresses[0][1])),
    }
    arguments
}
