//! The second runtime: whatever has to do with ports and is not Raft.
//!
//! The protocol's thread owes heartbeats; accepting, TLS, health checks and metrics owe their clients an answer. They do not wait for one another.

use std::io;
use std::thread::JoinHandle;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

/// The runtime's thread, for as long as this lives.
#[derive(Debug)]
pub(super) struct PortsRuntime {
    handle: Handle,
    thread: JoinHandle<()>,
    end: oneshot::Sender<()>,
}

impl PortsRuntime {
    pub(super) fn start() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (end, ended) = oneshot::channel();
        let thread = std::thread::Builder::new().name("ports".into()).spawn(move || {
            let _ = runtime.block_on(ended);
        })?;
        Ok(PortsRuntime { handle, thread, end })
    }

    /// Ends it, and waits until its ports are closed.
    pub(super) fn end(self) {
        drop(self.end);
        let _ = self.thread.join();
    }

    pub(super) fn handle(&self) -> &Handle {
        &self.handle
    }
}
