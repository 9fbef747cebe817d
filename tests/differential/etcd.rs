//! A real etcd of one member, on loopback, in a directory of its own.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, thread};

use quorate_api::etcdserverpb as pb;
use quorate_api::etcdserverpb::kv_client::KvClient;
use quorate_api::etcdserverpb::maintenance_client::MaintenanceClient;
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};
use tonic::Status;
use tonic::transport::Channel;

use crate::request::{Answer, Request};

/// What we compare with.
const VERSION: &str = "3.7.3";

/// How long it may take to start.
const START: Duration = Duration::from_mins(1);

/// The process; it ends with this value.
pub(crate) struct Etcd {
    process: Child,
    runtime: Runtime,
    kv: KvClient<Channel>,
    /// How often it answered what: kinds of answers, and texts of errors.
    tally: BTreeMap<String, usize>,
    _directory: TempDir,
}

impl Etcd {
    /// Starts one and waits until it answers.
    pub(crate) fn start() -> Self {
        let directory = tempfile::tempdir().expect("a directory for etcd");
        let (client, peer) = (free_address(), free_address());
        let process = command(directory.path(), &client, &peer).spawn().expect("etcd starts");
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        let channel = Channel::from_shared(client).expect("a URL");
        let channel = {
            let _context = runtime.enter();
            channel.connect_lazy()
        };
        let etcd = Self {
            process,
            runtime,
            kv: KvClient::new(channel.clone()),
            tally: BTreeMap::new(),
            _directory: directory,
        };
        etcd.wait(MaintenanceClient::new(channel));
        etcd
    }

    fn wait(&self, mut maintenance: MaintenanceClient<Channel>) {
        let deadline = Instant::now() + START;
        loop {
            match self.runtime.block_on(maintenance.status(pb::StatusRequest {})) {
                Ok(status) if status.get_ref().leader != 0 => {
                    assert_eq!(status.get_ref().version, VERSION, "the etcd to compare with");
                    return;
                }
                other => assert!(Instant::now() < deadline, "etcd does not come up: {other:?}"),
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Asks it.
    pub(crate) fn ask(&mut self, request: Request) -> Answer {
        let kv = &mut self.kv;
        let answer: Result<Answer, Status> = self.runtime.block_on(async {
            Ok(match request {
                Request::Range(range) => Answer::Range(kv.range(range).await?.into_inner()),
                Request::Put(put) => Answer::Put(kv.put(put).await?.into_inner()),
                Request::DeleteRange(delete) => {
                    Answer::DeleteRange(kv.delete_range(delete).await?.into_inner())
                }
                Request::Txn(txn) => Answer::Txn(kv.txn(txn).await?.into_inner()),
                Request::Compact(compact) => Answer::Compact(kv.compact(compact).await?.into_inner()),
            })
        });
        let answer =
            answer.unwrap_or_else(|status| Answer::Error(status.code(), status.message().to_owned()));
        *self.tally.entry(answer.kind().to_owned()).or_default() += 1;
        answer
    }

    /// How often it answered what.
    pub(crate) fn tally(&self) -> &BTreeMap<String, usize> {
        &self.tally
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        // It may have ended by itself; there is nothing more to be done about it then.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// An etcd of one member.
pub(crate) fn command(directory: &Path, client: &str, peer: &str) -> Command {
    let mut command = Command::new(binary());
    command
        .arg("--data-dir")
        .arg(directory)
        .args(["--listen-client-urls", client, "--advertise-client-urls", client])
        .args(["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer])
        .args(["--initial-cluster", &format!("default={peer}")])
        .args(["--log-level", "error", "--unsafe-no-fsync"])
        .stdout(Stdio::null())
        .stderr(Stdio::inherit());
    command
}

/// Where etcd is; without it there is nothing to compare with, and the test fails.
fn binary() -> PathBuf {
    let home = || env::home_dir().expect("a home directory").join(".cache/quorate");
    let cache = env::var_os("QUORATE_CACHE").map_or_else(home, PathBuf::from);
    let binary = env::var_os("QUORATE_ETCD")
        .map_or_else(|| cache.join(format!("etcd-{VERSION}")).join("etcd"), PathBuf::from);
    assert!(
        binary.is_file(),
        "no etcd {VERSION} at {}: `tests/kubernetes/cluster build etcd` builds it and says where; set QUORATE_ETCD to it",
        binary.display()
    );
    binary
}

/// An address of loopback that nobody listens on now.
fn free_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    format!("http://{}", listener.local_addr().expect("its address"))
}
