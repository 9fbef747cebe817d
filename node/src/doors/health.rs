//! Whether the process works, from its first moment on: for whoever decides to restart it.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::view::NodeView;

/// The loop moves every 20 ms. One that has not moved for so long stands still: longer than a machine that is merely busy takes, shorter
/// than the patience of whoever asks.
pub const STANDSTILL: Duration = Duration::from_secs(5);

/// An applier that has work, and makes no step for so long, will make none any more. It may have to wait for memory, or for its turn on a
/// machine that is overloaded; a restart would have to do the same work again.
pub const STUCK: Duration = Duration::from_mins(1);

/// The health of a process. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Health {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    begun: Instant,
    /// When the loop moved last, in milliseconds since then. Zero before it has begun.
    moved: AtomicU64,
    /// For how long the applier had made no step then, though it had work, in milliseconds.
    applier_still: AtomicU64,
    view: OnceLock<NodeView>,
    serves: AtomicBool,
}

impl Default for Health {
    fn default() -> Self {
        let shared = Shared {
            begun: Instant::now(),
            moved: AtomicU64::new(0),
            applier_still: AtomicU64::new(0),
            view: OnceLock::new(),
            serves: AtomicBool::new(false),
        };
        Health { shared: Arc::new(shared) }
    }
}

impl Health {
    /// The loop has moved.
    pub fn moves(&self) {
        let now = self.shared.begun.elapsed().as_millis() as u64;
        self.shared.moved.store(now.max(1), Ordering::Relaxed);
    }

    /// For how long the loop has not moved. None before it has begun: reading a long log takes its time.
    pub fn still_for(&self) -> Option<Duration> {
        let moved = self.shared.moved.load(Ordering::Relaxed);
        let now = self.shared.begun.elapsed();
        (moved > 0).then(|| now.saturating_sub(Duration::from_millis(moved)))
    }

    /// Whether the loop stands still.
    pub fn stands_still(&self) -> bool {
        self.still_for().is_some_and(|still| still >= STANDSTILL)
    }

    /// The applier has made no step for so long, though it has work.
    pub fn applier_stands_still(&self, still: Duration) {
        self.shared.applier_still.store(still.as_millis() as u64, Ordering::Relaxed);
    }

    /// For how long the applier has made no step, if it will make none any more.
    pub fn applier_stuck_for(&self) -> Option<Duration> {
        let still = Duration::from_millis(self.shared.applier_still.load(Ordering::Relaxed));
        (still >= STUCK).then_some(still)
    }

    /// The log has been read: this is what the node shows from now on.
    pub fn shows(&self, view: NodeView) {
        let _ = self.shared.view.set(view);
    }

    /// What the node shows. None while it reads its log.
    pub fn view(&self) -> Option<&NodeView> {
        self.shared.view.get()
    }

    /// All ports are open.
    pub fn serves(&self) {
        self.shared.serves.store(true, Ordering::Release);
    }

    /// Whether the log is read and the ports are open.
    pub fn has_started(&self) -> bool {
        self.shared.serves.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_that_has_not_begun_does_not_stand_still() {
        let health = Health::default();
        assert!(health.still_for().is_none() && !health.stands_still());
        health.moves();
        assert!(health.still_for().is_some() && !health.stands_still());
    }

    #[test]
    fn applier_is_stuck_after_a_minute_without_a_step() {
        let health = Health::default();
        health.applier_stands_still(STUCK.saturating_sub(Duration::from_millis(20)));
        assert_eq!(health.applier_stuck_for(), None);
        health.applier_stands_still(STUCK);
        assert_eq!(health.applier_stuck_for(), Some(STUCK));
        health.applier_stands_still(Duration::ZERO);
        assert_eq!(health.applier_stuck_for(), None);
    }
}
