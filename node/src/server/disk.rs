//! The WAL's own thread: nothing else waits for the disk.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use quorate_raft::{Index, Write};

use super::event::Event;
use super::mailbox::Mailbox;
use crate::metrics::Metrics;
use crate::storage::{Wal, WalError};

/// For how long nothing must have been written before a piece of background work is begun: it would hold up the next write.
const IDLE: Duration = Duration::from_millis(5);

/// The queue to the WAL's thread.
///
/// It needs no bound of its own: the protocol limits what is on its way to followers, and gateways limit what waits for it.
#[derive(Debug)]
pub(crate) struct Disk {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    arrived: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    writes: Vec<Write>,
    /// The log before this entry is not needed any more.
    release: Option<Index>,
    stop: bool,
}

impl Disk {
    /// Starts the thread. It reports to `mailbox`.
    pub(crate) fn start(wal: Wal, mailbox: Mailbox, metrics: Metrics) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("wal".into())
            .spawn(move || run(wal, &theirs, &mailbox, &metrics))?;
        Ok(Disk { shared, thread: Some(thread) })
    }

    /// Has `write` made durable, after all before it.
    pub(crate) fn write(&self, write: Write) {
        self.shared.queue.lock().writes.push(write);
        self.shared.arrived.notify_one();
    }

    /// Gives up the log before entry `index`: a snapshot that covers it is durable.
    pub(crate) fn release_before(&self, index: Index) {
        let mut queue = self.shared.queue.lock();
        queue.release = queue.release.max(Some(index));
        self.shared.arrived.notify_one();
    }
}

impl Drop for Disk {
    /// Waits until everything is written.
    fn drop(&mut self) {
        self.shared.queue.lock().stop = true;
        self.shared.arrived.notify_one();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Writes whatever has gathered as one group, again and again.
fn run(mut wal: Wal, shared: &Shared, mailbox: &Mailbox, metrics: &Metrics) {
    let mut group = Vec::new();
    let mut prepared = false;
    while let Some(release) = take(shared, &mut group, prepared) {
        let result = match (group.last(), release) {
            (Some(last), _) => append(&mut wal, &group, metrics).map(|()| {
                mailbox.post(Event::Persisted(last.id));
                prepared = false;
            }),
            (None, Some(_)) => Ok(()),
            // Nothing to write: a piece of the work that makes later writes cheap.
            (None, None) => wal.prepare().map(|more| prepared = !more),
        };
        let result = result.and_then(|()| release.map_or(Ok(()), |index| wal.release_before(index)));
        if let Err(error) = result {
            mailbox.post(Event::DiskFailed(error.to_string()));
            return;
        }
        group.clear();
    }
}

/// Makes a group durable, and measures it.
fn append(wal: &mut Wal, group: &[Write], metrics: &Metrics) -> Result<(), WalError> {
    let (begun, before) = (Instant::now(), wal.bytes_written());
    wal.append(group)?;
    let entries = group.iter().map(|write| write.entries.len()).sum();
    metrics.appended(entries, wal.bytes_written() - before, begun.elapsed());
    Ok(())
}

/// Takes everything that waits, and what of the log may go, if anything. While nothing waits: sleeps, or for a little while only if
/// there is other work. None at the end.
#[allow(clippy::option_option)]
fn take(shared: &Shared, group: &mut Vec<Write>, prepared: bool) -> Option<Option<Index>> {
    let mut queue = shared.queue.lock();
    while queue.writes.is_empty() && queue.release.is_none() && !queue.stop {
        if prepared {
            shared.arrived.wait(&mut queue);
        } else if shared.arrived.wait_for(&mut queue, IDLE).timed_out() {
            break;
        }
    }
    std::mem::swap(&mut queue.writes, group);
    (!group.is_empty() || !queue.stop).then(|| queue.release.take())
}
