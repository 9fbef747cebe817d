//! Clients that write and read through all nodes, and write down what they see.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::linearizability::Recorder;
use crate::linearizability::kv::{Input, Key, Output, Value};
use crate::requests::{self, Request};
use quorate_api::etcdserverpb::kv_client::KvClient;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tokio::task::JoinSet;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

/// How many keys they share: few, so that they meet.
pub const KEYS: u32 = 6;

/// How long a client waits for an answer: less than a node waits for its own, so that some leave before they are told.
const PATIENCE: Duration = Duration::from_secs(2);

/// How hard the clients work. It bounds the history, which has to be checked in seconds.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// How many clients there are.
    pub clients: u32,
    /// The most that a client rests after an operation.
    pub rest: Duration,
}

/// An endpoint with limits on everything.
pub fn endpoint(address: SocketAddr) -> Endpoint {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address makes a URL");
    endpoint.connect_timeout(Duration::from_secs(1)).timeout(Duration::from_secs(5)).tcp_nodelay(true)
}

/// All that was seen.
#[derive(Debug, Default)]
pub struct Notes {
    /// Reads that must be up to date, and writes.
    pub history: Recorder<Input, Output>,
    /// Reads that may be stale (serializable).
    pub stale: Recorder<Input, Output>,
    values: AtomicU64,
    stop: AtomicBool,
}

/// Clients at work.
#[derive(Debug)]
pub struct Clients {
    /// What they see.
    pub notes: Arc<Notes>,
    tasks: JoinSet<()>,
}

impl Clients {
    /// Starts clients on all of `servers`.
    pub fn start(servers: &[SocketAddr], random: &mut ChaCha8Rng, pace: Pace) -> Self {
        let notes = Arc::new(Notes::default());
        let mut tasks = JoinSet::new();
        for number in 0..pace.clients {
            let client = Client::new(number, servers, ChaCha8Rng::from_rng(random), Arc::clone(&notes));
            tasks.spawn(client.run(pace.rest));
        }
        Self { notes, tasks }
    }

    /// Lets every client finish its operation.
    pub async fn stop(mut self) -> Arc<Notes> {
        self.notes.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.tasks.join_next().await {
            if let Err(error) = ended
                && error.is_panic()
            {
                std::panic::resume_unwind(error.into_panic());
            }
        }
        self.notes
    }
}

/// One client.
#[derive(Debug)]
pub struct Client {
    number: u32,
    nodes: Vec<KvClient<Channel>>,
    random: ChaCha8Rng,
    notes: Arc<Notes>,
    /// What it saw last of each key.
    seen: BTreeMap<Key, Option<Value>>,
}

impl Client {
    /// A client of all of `servers`.
    pub fn new(number: u32, servers: &[SocketAddr], random: ChaCha8Rng, notes: Arc<Notes>) -> Self {
        let connect = |address: &SocketAddr| endpoint(*address).timeout(PATIENCE).connect_lazy();
        let connections = servers.iter().map(connect).map(KvClient::new).collect();
        Self { number, nodes: connections, random, notes, seen: BTreeMap::new() }
    }

    async fn run(mut self, rest: Duration) {
        while !self.notes.stop.load(Ordering::Relaxed) {
            let node = self.random.random_range(0..self.nodes.len());
            if self.random.random_bool(0.05) {
                self.stale_read(node).await;
            } else {
                let input = self.choose();
                self.operate(node, input).await;
            }
            tokio::time::sleep(self.random.random_range(Duration::ZERO..rest)).await;
        }
    }

    fn choose(&mut self) -> Input {
        let key = Key(self.random.random_range(0..KEYS));
        // Operations on two keys are always on the same two, so that the other keys stay separate.
        let pair = || vec![Key(0), Key(1)];
        match self.random.random_range(0..100) {
            0..35 => Input::Get(vec![key]),
            35..39 => Input::Get(pair()),
            39..70 => Input::Put(vec![key], self.new_value()),
            70..74 => Input::Put(pair(), self.new_value()),
            74..79 => Input::Delete(key),
            _ => {
                let expected = self.seen.get(&key).copied().flatten();
                Input::Swap { key, expected, new: self.new_value() }
            }
        }
    }

    fn new_value(&self) -> Value {
        Value(self.notes.values.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// Does one operation and writes it down. True if it was answered.
    pub async fn operate(&mut self, node: usize, input: Input) -> bool {
        let begun = self.notes.history.begin(self.number, input.clone());
        match send(&mut self.nodes[node], &input, false).await {
            Ok(output) => {
                let values: Vec<_> = output.values().collect();
                self.notes.history.answered(begun, output);
                self.seen.extend(input.keys().iter().copied().zip(values));
                true
            }
            Err(status) => {
                assert_expected(&input, &status);
                false
            }
        }
    }

    async fn stale_read(&mut self, node: usize) {
        let input = Input::Get(vec![Key(self.random.random_range(0..KEYS))]);
        let begun = self.notes.stale.begin(self.number, input.clone());
        if let Ok(output) = send(&mut self.nodes[node], &input, true).await {
            self.notes.stale.answered(begun, output);
        }
    }
}

/// Faults make requests fail, but only in ways that clients know how to take.
fn assert_expected(input: &Input, status: &Status) {
    let expected = match status.code() {
        // No leader, a leader lost, a node that is not there, no answer in time, too much at once; and what tonic makes of a
        // connection that breaks (unknown), or of its own limit of time (cancelled).
        Code::Unavailable
        | Code::DeadlineExceeded
        | Code::ResourceExhausted
        | Code::Cancelled
        | Code::Unknown => true,
        Code::Internal => status.message().contains("h2 protocol error"),
        // A node that does not vote yet.
        Code::FailedPrecondition => status.message().contains("learner"),
        _ => false,
    };
    assert!(expected, "{input} was answered with {status}");
}

/// Sends the operation; every answer says what the keys held before.
pub async fn send(kv: &mut KvClient<Channel>, input: &Input, serializable: bool) -> Result<Output, Status> {
    let output = match requests::request(input, serializable) {
        Request::Range(request) => requests::ranged(kv.range(request).await?.into_inner()),
        Request::Put(request) => requests::written(kv.put(request).await?.into_inner()),
        Request::Delete(request) => requests::deleted(kv.delete_range(request).await?.into_inner()),
        Request::Txn(request) => requests::transacted(kv.txn(request).await?.into_inner()),
    };
    output.map_err(Status::data_loss)
}
