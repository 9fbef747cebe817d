//! What goes wrong.

use std::io;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::io::Errno;

/// How often something fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Times {
    /// The next one; those after it succeed, as they do on Linux.
    Once,
    /// Until it is healed.
    Always,
}

/// The switches of one disk. All of them work at once, on what is under way too.
#[derive(Debug, Default)]
pub struct Faults {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Clone, Copy, Default)]
struct State {
    stalled: bool,
    slow: Duration,
    failing: Option<Times>,
    /// Bytes by which files may still grow; none for as many as there are.
    room: Option<u64>,
    /// Nothing can be opened.
    no_descriptors: bool,
    /// Bytes that are written in a second; none for as many as can be.
    bandwidth: Option<u64>,
    /// Until when it is busy with what it has taken in at that pace.
    busy_until: Option<Instant>,
    counters: Counters,
}

#[derive(Debug, Clone, Copy, Default)]
struct Counters {
    held_up: usize,
    failed: usize,
    refused: usize,
    not_opened: usize,
}

/// What a process asks of the disk itself; everything else is answered from memory, as ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// Of so many bytes.
    Write(usize),
    Sync,
}

impl Faults {
    /// Syncs fail, and what they were for is lost.
    pub fn fail_syncs(&self, times: Times) {
        self.change(|state| state.failing = Some(times));
    }

    /// Writes and syncs are not answered until it is healed.
    pub fn stall(&self) {
        self.change(|state| state.stalled = true);
    }

    /// Every sync takes longer by so much.
    pub fn slow_syncs(&self, by: Duration) {
        self.change(|state| state.slow = by);
    }

    /// Files may grow by this many bytes, and by what is removed, and no more.
    pub fn fill_up(&self, room: u64) {
        self.change(|state| state.room = Some(room));
    }

    /// No file and no directory can be opened: the process that tries has no descriptor left (EMFILE).
    pub fn take_descriptors(&self) {
        self.change(|state| state.no_descriptors = true);
    }

    /// So many bytes are written in a second at most.
    pub fn limit_bandwidth(&self, bytes: u64) {
        self.change(|state| state.bandwidth = Some(bytes));
    }

    /// All is well from now on, also for those that have been waiting.
    pub fn heal(&self) {
        self.change(|state| *state = State { counters: state.counters, ..State::default() });
    }

    /// How many syncs have failed so far.
    pub fn failed(&self) -> usize {
        self.state().counters.failed
    }

    /// How often there was no room so far.
    pub fn refused(&self) -> usize {
        self.state().counters.refused
    }

    /// How often something could not be opened so far.
    pub fn not_opened(&self) -> usize {
        self.state().counters.not_opened
    }

    /// How many writes and syncs are waiting now.
    pub fn held_up(&self) -> usize {
        self.state().counters.held_up
    }

    /// The room that is left, if it is limited.
    pub(super) fn room(&self) -> Option<u64> {
        self.state().room
    }

    /// Whether `access` would have to wait now.
    pub(super) fn hold_up(&self, access: Access) -> bool {
        let state = self.state();
        state.delay(access).is_some() || (state.bandwidth.is_some() && access != Access::Sync)
    }

    /// Waits for as long as a fault wants.
    pub(super) fn wait(&self, access: Access) {
        let begun = Instant::now();
        let mut state = self.state();
        state.counters.held_up += 1;
        let busy = state.occupy(access, begun);
        while let Some(delay) = state.due(access, busy).checked_sub(begun.elapsed()).filter(|d| !d.is_zero())
        {
            let waited = self.changed.wait_timeout(state, delay);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        state.counters.held_up -= 1;
    }

    /// Whether this sync fails.
    pub(super) fn fails(&self) -> bool {
        let mut state = self.state();
        let fails = state.failing.is_some();
        if state.failing == Some(Times::Once) {
            state.failing = None;
        }
        state.counters.failed += usize::from(fails);
        fails
    }

    /// A file or directory is to be opened.
    pub(super) fn opens(&self) -> io::Result<()> {
        let mut state = self.state();
        if !state.no_descriptors {
            return Ok(());
        }
        state.counters.not_opened += 1;
        Err(Errno::MFILE.into())
    }

    /// A file is to grow.
    pub(super) fn take_room(&self, bytes: u64) -> io::Result<()> {
        let mut state = self.state();
        let Some(room) = state.room else { return Ok(()) };
        let Some(left) = room.checked_sub(bytes) else {
            state.counters.refused += 1;
            return Err(Errno::NOSPC.into());
        };
        state.room = Some(left);
        Ok(())
    }

    /// A file has shrunk, or is gone.
    pub(super) fn give_room(&self, bytes: u64) {
        let mut state = self.state();
        state.room = state.room.map(|room| room.saturating_add(bytes));
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        self.changed.notify_all();
    }

    // A test that has panicked still needs its disk to end.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Takes a write in, behind those that are under way, and returns how long it takes from now on.
    fn occupy(&mut self, access: Access, now: Instant) -> Duration {
        let (Access::Write(bytes), Some(bandwidth)) = (access, self.bandwidth) else { return Duration::ZERO };
        let begins = self.busy_until.map_or(now, |busy| busy.max(now));
        let ends = begins + Duration::from_secs_f64(bytes as f64 / bandwidth as f64);
        self.busy_until = Some(ends);
        ends - now
    }

    /// How long an access takes that was found to keep the disk `busy` for so long.
    fn due(&self, access: Access, busy: Duration) -> Duration {
        let busy = if self.bandwidth.is_some() { busy } else { Duration::ZERO };
        self.delay(access).unwrap_or_default().max(busy)
    }

    fn delay(&self, access: Access) -> Option<Duration> {
        /// Whoever is healed is woken; nobody waits as long as this.
        const FOREVER: Duration = Duration::from_hours(24);
        if self.stalled {
            return Some(FOREVER);
        }
        (access == Access::Sync && !self.slow.is_zero()).then_some(self.slow)
    }
}
