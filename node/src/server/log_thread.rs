//! The WAL's own thread: nothing else waits for the disk.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use quorate_raft::{Index, Write};

use super::disk_space::DiskSpace;
use crate::doors::event::Event;
use crate::doors::mailbox::Mailbox;
use crate::metrics::Metrics;
use crate::storage::{Wal, WalError};

/// For how long nothing must have been written before a piece of background work is begun: it would hold up the next write.
const IDLE: Duration = Duration::from_millis(5);

/// How often it is looked how much room the disk has.
const LOOK: Duration = Duration::from_secs(1);

/// The queue to the WAL's thread.
///
/// It needs no bound of its own: the protocol limits what is on its way to followers, and gateways limit what waits for it.
#[derive(Debug)]
pub(crate) struct LogThread {
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
    /// What the next snapshot is going to take, in bytes.
    snapshot: u64,
    stop: bool,
}

impl LogThread {
    /// Starts the thread. It reports to `mailbox`.
    pub(crate) fn start(wal: Wal, dir: PathBuf, mailbox: Mailbox, metrics: Metrics) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        let mut writer = Writer { wal, disk_space: DiskSpace::new(dir), mailbox, metrics, prepared: false };
        let thread = std::thread::Builder::new().name("wal".into()).spawn(move || writer.run(&theirs))?;
        Ok(LogThread { shared, thread: Some(thread) })
    }

    /// Has `write` made durable, after all before it.
    pub(crate) fn write(&self, write: Write) {
        self.shared.queue.lock().writes.push(write);
        self.shared.arrived.notify_one();
    }

    /// The newest snapshot has so many bytes: the next one needs as much room.
    pub(crate) fn next_snapshot(&self, bytes: u64) {
        self.shared.queue.lock().snapshot = bytes;
    }

    /// Gives up the log before entry `index`: a snapshot that covers it is durable.
    pub(crate) fn release_before(&self, index: Index) {
        let mut queue = self.shared.queue.lock();
        queue.release = queue.release.max(Some(index));
        self.shared.arrived.notify_one();
    }
}

impl Drop for LogThread {
    /// Waits until everything is written.
    fn drop(&mut self) {
        self.shared.queue.lock().stop = true;
        self.shared.arrived.notify_one();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What the thread works with.
struct Writer {
    wal: Wal,
    disk_space: DiskSpace,
    mailbox: Mailbox,
    metrics: Metrics,
    /// There is no other work: the next segment is ready.
    prepared: bool,
}

/// What there is to do.
struct Work {
    group: Vec<Write>,
    release: Option<Index>,
    snapshot: u64,
}

impl Writer {
    /// Writes whatever has gathered as one group, again and again.
    fn run(&mut self, shared: &Shared) {
        let mut group = Vec::new();
        while let Some(mut work) = take(shared, std::mem::take(&mut group), self.prepared) {
            if let Err(error) = self.perform(&work) {
                self.mailbox.post(Event::DiskFailed(error.to_string()));
                return;
            }
            if let Some(room) = self.disk_space.read(self.wal.room(), work.snapshot) {
                self.mailbox.post(Event::Room(room));
            }
            work.group.clear();
            group = work.group;
        }
    }

    fn perform(&mut self, work: &Work) -> Result<(), WalError> {
        match work.group.last() {
            Some(last) => {
                self.append(&work.group)?;
                self.mailbox.post(Event::Persisted(last.id));
                self.prepared = false;
            }
            // Nothing to write: a piece of the work that makes later writes cheap.
            None if work.release.is_none() => self.prepared = !self.wal.prepare()?,
            None => {}
        }
        work.release.map_or(Ok(()), |index| self.wal.release_before(index))
    }

    /// Makes a group durable, and measures it.
    fn append(&mut self, group: &[Write]) -> Result<(), WalError> {
        let (begun, before) = (Instant::now(), self.wal.bytes_written());
        self.wal.append(group)?;
        let entries = group.iter().map(|write| write.entries.len()).sum();
        self.metrics.appended(entries, self.wal.bytes_written() - before, begun.elapsed());
        Ok(())
    }
}

/// Takes everything that waits, into `group`, which is empty. While nothing waits: sleeps, for a little while only if there is other
/// work. None at the end.
fn take(shared: &Shared, mut group: Vec<Write>, prepared: bool) -> Option<Work> {
    let mut queue = shared.queue.lock();
    while queue.writes.is_empty() && queue.release.is_none() && !queue.stop {
        // A disk that was full is tried again with every look.
        if shared.arrived.wait_for(&mut queue, if prepared { LOOK } else { IDLE }).timed_out() {
            break;
        }
    }
    std::mem::swap(&mut queue.writes, &mut group);
    let work = Work { release: queue.release.take(), snapshot: queue.snapshot, group };
    (!work.group.is_empty() || !queue.stop).then_some(work)
}
