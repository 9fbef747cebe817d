//! The applier's own thread: the loop does not wait for the state.
//!
//! Its answers go straight to the client runtimes, and what the loop has to know of them follows: a write costs one wake-up more than if
//! the loop applied it, and that one only after an fsync. An answer is left after the step whose state it tells of, so whoever has it
//! reads what it wrote.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::timing::TICK;
use crate::doors::event::Event;
use crate::doors::gateway::{Answers, Numbers};
use crate::doors::mailbox::Mailbox;
use crate::doors::view::NodeView;
use crate::kv::Collected;
use crate::replica::{Answer, Applier, Outcome, Step, Work};

/// How often some of what compactions have left is removed.
const COLLECTS_EVERY: Duration = TICK;

/// The queue to the applier's thread. What waits in it stands in the log as well, and is bounded by what the replica admits
/// ([`crate::replica::Backlog`]).
#[derive(Debug)]
pub(crate) struct ApplyThread {
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
    work: Vec<Work>,
    stop: bool,
}

impl ApplyThread {
    /// Starts the thread. It answers at `gateways`, shows in `view` how far the state has come, and reports to `mailbox`.
    pub(crate) fn start(
        applier: Applier,
        gateways: Vec<Answers>,
        view: NodeView,
        mailbox: Mailbox,
    ) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        let gateways =
            gateways.into_iter().map(|answers| Gateway { answers, gathered: Vec::new() }).collect();
        let mut runner = Runner {
            applier,
            gateways,
            view,
            mailbox,
            collected: Instant::now(),
            rubbish: true,
            waits: false,
        };
        let thread = std::thread::Builder::new().name("apply".into()).spawn(move || runner.run(&theirs))?;
        Ok(ApplyThread { shared, thread: Some(thread) })
    }

    /// Has `work` done, after all before it.
    pub(crate) fn push(&self, mut work: Vec<Work>) {
        if work.is_empty() {
            return;
        }
        let mut queue = self.shared.queue.lock();
        let first = queue.work.is_empty();
        queue.work.append(&mut work);
        drop(queue);
        // Whoever finds other work there knows that the thread has been woken for that, or is not asleep.
        if first {
            self.shared.arrived.notify_one();
        }
    }
}

impl Drop for ApplyThread {
    /// Ends the thread after the step that it is at. What is not applied is applied again at the next start.
    fn drop(&mut self) {
        self.shared.queue.lock().stop = true;
        self.shared.arrived.notify_one();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What the thread works with.
struct Runner {
    applier: Applier,
    /// By the number of the runtime.
    gateways: Vec<Gateway>,
    view: NodeView,
    mailbox: Mailbox,
    /// When some of what compactions have left was removed last.
    collected: Instant,
    /// There may be more of that.
    rubbish: bool,
    /// A snapshot is waited for.
    waits: bool,
}

/// Where one runtime's answers go, and those gathered for it.
struct Gateway {
    answers: Answers,
    gathered: Vec<Answer>,
}

impl Runner {
    fn run(&mut self, shared: &Shared) {
        while self.take(shared) {
            let waits = self.applier.is_busy() && self.applier.waits_for_snapshot();
            if waits && !self.waits {
                tracing::warn!(
                    "what was compacted takes too much memory while a snapshot needs it (a quarter of --quota-bytes): applies nothing before \
                     that is written"
                );
            }
            self.waits = waits;
            if self.applier.is_busy() {
                // Who waits does not stand still.
                let step = if waits { self.applier.rest() } else { self.applier.step() };
                self.report(step);
            }
            if self.collected.elapsed() >= COLLECTS_EVERY {
                self.rubbish = self.applier.collect() != Collected::All;
                self.collected = Instant::now();
            }
        }
    }

    /// Hands the applier what has come; sleeps while there is nothing to do. False at the end.
    fn take(&mut self, shared: &Shared) -> bool {
        let has_nothing_to_do = !self.applier.is_busy() || self.applier.waits_for_snapshot();
        let mut queue = shared.queue.lock();
        while queue.work.is_empty() && !queue.stop && has_nothing_to_do {
            if !self.rubbish {
                shared.arrived.wait(&mut queue);
            } else if shared.arrived.wait_for(&mut queue, COLLECTS_EVERY).timed_out() {
                break;
            }
        }
        self.applier.push(std::mem::take(&mut queue.work));
        !queue.stop
    }

    /// Tells of a step: clients first.
    fn report(&mut self, step: Step) {
        let Step { answers, revision, applied } = step;
        self.view.publish_applied(applied.id.index, revision);
        self.view.publish_state_bytes(applied.usage.bytes);
        let runtimes = self.gateways.len();
        for (number, result) in answers {
            let client = Numbers::client(number, runtimes);
            self.gateways[client.0].gathered.push(Answer {
                client,
                number,
                outcome: Outcome::Applied(result),
            });
        }
        for Gateway { answers, gathered } in &mut self.gateways {
            if !gathered.is_empty() {
                answers.post(gathered);
            }
        }
        // Compactions, and snapshots that ended, come this way too.
        self.rubbish = true;
        self.mailbox.post(Event::Applied(applied));
    }
}
