//! The copy's own thread: writes behind the state, and is in nobody's way.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::copy::{self, EngineError, Keeper, Kept};

/// How often it looks whether there is something to write.
const LOOK: Duration = Duration::from_secs(1);

/// So many versions are worth a write; fewer wait until the oldest of them is this old. A write costs an fsync beside the log's.
const WORTH: u64 = 16 << 10;
const OLDEST: Duration = Duration::from_secs(20);

/// A rest after each step, so that the log has the disk for most of the time.
const REST: Duration = Duration::from_millis(4);

/// How long it leaves an engine alone that has failed.
const PAUSE: Duration = Duration::from_mins(1);

/// How long the end of the process waits for the copy.
const LAST: Duration = Duration::from_secs(2);

/// The thread.
#[derive(Debug)]
pub(crate) struct CopyThread {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: Mutex<bool>,
    stopped: Condvar,
    /// The disk has no room for a copy.
    suspended: AtomicBool,
}

impl CopyThread {
    /// Starts the thread.
    pub(crate) fn start(keeper: Keeper, dir: PathBuf) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("copy".into())
            .spawn(move || run_guarded(keeper, &dir, &theirs))?;
        Ok(CopyThread { shared, thread: Some(thread) })
    }

    /// While the disk is full there is no copy: it can be made anew, and the room is for the log.
    pub(crate) fn suspend(&self, suspended: bool) {
        self.shared.suspended.store(suspended, Ordering::Relaxed);
    }
}

impl Drop for CopyThread {
    /// Brings the copy up to date, if that does not take long.
    fn drop(&mut self) {
        *self.shared.stop.lock() = true;
        self.shared.stopped.notify_one();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    /// Rests. Whether there is time and room for more.
    fn goes_on(&self) -> bool {
        !self.stops_within(REST) && !self.suspended.load(Ordering::Relaxed)
    }

    /// Whether the process ends within `time`.
    fn stops_within(&self, time: Duration) -> bool {
        let mut stop = self.stop.lock();
        if !*stop {
            self.stopped.wait_for(&mut stop, time);
        }
        *stop
    }
}

/// The engine may fail in a way that it does not tell: then there is no copy until the next start.
fn run_guarded(keeper: Keeper, dir: &Path, shared: &Shared) {
    let state = Arc::clone(keeper.state());
    if copy::guarded(|| run(keeper, dir, shared)).is_err() {
        state.write().end_copy();
        tracing::error!("the copy of the state is given up until the next start");
    }
}

fn run(mut keeper: Keeper, dir: &Path, shared: &Shared) {
    // At once, however little: an engine that cannot be written to is not to be read again.
    let begun = write(&mut keeper, || shared.goes_on()).and_then(|()| copy::settled(dir));
    if let Err(error) = begun {
        tracing::warn!(%error, "there is no copy of the state");
    }
    let mut lags_since = None;
    while !shared.stops_within(LOOK) {
        if shared.suspended.load(Ordering::Relaxed) {
            if let Err(error) = keeper.give_up() {
                tracing::debug!(%error, "the copy of the state stays where it is");
            }
            continue;
        }
        let lag = keeper.lag();
        let since = *lags_since.get_or_insert_with(Instant::now);
        if lag == 0 || (lag < WORTH && since.elapsed() < OLDEST) {
            lags_since = lags_since.filter(|_| lag > 0);
            continue;
        }
        lags_since = None;
        if let Err(error) = write(&mut keeper, || shared.goes_on()) {
            tracing::warn!(%error, "the copy of the state is behind");
            shared.stops_within(PAUSE);
        }
    }
    if shared.suspended.load(Ordering::Relaxed) {
        return;
    }
    let end = Instant::now() + LAST;
    if let Err(error) = write(&mut keeper, || Instant::now() < end) {
        tracing::debug!(%error, "the copy of the state stays behind");
    }
}

/// Writes until all is written, or `goes_on` says no.
fn write(keeper: &mut Keeper, goes_on: impl Fn() -> bool) -> Result<(), EngineError> {
    while keeper.step()? == Kept::More && goes_on() {}
    Ok(())
}
