//! This process, as the others are told of it: which it is of its member's, and how much of its log is durable.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::registry::{CERTAIN, Incarnation, Memory};

/// For how long a process must be told that another one runs as its member, before it ends: the earlier one of the two, and the later one.
/// They differ, so that not both end where each is heard by some.
const GIVES_WAY_AFTER: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(20));

/// Told no more for so long, it counts anew.
const FORGIVEN_AFTER: Duration = Duration::from_secs(4);

/// This process.
#[derive(Debug)]
pub struct OwnProcess {
    identity: Mutex<Own>,
    /// The number of the newest group of writes that is durable.
    durable: AtomicU64,
}

#[derive(Debug)]
struct Own {
    incarnation: Incarnation,
    accounts: u64,
    conflict: Option<Conflict>,
}

/// Another process is heard as this member.
#[derive(Debug, Clone, Copy)]
struct Conflict {
    since: Instant,
    /// When it was said last.
    told: Instant,
    /// It has lasted for so long that people were told.
    is_certain: bool,
}

/// What follows from being refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consequence {
    /// Nothing that is not known already.
    None,
    /// Another process runs as this member, for certain.
    Second,
    /// It does, and this one is to end.
    Ends,
    /// The disk went back in time.
    WentBack,
}

impl OwnProcess {
    /// The `start`th process on its volume, whose log has `durable` groups of writes.
    pub fn new(start: u64, nonce: u64, durable: u64) -> Self {
        let own = Own { incarnation: Incarnation { start, nonce }, accounts: durable, conflict: None };
        OwnProcess { identity: Mutex::new(own), durable: AtomicU64::new(durable) }
    }

    /// Everything up to group `durable` is.
    pub fn persisted(&self, durable: u64) {
        self.durable.store(durable, Ordering::Release);
    }

    /// How many groups are durable. Read when a frame is made: whatever is promised in it is in there.
    pub fn durable(&self) -> u64 {
        self.durable.load(Ordering::Acquire)
    }

    /// Which process it is, and how many groups of writes it accounts for.
    pub fn introduction(&self) -> (Incarnation, u64) {
        let own = self.identity.lock();
        (own.incarnation, own.accounts)
    }

    /// Another member remembers this of this one, and refuses this process for it.
    pub fn refused(&self, memory: &Memory, now: Instant) -> Consequence {
        let mut own = self.identity.lock();
        if memory.is_heard {
            let recent = own.conflict.filter(|conflict| now - conflict.told <= FORGIVEN_AFTER);
            let mut conflict = recent.unwrap_or(Conflict { since: now, told: now, is_certain: false });
            conflict.told = now;
            let lasts = now - conflict.since;
            let is_news = lasts >= Duration::from_millis(CERTAIN) && !conflict.is_certain;
            conflict.is_certain |= is_news;
            own.conflict = Some(conflict);
            let (earlier, later) = GIVES_WAY_AFTER;
            let patience = if own.incarnation < memory.incarnation { earlier } else { later };
            return match (lasts >= patience, is_news) {
                (true, _) => Consequence::Ends,
                (false, true) => Consequence::Second,
                (false, false) => Consequence::None,
            };
        }
        drop(own);
        let is_known = self.accounts_for(memory.incarnation.start, memory.durable);
        if is_known { Consequence::None } else { Consequence::WentBack }
    }

    /// Whether the process is later than start number `start`, and accounts for `durable` groups of writes.
    pub fn accounts_for(&self, start: u64, durable: u64) -> bool {
        let own = self.identity.lock();
        own.incarnation.start > start && own.accounts >= durable
    }

    /// From now on the process is start number `start` of its volume, and accounts for `durable` groups of writes.
    pub fn account_for(&self, start: u64, durable: u64) {
        let mut own = self.identity.lock();
        own.incarnation.start = own.incarnation.start.max(start);
        own.accounts = own.accounts.max(durable);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory(start: u64, durable: u64, is_heard: bool) -> Memory {
        Memory { incarnation: Incarnation { start, nonce: 5 }, durable, term: 3, is_heard }
    }

    #[test]
    fn process_that_went_back_accounts_for_it_once() {
        let own = OwnProcess::new(4, 9, 60);
        let now = Instant::now();
        let remembered = memory(4, 100, false);
        assert_eq!(own.refused(&remembered, now), Consequence::WentBack);
        own.account_for(5, remembered.durable);
        assert_eq!(own.introduction(), (Incarnation { start: 5, nonce: 9 }, 100));
        assert_eq!(own.refused(&remembered, now), Consequence::None);
        assert_eq!(own.refused(&memory(4, 101, false), now), Consequence::WentBack, "another knows of more");
    }

    #[test]
    fn second_process_gives_way_when_it_is_told_for_long_and_the_earlier_one_sooner() {
        let start = Instant::now();
        let told =
            |own: &OwnProcess, second| own.refused(&memory(4, 1, true), start + Duration::from_secs(second));
        for (number, patience) in [(3, 10), (5, 20)] {
            let own = OwnProcess::new(number, 9, 60);
            for second in 0..=patience {
                let follows = match second {
                    // A process whose machine has lost its power is taken for heard for a while, and its successor refused.
                    4 => Consequence::Second,
                    _ if second == patience => Consequence::Ends,
                    _ => Consequence::None,
                };
                assert_eq!(told(&own, second), follows, "process {number}, second {second}");
            }
            // It is not held against it for ever.
            assert_eq!(told(&own, 100), Consequence::None);
        }
    }
}
