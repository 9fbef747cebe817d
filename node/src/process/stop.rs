//! Being told to stop: SIGTERM, or SIGINT.

use std::io;
use std::time::Duration;

use super::log;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Hears what is said from the moment that this is made. A process with the number 1, as in a container, would not be ended by a signal that
/// nobody waits for.
#[derive(Debug)]
pub(super) struct Stop {
    terminate: Signal,
    interrupt: Signal,
}

impl Stop {
    /// Inside a runtime.
    pub(super) fn listen() -> io::Result<Self> {
        Ok(Stop { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Returns when the process is told to stop.
    pub(super) async fn told(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    /// Waits for `delay`. Whether the process is told, or told once more, meanwhile: then it returns at once.
    pub(super) async fn told_again_within(&mut self, delay: Duration) -> bool {
        tokio::time::timeout(delay, self.told()).await.is_ok()
    }
}

/// Ends the process at once when it is told to stop, and says `why`. While it starts it serves nobody, and owes nobody a word; and one that is
/// told a second time has had its chance to finish. What it does to its disk can be cut short anywhere.
#[allow(clippy::exit, reason = "the thread that starts, or stops, may be waiting for its disk")]
pub(super) async fn end_at_once(why: &'static str) -> io::Result<()> {
    Stop::listen()?.told().await;
    tracing::info!("{why}");
    log::flush();
    std::process::exit(0);
}
