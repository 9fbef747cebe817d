//! Clients that write and read all the time, through a port-forward to each pod: a way in that works on any cluster.

use std::net::SocketAddr;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use quorate_tests::clients::{Clients, Notes, Pace};
use quorate_tests::linearizability::kv::{Input, Kv};
use quorate_tests::linearizability::{Time, check, revisions, unanswered};
use quorate_tests::{ports, seed};
use tokio::runtime::Builder;
use tokio::sync::oneshot;

use crate::kubectl::{self, wait_for};

/// Slow enough that minutes of history are checked in seconds.
const PACE: Pace = Pace { clients: 4, rest: Duration::from_millis(150) };

/// Clients at work on a thread of their own, and their ways in.
pub(crate) struct Traffic {
    notes: Arc<Notes>,
    stop: oneshot::Sender<()>,
    worker: JoinHandle<()>,
    ways_in: Vec<WayIn>,
    /// Up to when pauses were told.
    told: Time,
}

impl Traffic {
    /// Starts clients of all of `pods`.
    pub(crate) fn start(namespace: &str, pods: &[&str]) -> Result<Self, String> {
        let ways_in: Vec<_> = pods.iter().map(|pod| WayIn::open(namespace, pod)).collect();
        let addresses: Vec<_> = ways_in.iter().map(|way| way.address).collect();
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| format!("cannot start a runtime: {error}"))?;
        let (stop, stopped) = oneshot::channel();
        let clients =
            runtime.block_on(async { Clients::start(&addresses, &mut seed::random("kubernetes"), PACE) });
        let notes = Arc::clone(&clients.notes);
        let worker = thread::spawn(move || {
            runtime.block_on(async {
                // Dropping the sender says the same.
                let _ = stopped.await;
                clients.stop().await;
            });
        });
        Ok(Self { notes, stop, worker, ways_in, told: 0 })
    }

    /// How many operations were answered so far.
    pub(crate) fn answers(&self) -> usize {
        self.notes.history.answers()
    }

    /// Waits until there are so many answers.
    pub(crate) fn wait_for_answers(&self, wanted: usize, within: Duration) -> Result<(), String> {
        wait_for(&format!("{wanted} answers to the clients"), within, || {
            let answers = self.answers();
            if answers >= wanted { Ok(()) } else { Err(format!("{answers} answers")) }
        })
    }

    /// The longest time in which no write was acknowledged to any client, since this was asked last.
    pub(crate) fn longest_pause(&mut self) -> Duration {
        let history = self.notes.history.history();
        let writes = history.iter().filter(|operation| !matches!(operation.input, Input::Get(_)));
        let mut acknowledged: Vec<Time> = writes.filter_map(|operation| operation.returned).collect();
        acknowledged.sort_unstable();
        let told = self.told;
        let since: Vec<Time> = acknowledged.into_iter().filter(|time| *time >= told).collect();
        self.told = since.last().copied().unwrap_or(told);
        let pauses = since.windows(2).map(|pair| pair[1] - pair[0]);
        Duration::from_nanos(pauses.max().unwrap_or(0))
    }

    /// Ends the clients, and checks all that they saw.
    pub(crate) fn stop_and_check(self) -> Result<(), String> {
        drop(self.stop);
        self.worker
            .join()
            .map_err(|_| "a client was answered with something impossible; it said what".to_owned())?;
        drop(self.ways_in);
        let notes = self.notes;
        let (history, stale) = (notes.history.history(), notes.stale.history());
        println!("  checks {} operations, {} of them answered", history.len(), notes.history.answers());
        revisions::check(&history, &stale).map_err(|broken| broken.to_string())?;
        check(&Kv, &unanswered::tighten(&history)).assert_linearizable();
        Ok(())
    }
}

/// A port-forward to a pod, opened again whenever the pod has been away.
pub(crate) struct WayIn {
    pub(crate) address: SocketAddr,
    closed: Arc<AtomicBool>,
    keeper: Option<JoinHandle<()>>,
}

impl WayIn {
    pub(crate) fn open(namespace: &str, pod: &str) -> Self {
        let address = ports::free();
        let closed = Arc::new(AtomicBool::new(false));
        let (namespace, pod, flag) = (namespace.to_owned(), pod.to_owned(), Arc::clone(&closed));
        let keeper = thread::spawn(move || {
            while !flag.load(Ordering::Relaxed) {
                if let Ok(mut child) = forward(&namespace, &pod, address.port()) {
                    watch(&mut child, &flag);
                }
                thread::sleep(Duration::from_millis(200));
            }
        });
        Self { address, closed, keeper: Some(keeper) }
    }
}

impl Drop for WayIn {
    fn drop(&mut self) {
        self.closed.store(true, Ordering::Relaxed);
        if let Some(keeper) = self.keeper.take() {
            // It only waits and restarts: it has nothing to say.
            let _ = keeper.join();
        }
    }
}

fn forward(namespace: &str, pod: &str, port: u16) -> std::io::Result<Child> {
    let mut command = kubectl::command();
    command.args(["port-forward", "--namespace", namespace, &format!("pod/{pod}"), &format!("{port}:2379")]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()
}

/// Until the child ends by itself, or has to.
fn watch(child: &mut Child, closed: &AtomicBool) {
    while !closed.load(Ordering::Relaxed) {
        if !matches!(child.try_wait(), Ok(None)) {
            return;
        }
        thread::sleep(Duration::from_millis(100));
    }
    let _ = child.kill();
    let _ = child.wait();
}
