//! The snapshots' own thread: neither the replica nor the log waits for them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::doors::event::Event;
use crate::doors::mailbox::Mailbox;
use crate::kv::SnapshotPolicy;
use crate::metrics::Metrics;
use crate::snapshots::{Job, Report, Worker};

/// How fast snapshots are written and read at most, in bytes a second. The disk has the log's writes to do as well: at this pace their
/// tail is what it is without (storage-facts: 255 us against 159 at p99; without a pace, tens of milliseconds).
const PACE: f64 = 200e6;

/// How long a step of a piece takes at least.
fn step_time() -> Duration {
    Duration::from_secs_f64(f64::from(SnapshotPolicy::default().piece_bytes) / PACE)
}

/// The queue to the snapshots' thread. Bounded by what is asked for: one snapshot is taken at a time, one is received, and the replica
/// counts the parts that are read for other members.
#[derive(Debug)]
pub(crate) struct SnapshotThread {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    arrived: Condvar,
    /// Nobody waits for what this member writes to its log.
    in_a_hurry: AtomicBool,
}

#[derive(Debug, Default)]
struct Queue {
    jobs: Vec<Job>,
    stop: bool,
}

impl SnapshotThread {
    /// Starts the thread. It reports to `mailbox`.
    pub(crate) fn start(worker: Worker, mailbox: Mailbox, metrics: Metrics) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("snapshots".into())
            .spawn(move || run(worker, &theirs, &mailbox, &metrics))?;
        Ok(SnapshotThread { shared, thread: Some(thread) })
    }

    /// Whether nobody waits for what this member writes to its log: it has no vote, or lacks the log's beginning and takes no entries in.
    /// Then snapshots need no pace.
    pub(crate) fn hurry(&self, hurries: bool) {
        self.shared.in_a_hurry.store(hurries, Ordering::Relaxed);
    }

    /// Has `jobs` done.
    pub(crate) fn push(&self, jobs: Vec<Job>) {
        if !jobs.is_empty() {
            self.shared.queue.lock().jobs.extend(jobs);
            self.shared.arrived.notify_one();
        }
    }
}

impl Drop for SnapshotThread {
    /// Ends the thread after the piece that it is at. A snapshot that is not finished is taken again after the next start.
    fn drop(&mut self) {
        self.shared.queue.lock().stop = true;
        self.shared.arrived.notify_one();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run(mut worker: Worker, shared: &Shared, mailbox: &Mailbox, metrics: &Metrics) {
    while take(shared, &mut worker) {
        let begun = Instant::now();
        if let Some(report) = worker.step() {
            count(metrics, &report);
            mailbox.post(Event::Snapshot(report));
        }
        if !shared.in_a_hurry.load(Ordering::Relaxed) {
            std::thread::sleep(step_time().saturating_sub(begun.elapsed()));
        }
    }
}

/// Hands the worker what has come; sleeps while there is nothing to do. False at the end.
fn take(shared: &Shared, worker: &mut Worker) -> bool {
    let mut queue = shared.queue.lock();
    while queue.jobs.is_empty() && !queue.stop && !worker.is_busy() {
        shared.arrived.wait(&mut queue);
    }
    queue.jobs.drain(..).for_each(|job| worker.push(job));
    !queue.stop
}

fn count(metrics: &Metrics, report: &Report) {
    match report {
        Report::Taken(manifest) => {
            metrics.snapshots_taken.inc();
            metrics.snapshot_written.inc_by(manifest.bytes());
        }
        Report::Received(manifest, _) | Report::Whole(manifest) => {
            metrics.snapshots_received.inc();
            metrics.snapshot_written.inc_by(manifest.bytes());
        }
        Report::NotTaken(..) | Report::NotReceived(..) => {
            metrics.snapshots_failed.inc();
        }
        Report::Written(..) | Report::Read(..) => {}
    }
}
