//! Keeps the engine's panics where they are: it takes some errors of a disk for impossible, and its data can be done without.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

thread_local! {
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// The engine has panicked: nothing more is to be asked of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the engine of the state's copy has failed")]
pub struct Panicked;

/// Does `work` in the engine.
pub fn guarded<T>(work: impl FnOnce() -> T) -> Result<T, Panicked> {
    GUARDED.set(true);
    let done = catch_unwind(AssertUnwindSafe(work));
    GUARDED.set(false);
    done.map_err(|_| Panicked)
}

/// Whether a panic of the current thread is the engine's. Every other one is a defect, over which the process ends.
pub fn is_the_engines() -> bool {
    GUARDED.get() || std::thread::current().name().is_some_and(|name| name.starts_with("sled"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_of_the_engine_is_an_error() {
        assert_eq!(guarded(|| 7), Ok(7));
        assert_eq!(guarded(|| assert!(is_the_engines() && 1 > 2, "as the engine does")), Err(Panicked));
        assert!(!is_the_engines());
    }
}
