//! Watches: who wants to hear of which changes, and what there is to tell.
//!
//! A watch is a place in the history and holds nothing of it. What has changed lately is laid down once for all watches that want the same, a
//! *group*, as it stands in an answer; a watch that has not been told of that any more, because it began in the past or its client reads slowly, reads the
//! history by itself until it is there. So whoever is slow costs no memory and holds up nobody, neither the state nor other watches of
//! its stream.
//!
//! Each client runtime has its own, which only its thread touches. The applier says no more than that there is something new.

mod filter;
mod group;
mod ranges;
mod state;
mod stream;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, MissedTickBehavior, interval_at};

pub use self::filter::{End, Filter};
pub use self::group::Events;
use self::group::StreamId;
use self::state::{State, Turn};
pub use self::stream::{NotCreated, Told, Wanted};
use super::gateway::{Gateway, RequestError};
use super::view::{Agreement, NodeStatus, NodeView, Role, Unready};

/// For how long no leader is known until a stream ends that requires one: three times the time after which one is elected at the latest.
const LEADERLESS: Duration = Duration::from_secs(3);

/// How many answers to requests may wait in a stream before its requests are read on.
const MOST_WAITING: usize = 64;

/// The watches of one client runtime. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Watches {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    gateway: Gateway,
    view: NodeView,
    state: Mutex<State>,
    is_run: AtomicBool,
    opened: Notify,
    progress: Duration,
}

/// One stream of watches. Its watches end with it.
#[derive(Debug)]
pub struct WatchStream {
    shared: Arc<Shared>,
    id: StreamId,
}

impl Watches {
    /// Watches of the state behind `gateway`. Those that want it are told how far they are about every `progress`. One answer takes at most so many bytes.
    pub fn new(gateway: Gateway, view: NodeView, progress: Duration, most_bytes: usize) -> Self {
        let state = Mutex::new(State::new(most_bytes));
        let (is_run, opened) = (AtomicBool::new(false), Notify::new());
        Self { shared: Arc::new(Shared { gateway, view, state, is_run, opened, progress }) }
    }

    /// Opens a stream, on the runtime of now. With `requires_leader` it ends some time after none is known.
    pub fn open(&self, requires_leader: bool) -> WatchStream {
        let id = self.shared.state.lock().open(requires_leader);
        if !self.shared.is_run.swap(true, Ordering::Relaxed) {
            tokio::spawn(run(Arc::clone(&self.shared)));
        }
        self.shared.opened.notify_one();
        WatchStream { shared: Arc::clone(&self.shared), id }
    }
}

impl WatchStream {
    /// Adds a watch. Its ID; none if it is refused.
    pub fn create(&self, wanted: &Wanted) -> Option<i64> {
        self.shared.state.lock().create(self.id, wanted, self.revision())
    }

    /// Says that a watch is not added.
    pub fn refuse(&self, reason: NotCreated) {
        let mut state = self.shared.state.lock();
        if let Some(stream) = state.streams.get_mut(&self.id) {
            stream.say(Told::Created(Err(reason), self.revision()));
        }
    }

    /// Ends a watch, if there is one with this ID.
    pub fn cancel(&self, watch: i64) {
        self.shared.state.lock().cancel(self.id, watch, self.revision());
    }

    /// Asks how far all watches of the stream are.
    pub fn ask_progress(&self) {
        self.shared.state.lock().ask_progress(self.id);
    }

    /// Whether the stream takes another request now.
    pub fn takes_requests(&self) -> bool {
        let state = self.shared.state.lock();
        state.streams.get(&self.id).is_none_or(|stream| stream.control.len() < MOST_WAITING)
    }

    /// What there is to tell next.
    pub fn poll_next(&self, cx: &mut Context<'_>) -> Poll<Told> {
        let mut state = self.shared.state.lock();
        if state.streams.get(&self.id).is_some_and(|stream| stream.asks) {
            // What was acknowledged before it was asked counts.
            state.advance(&self.shared.gateway.store().read());
        }
        match state.turn(self.id, self.shared.gateway.store()) {
            Turn::Told(told) => Poll::Ready(told),
            Turn::Later => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Turn::Nothing => {
                if let Some(stream) = state.streams.get_mut(&self.id) {
                    stream.waits(cx.waker());
                }
                Poll::Pending
            }
        }
    }

    /// The revision of the state.
    fn revision(&self) -> i64 {
        self.shared.gateway.store().read().revision()
    }
}

impl Drop for WatchStream {
    fn drop(&mut self) {
        self.shared.state.lock().close(self.id);
    }
}

/// Lays down what changes, for as long as the runtime lives.
async fn run(shared: Arc<Shared>) {
    let mut standing = shared.view.subscribe();
    let mut leaderless = None;
    let mut ticks = interval_at(Instant::now() + shared.progress, shared.progress);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        if shared.state.lock().streams.is_empty() {
            shared.opened.notified().await;
            continue;
        }
        let mut news = shared.view.news();
        while !shared.state.lock().streams.is_empty() {
            shared.catch_up().await;
            let end = shared.check(&standing.borrow_and_update(), &mut leaderless);
            tokio::select! {
                () = until(end) => {}
                _ = ticks.tick() => shared.state.lock().tell_progress(),
                changed = changed(&mut news, &mut standing) => if !changed { return },
            }
        }
    }
}

/// Waits for news. False at the end of the node.
async fn changed(news: &mut watch::Receiver<i64>, standing: &mut watch::Receiver<Arc<NodeStatus>>) -> bool {
    tokio::select! {
        changed = news.changed() => changed.is_ok(),
        changed = standing.changed() => changed.is_ok(),
    }
}

/// Waits for `end`; for ever if there is none.
async fn until(end: Option<Instant>) {
    match end {
        Some(end) => tokio::time::sleep_until(end).await,
        None => std::future::pending().await,
    }
}

impl Shared {
    /// Lays down all that there is, in pieces.
    async fn catch_up(&self) {
        loop {
            let more = self.state.lock().advance(&self.gateway.store().read());
            if !more {
                return;
            }
            tokio::task::yield_now().await;
        }
    }

    /// Ends what cannot go on as the node stands. When that is to be looked at again.
    fn check(&self, status: &NodeStatus, leaderless: &mut Option<Instant>) -> Option<Instant> {
        if let Some(error) = refusal(status) {
            self.state.lock().end(|_| Some(error.clone()));
            return None;
        }
        if status.leader.is_some() {
            *leaderless = None;
            return None;
        }
        let end = *leaderless.get_or_insert_with(Instant::now) + LEADERLESS;
        if Instant::now() < end {
            return Some(end);
        }
        self.state.lock().end(|stream| stream.requires_leader.then_some(RequestError::NoLeader));
        None
    }
}

/// Why a node as it stands tells of no changes.
fn refusal(status: &NodeStatus) -> Option<RequestError> {
    match status {
        NodeStatus { unready: Some(Unready::Stopping), .. } => Some(RequestError::Stopping),
        NodeStatus { agreement: Agreement::Corrupt(_), .. } => Some(RequestError::Corrupt),
        NodeStatus { role: Role::Waiting | Role::Removed, .. } => Some(RequestError::NotAMember),
        _ => None,
    }
}
