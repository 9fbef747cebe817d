//! The WAL's own thread: nothing else waits for the disk.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use quorate_raft::{Index, Write};

use super::disk_space::DiskSpace;
use super::write_queue::{Durable, Group, WriteQueue};
use crate::doors::event::Event;
use crate::doors::mailbox::Mailbox;
use crate::metrics::Metrics;
use crate::peer::OwnProcess;
use crate::storage::{Wal, WalError};

/// For how long nothing must have been written before a piece of background work is begun: it would hold up the next write.
const IDLE: Duration = Duration::from_millis(5);

/// How often it is looked how much room the disk has.
const LOOK: Duration = Duration::from_secs(1);

/// How soon a group is tried again for which no file could be opened.
const RETRY: Duration = Duration::from_millis(100);

/// The queue to the WAL's thread. What bounds it: see [`super::write_queue`].
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
    writes: WriteQueue,
    /// The log before this entry is not needed any more.
    release: Option<Index>,
    /// What the next snapshot is going to take, in bytes.
    snapshot: u64,
    stop: bool,
}

impl LogThread {
    /// Starts the thread. It reports to `mailbox`, and tells `process` how much is durable.
    pub(crate) fn start(
        wal: Wal,
        dir: PathBuf,
        mailbox: Mailbox,
        metrics: Metrics,
        process: Arc<OwnProcess>,
    ) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        let mut writer =
            Writer { wal, disk_space: DiskSpace::new(dir), mailbox, metrics, process, prepared: false };
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
    process: Arc<OwnProcess>,
    /// There is no other work: the next segment is ready.
    prepared: bool,
}

/// What there is to do.
struct Work {
    group: Option<Group>,
    release: Option<Index>,
    snapshot: u64,
}

impl Writer {
    /// Writes what has gathered, group by group, again and again.
    fn run(&mut self, shared: &Shared) {
        while let Some(mut work) = take(shared, self.wal.group_bytes(), self.prepared) {
            if let Err(error) = self.perform(&mut work, shared) {
                self.mailbox.post(Event::DiskFailed(error.to_string()));
                return;
            }
            if let Some(room) = self.disk_space.read(self.wal.room(), work.snapshot) {
                self.mailbox.post(Event::Room(room));
            }
        }
    }

    fn perform(&mut self, work: &mut Work, shared: &Shared) -> Result<(), WalError> {
        match work.group.take() {
            Some(Group { writes, durable }) => {
                self.patiently(shared, |writer| writer.append(&writes))?;
                // Before anything can be sent that rests on it.
                self.process.persisted(self.wal.sequence());
                self.mailbox.post(match durable {
                    Durable::Write(id) => Event::Persisted(id),
                    Durable::Part(id, index) => Event::PersistedPart(id, index),
                });
                self.prepared = false;
            }
            // Nothing to write: a piece of the work that makes later writes cheap.
            None if work.release.is_none() => self.prepared = !self.wal.prepare()?,
            None => {}
        }
        let Some(index) = work.release else { return Ok(()) };
        self.patiently(shared, |writer| writer.wal.release_before(index))
    }

    /// Makes a group durable, and measures it.
    fn append(&mut self, group: &[Write]) -> Result<(), WalError> {
        let (begun, before) = (Instant::now(), self.wal.bytes_written());
        self.wal.append(group)?;
        let entries = group.iter().map(|write| write.entries.len()).sum();
        self.metrics.appended(entries, self.wal.bytes_written() - before, begun.elapsed());
        Ok(())
    }

    /// Does what may need the next segment's file. While there is no descriptor for that it waits: nothing was written, and to the
    /// protocol the disk hangs. At the end of the process it does not.
    fn patiently(
        &mut self,
        shared: &Shared,
        work: impl Fn(&mut Self) -> Result<(), WalError>,
    ) -> Result<(), WalError> {
        let mut told = false;
        loop {
            match work(self) {
                Err(error @ WalError::NoDescriptors { .. }) if !shared.queue.lock().stop => {
                    if !std::mem::replace(&mut told, true) {
                        tracing::error!(%error, "the log waits for a descriptor, and takes nothing before");
                    }
                    std::thread::sleep(RETRY);
                }
                done => return done,
            }
        }
    }
}

/// Takes what waits: a group of at most so many bytes. While nothing waits: sleeps, for a little while only if there is other work. None
/// at the end.
fn take(shared: &Shared, bytes: usize, prepared: bool) -> Option<Work> {
    let mut queue = shared.queue.lock();
    while queue.writes.is_empty() && queue.release.is_none() && !queue.stop {
        // A disk that was full is tried again with every look.
        if shared.arrived.wait_for(&mut queue, if prepared { LOOK } else { IDLE }).timed_out() {
            break;
        }
    }
    let group = queue.writes.take(bytes);
    // What is released was applied, so it is durable: it waits for nothing that still stands in the queue.
    let work = Work { release: queue.release.take(), snapshot: queue.snapshot, group };
    (work.group.is_some() || !queue.stop).then_some(work)
}
