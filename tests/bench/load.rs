//! Clients that each send a request when the one before is answered.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use bytes::Bytes;
use quorate_api::etcdserverpb::kv_client::KvClient;
use quorate_api::etcdserverpb::{PutRequest, RangeRequest};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tokio::runtime::{Builder, Runtime};

use crate::client::Connection;
use crate::cluster::Cluster;
use crate::data;
use crate::report::{Figures, Run};
use crate::row::{Load, Request};
use crate::statistics::percentile;
use crate::usage::{self, Cpu};
use crate::written::Written;

/// Bytes of a value.
pub(crate) const VALUE: usize = 256;
/// How many keys there are; each request takes one at random.
pub(crate) const KEYS: usize = 10_000;
pub(crate) const WARM_UP: Duration = Duration::from_secs(1);
/// Servers are quiet when all three together use less than this part of a core.
const QUIET: u128 = 10;
const GLANCE: Duration = Duration::from_millis(500);
/// They get no longer than this to become quiet.
const SETTLE: Duration = Duration::from_secs(20);

/// A runtime of one thread.
pub(crate) fn runtime() -> Result<Runtime, String> {
    Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("cannot make a runtime: {error}"))
}

/// What every client shares.
struct Shared {
    keys: Vec<Bytes>,
    value: Bytes,
    request: Request,
    begun: Instant,
    measuring: AtomicBool,
    stopping: AtomicBool,
}

/// What one client saw while it was measured.
#[derive(Default)]
pub(crate) struct Seen {
    /// Microseconds from request to answer; sorted at the end.
    pub(crate) latencies: Vec<u32>,
    /// When the answers came, in microseconds from when the clients were started; sorted at the end.
    pub(crate) answers: Vec<u64>,
    pub(crate) errors: usize,
    /// The last of them.
    pub(crate) error: Option<String>,
}

impl Seen {
    /// The longest time without an answer, in milliseconds.
    pub(crate) fn silence_ms(&self) -> f64 {
        let longest = self.answers.windows(2).map(|pair| pair[1] - pair[0]).max();
        longest.unwrap_or_default() as f64 / 1e3
    }
}

/// Clients at work.
pub(crate) struct Clients {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<Result<Seen, String>>>,
}

impl Clients {
    /// Starts the clients of `load` on `threads` threads; their connections go to `targets` in turn.
    pub(crate) fn start(targets: &[SocketAddr], load: &Load, threads: usize) -> Self {
        let shared = Arc::new(Shared {
            keys: keys_of(load),
            value: Bytes::from(vec![b'v'; load.value]),
            request: load.request,
            begun: Instant::now(),
            measuring: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
        });
        let threads = threads.clamp(1, load.connections);
        let workers = (0..threads)
            .map(|thread| {
                let connections: Vec<_> =
                    (thread..load.connections).step_by(threads).map(|n| targets[n % targets.len()]).collect();
                let clients = load.clients / load.connections;
                let shared = Arc::clone(&shared);
                thread::spawn(move || worker(&connections, clients, &shared))
            })
            .collect();
        Self { shared, workers }
    }

    /// Whether what is answered from now on counts.
    pub(crate) fn measure(&self, measuring: bool) {
        self.shared.measuring.store(measuring, Ordering::Relaxed);
    }

    /// Ends their work, and returns what they saw while they were measured.
    pub(crate) fn stop(self) -> Result<Seen, String> {
        self.measure(false);
        self.shared.stopping.store(true, Ordering::Relaxed);
        let mut all = Seen::default();
        for worker in self.workers {
            let seen = worker.join().map_err(|_| "a client has panicked")??;
            all.latencies.extend(seen.latencies);
            all.answers.extend(seen.answers);
            all.errors += seen.errors;
            all.error = all.error.or(seen.error);
        }
        if let Some(error) = &all.error
            && all.latencies.is_empty()
        {
            return Err(format!("no request was answered; {} failed, one with: {error}", all.errors));
        }
        all.latencies.sort_unstable();
        all.answers.sort_unstable();
        Ok(all)
    }
}

/// Runs `load` against `cluster` and measures it for `duration`.
pub(crate) fn run(cluster: &Cluster, load: &Load, duration: Duration, threads: usize) -> Result<Run, String> {
    let targets = {
        let runtime = runtime()?;
        let leader = runtime.block_on(cluster.leader())?;
        let mut nodes = cluster.clients();
        nodes.rotate_left(leader);
        if load.request != Request::Put {
            runtime.block_on(data::put_all(nodes[0], keys(), Bytes::from(vec![b'v'; VALUE])))?;
        }
        nodes
    };
    settle(cluster)?;
    let clients = Clients::start(&targets, load, threads);
    thread::sleep(WARM_UP);
    clients.measure(true);
    let (before, terms) = (Sample::take(cluster)?, cluster.term()?);
    thread::sleep(duration);
    let (after, terms) = (Sample::take(cluster)?, cluster.term()?.saturating_sub(terms));
    let all = clients.stop()?;
    let operations = all.latencies.len().max(1) as f64;
    let elapsed = after.at.duration_since(before.at).as_secs_f64();
    let (servers, client) = (after.servers.since(before.servers), after.client.since(before.client));
    let strangers = (after.machine - before.machine).saturating_sub(servers.total() + client.total());
    let written = after.written.since(&before.written);
    let puts = load.request == Request::Put;
    Ok(Run::Load(Figures {
        rate: all.latencies.len() as f64 / elapsed,
        p50_ms: f64::from(percentile(&all.latencies, 50)) / 1e3,
        p99_ms: f64::from(percentile(&all.latencies, 99)) / 1e3,
        server_cpu_us: servers.total() as f64 / operations,
        server_user_us: servers.user as f64 / operations,
        server_system_us: servers.system as f64 / operations,
        client_cpu_us: client.total() as f64 / operations,
        terms,
        written: puts.then(|| written.for_each(operations * (key(0).len() + load.value) as f64)),
        resident_mib: largest(&cluster.processes())?,
        strangers: strangers as f64 / 1e6 / elapsed,
        errors: all.errors,
        error: all.error,
    }))
}

/// The bytes of a key and its value.
pub(crate) fn user_bytes() -> usize {
    key(0).len() + VALUE
}

pub(crate) fn key(n: usize) -> Bytes {
    Bytes::from(format!("key/{n:08}"))
}

/// Large values go to few keys: what is measured is not how much memory they take.
fn keys_of(load: &Load) -> Vec<Bytes> {
    let count = if load.value > VALUE { load.clients } else { KEYS };
    (0..count).map(key).collect()
}

fn keys() -> Vec<Bytes> {
    (0..KEYS).map(key).collect()
}

/// What had been used at one moment.
struct Sample {
    at: Instant,
    /// CPU in microseconds.
    servers: Cpu,
    client: Cpu,
    machine: u64,
    written: Written,
}

impl Sample {
    fn take(cluster: &Cluster) -> Result<Self, String> {
        Ok(Self {
            at: Instant::now(),
            servers: usage::cpu(&cluster.processes())?,
            client: usage::cpu(&[std::process::id()])?,
            machine: usage::machine()?,
            written: Written::now(cluster)?,
        })
    }
}

/// Waits until the servers have done what they do after their start: what is measured is what comes after that.
pub(crate) fn settle(cluster: &Cluster) -> Result<(), String> {
    let processes = cluster.processes();
    let end = Instant::now() + SETTLE;
    let mut before = usage::cpu(&processes)?;
    loop {
        thread::sleep(GLANCE);
        let now = usage::cpu(&processes)?;
        let quiet = u128::from(now.since(before).total()) < GLANCE.as_micros() / QUIET;
        if quiet || Instant::now() > end {
            return Ok(());
        }
        before = now;
    }
}

/// The resident memory of the largest node.
pub(crate) fn largest(processes: &[u32]) -> Result<f64, String> {
    let sizes: Vec<u64> =
        processes.iter().map(|process| usage::resident(*process)).collect::<Result<_, _>>()?;
    Ok(sizes.into_iter().max().unwrap_or(0) as f64 / 1024.0)
}

/// One thread of the client: `clients` on each of the connections.
fn worker(connections: &[SocketAddr], clients: usize, shared: &Arc<Shared>) -> Result<Seen, String> {
    runtime()?.block_on(async {
        let mut tasks = Vec::new();
        for address in connections {
            let kv = Connection::kv(*address).await?;
            tasks.extend((0..clients).map(|_| tokio::spawn(client(kv.clone(), Arc::clone(shared)))));
        }
        let mut all = Seen::default();
        for task in tasks {
            let seen = task.await.map_err(|error| error.to_string())?;
            all.latencies.extend(seen.latencies);
            all.answers.extend(seen.answers);
            all.errors += seen.errors;
            all.error = seen.error.or(all.error);
        }
        Ok(all)
    })
}

async fn client(mut kv: KvClient<Connection>, shared: Arc<Shared>) -> Seen {
    let mut random = ChaCha8Rng::from_rng(&mut rand::rng());
    let mut seen = Seen::default();
    while !shared.stopping.load(Ordering::Relaxed) {
        let key = shared.keys[random.next_u32() as usize % shared.keys.len()].clone();
        let began = Instant::now();
        let answer = send(&mut kv, key, &shared).await;
        let latency = began.elapsed();
        match answer {
            // Requests that began while it warmed up count as well: they end within the time measured.
            Ok(()) if shared.measuring.load(Ordering::Relaxed) => {
                seen.latencies.push(u32::try_from(latency.as_micros()).unwrap_or(u32::MAX));
                seen.answers.push(shared.begun.elapsed().as_micros() as u64);
            }
            Ok(()) => {}
            Err(status) => {
                seen.errors += 1;
                seen.error = Some(status.to_string());
                // A server that refuses at once is not to be hammered.
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }
    seen
}

async fn send(kv: &mut KvClient<Connection>, key: Bytes, shared: &Shared) -> Result<(), tonic::Status> {
    match shared.request {
        Request::Put => {
            kv.put(PutRequest { key, value: shared.value.clone(), ..PutRequest::default() }).await.map(drop)
        }
        Request::Range { serializable } => {
            let answer = kv.range(RangeRequest { key, serializable, ..RangeRequest::default() }).await?;
            match answer.get_ref().kvs.as_slice() {
                [found] if found.value.len() == VALUE => Ok(()),
                _ => Err(tonic::Status::data_loss("the answer does not hold the value that was written")),
            }
        }
    }
}
