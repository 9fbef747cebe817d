//! Being told to stop: SIGTERM, or SIGINT.

use std::io;
use std::time::Duration;

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

/// While the process starts: it serves nobody, owes nobody a word, and what it does to its disk can be cut short anywhere. So it ends at
/// once when it is told to.
#[allow(clippy::exit, reason = "the thread that starts may be waiting for its disk")]
pub(super) async fn end_at_once() -> io::Result<()> {
    Stop::listen()?.told().await;
    tracing::info!("stopping before everything was read");
    std::process::exit(0);
}
