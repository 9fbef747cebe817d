//! Which process speaks as which member, and what each has promised to be durable: how a copy of a data directory, and a disk that went
//! back in time, are told from a restart.
//!
//! A member lives on its volume, and each start of a process there is numbered on it, durably, before the process says anything. So of
//! two processes of one member the later one says a greater number; two that start from copies of the same volume say the same, and are
//! told apart by what they drew at random ([`Incarnation`]). With every frame a process tells how much of its log is durable, as the number of
//! the newest group of writes: whatever it promises in that frame is in there. Whoever receives that remembers it for as long as its own
//! process lives.
//!
//! A stream begins with the sender's incarnation, and with how many groups of writes it *accounts for*: those that were durable when it
//! started, or more if it has learned that it has lost some. The receiver takes it, unless
//!
//! - **another process is heard as that member**, by a frame within [`HEARD`]. Whoever is heard stays: a copy that is started by mistake takes
//!   nothing over. A process that was killed is not heard, as its connections are closed with it; one whose machine lost its power is not
//!   after [`HEARD`]. So a second process is told of to people only when it has been refused for longer, [`CERTAIN`];
//! - **it went back in time**: a later process, or one that accounts for more, was heard before. The volume is an older copy of itself, or one
//!   of the two is a copy of the other. It is told what is remembered of it, and starts anew as a member that has forgotten what it
//!   promised ([`quorate_raft::Raft::went_back`]); when it accounts for that, it is taken.
//!
//! A process of a build that counts no starts says nothing of that kind. It is taken unless another one is heard, and what is remembered of its
//! member stays: an upgrade can be taken back.
//!
//! Nothing that a refused process says gets through, its votes and acknowledgements included. So whatever a member has promised *to this process*
//! it cannot take back behind its back. What it has promised to others only they remember: if they are off, or were started since, nobody can
//! tell. Two processes that run at the same time, each heard by another part of a network that is parted, are told apart when it is
//! whole again.

use std::collections::BTreeMap;

use quorate_raft::{MemberId, Term};

/// How long a process counts as heard after a frame of it has come, in milliseconds, while its stream is open.
pub const HEARD: u64 = 2000;

/// For how long a second process must have been refused before it is spoken of, in milliseconds: by then the one that it was taken for is
/// heard, and not only not known to be gone.
pub const CERTAIN: u64 = 2 * HEARD;

/// The greatest number of a start that is believed: nobody starts a process so often.
pub const MOST_STARTS: u64 = 1 << 40;

/// The greatest number of groups of writes that is believed: more than a disk writes in a century.
pub const MOST_GROUPS: u64 = 1 << 48;

/// The most members of which something is remembered that are in no configuration: whoever may speak at the peer port can name any number.
const MOST_STRANGERS: usize = 64;

/// One process of a member. The later one is the greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Incarnation {
    /// The number of the start, counted on the volume. 0 for a process that counts none.
    pub start: u64,
    /// Drawn at random by the process: two of one number are copies. A process that learns that it has forgotten an earlier one takes a later number,
    /// and is known by this as the same.
    pub nonce: u64,
}

/// How a process introduces itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Introduction {
    /// As which member.
    pub from: MemberId,
    /// Which process.
    pub incarnation: Incarnation,
    /// How many groups of writes it accounts for.
    pub accounts: u64,
}

/// What is remembered of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Memory {
    /// Its latest process.
    pub incarnation: Incarnation,
    /// How many groups of writes it has told to be durable.
    pub durable: u64,
    /// The latest term in which it has spoken.
    pub term: Term,
    /// It is heard: the process that is told this is a second one.
    pub is_heard: bool,
}

/// What one process remembers of all members.
#[derive(Debug, Clone, Default)]
pub struct Registry {
    known: BTreeMap<MemberId, Known>,
    /// The number of the newest stream, of all members.
    streams: u64,
}

#[derive(Debug, Clone, Default)]
struct Known {
    memory: Memory,
    /// The newest stream, while it is open.
    stream: Option<Stream>,
    /// When the newest frame came, in milliseconds of this process.
    heard: u64,
}

#[derive(Debug, Clone)]
struct Stream {
    number: u64,
    process: Incarnation,
}

impl Known {
    /// Whether another process than this one is heard.
    fn hears_another(&self, process: Incarnation, now: u64) -> bool {
        let is_another = self.stream.as_ref().is_some_and(|stream| stream.process.nonce != process.nonce);
        is_another && now.saturating_sub(self.heard) < HEARD
    }

    fn has_stream(&self, number: u64) -> bool {
        self.stream.as_ref().is_some_and(|stream| stream.number == number)
    }
}

impl Registry {
    /// A stream begins at `now` (milliseconds). Returns its number, or what is remembered instead of taking it.
    pub fn introduce(&mut self, now: u64, introduction: Introduction) -> Result<u64, Memory> {
        let Introduction { from, incarnation, accounts } = introduction;
        let known = self.known.entry(from).or_default();
        if known.hears_another(incarnation, now) {
            return Err(Memory { is_heard: true, ..known.memory });
        }
        if incarnation != Incarnation::default() {
            let latest = known.memory.incarnation;
            let is_another = incarnation.nonce != latest.nonce;
            if incarnation.start < latest.start || (is_another && accounts < known.memory.durable) {
                return Err(known.memory);
            }
            if is_another {
                known.memory.durable = 0;
            }
            known.memory.incarnation = incarnation;
        }
        self.streams += 1;
        known.stream = Some(Stream { number: self.streams, process: incarnation });
        known.heard = now;
        Ok(self.streams)
    }

    /// A frame has come by stream `number`: its sender has spoken in `term`, and has `durable` groups of writes. False if another stream, of
    /// the same process or of a later one, has taken its place.
    pub fn frame(&mut self, now: u64, from: MemberId, number: u64, term: Term, durable: u64) -> bool {
        let Some(known) = self.known.get_mut(&from).filter(|known| known.has_stream(number)) else {
            return false;
        };
        known.heard = now;
        known.memory.term = known.memory.term.max(term);
        known.memory.durable = known.memory.durable.max(durable);
        true
    }

    /// Stream `number` has ended. Whether that was the newest of its sender: the end of an older one is no news.
    pub fn ended(&mut self, from: MemberId, number: u64) -> bool {
        let known = self.known.get_mut(&from);
        known.is_some_and(|known| known.stream.take_if(|stream| stream.number == number).is_some())
    }

    /// Forgets those who are in no configuration and have no open stream, beyond so many. To be called when a stranger has come.
    pub fn forget_strangers(&mut self, is_member: impl Fn(MemberId) -> bool) {
        let is_stranger = |(id, known): (&MemberId, &Known)| known.stream.is_none() && !is_member(*id);
        let strangers = self.known.iter().filter(|entry| is_stranger(*entry)).count();
        let mut superfluous = strangers.saturating_sub(MOST_STRANGERS);
        self.known.retain(|id, known| {
            let goes = superfluous > 0 && is_stranger((id, known));
            superfluous -= usize::from(goes);
            !goes
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: MemberId = MemberId(1);

    fn hello(start: u64, nonce: u64, accounts: u64) -> Introduction {
        Introduction { from: ONE, incarnation: Incarnation { start, nonce }, accounts }
    }

    /// A registry that has heard process (3, 7), with 100 groups of writes in term 5, by the stream that it returns.
    fn acquainted() -> (Registry, u64) {
        let mut registry = Registry::default();
        let stream = registry.introduce(0, hello(3, 7, 90)).unwrap();
        assert!(registry.frame(10, ONE, stream, 5, 100));
        (registry, stream)
    }

    fn remembered(is_heard: bool) -> Memory {
        let incarnation = Incarnation { start: 3, nonce: 7 };
        Memory { incarnation, durable: 100, term: 5, is_heard }
    }

    #[test]
    fn restarted_process_is_taken_at_once() {
        let (mut registry, stream) = acquainted();
        assert!(registry.ended(ONE, stream));
        let next = registry.introduce(11, hello(4, 1, 100)).unwrap();
        assert!(registry.frame(12, ONE, next, 5, 101));
        // And after a power cut, when nothing was said of the old connection.
        assert!(registry.introduce(13, hello(5, 2, 101)).unwrap_err().is_heard);
        assert!(registry.introduce(12 + HEARD, hello(5, 2, 101)).is_ok());
    }

    #[test]
    fn restart_that_could_not_be_counted_is_taken_if_it_has_forgotten_nothing() {
        for nonce in [6, 8] {
            let (mut registry, stream) = acquainted();
            assert!(registry.ended(ONE, stream));
            assert_eq!(registry.introduce(11, hello(3, nonce, 99)), Err(remembered(false)));
            assert!(registry.introduce(11, hello(3, nonce, 100)).is_ok());
        }
    }

    #[test]
    fn copy_is_refused_while_the_original_is_heard_whichever_is_later() {
        let (mut registry, stream) = acquainted();
        for copy in [hello(4, 9, 95), hello(3, 9, 95), hello(3, 1, 100), hello(2, 9, 95)] {
            assert_eq!(registry.introduce(HEARD, copy), Err(remembered(true)));
        }
        assert!(registry.frame(HEARD, ONE, stream, 5, 100), "the original goes on");
        // The same process may have several streams.
        assert!(registry.introduce(HEARD, hello(3, 7, 90)).is_ok());
    }

    #[test]
    fn volume_that_went_back_is_refused_until_it_accounts_for_what_it_forgot() {
        // The copy may be of this life (its next start has a later number) or of an earlier one.
        for start in [2, 3, 4] {
            let (mut registry, stream) = acquainted();
            assert!(registry.ended(ONE, stream));
            let back = hello(start, 8, 60);
            assert_eq!(registry.introduce(20, back), Err(remembered(false)));
            assert_eq!(registry.introduce(21, back), Err(remembered(false)));
            let next = registry.introduce(22, hello(4, 8, 100)).unwrap();
            // From now on its own word counts.
            assert!(registry.frame(23, ONE, next, 6, 62));
            assert!(registry.ended(ONE, next));
            assert!(registry.introduce(24, hello(5, 9, 62)).is_ok());
        }
    }

    #[test]
    fn process_that_has_taken_a_later_number_is_the_same_and_has_forgotten_nothing_of_this_life() {
        let (mut registry, stream) = acquainted();
        // Another member has told it that it had forgotten process 4; here it has told of 100 groups since it started with 90.
        let renumbered = hello(5, 7, 90);
        let next = registry.introduce(11, renumbered).unwrap();
        assert!(!registry.frame(12, ONE, stream, 5, 101) && registry.frame(12, ONE, next, 5, 101));
        assert!(registry.ended(ONE, next));
        assert!(registry.introduce(13, renumbered).is_ok());
        assert!(registry.ended(ONE, next + 1));
        // The next process accounts for all of it.
        assert!(!registry.introduce(14, hello(6, 8, 100)).unwrap_err().is_heard);
        assert!(registry.introduce(14, hello(6, 8, 101)).is_ok());
    }

    #[test]
    fn stream_of_an_older_process_is_heard_no_more() {
        let (mut registry, old) = acquainted();
        let next = registry.introduce(HEARD + 10, hello(4, 1, 100)).unwrap();
        assert!(!registry.frame(HEARD + 11, ONE, old, 9, 900));
        assert!(!registry.ended(ONE, old), "its end is no news");
        assert!(registry.ended(ONE, next));
    }

    #[test]
    fn process_that_counts_no_starts_is_taken_unless_another_is_heard() {
        let (mut registry, stream) = acquainted();
        let uncounted = hello(0, 0, 0);
        assert_eq!(registry.introduce(11, uncounted), Err(remembered(true)));
        assert!(registry.ended(ONE, stream));
        let older = registry.introduce(12, uncounted).unwrap();
        assert!(registry.frame(13, ONE, older, 6, 0));
        assert!(registry.introduce(14, hello(4, 1, 130)).unwrap_err().is_heard);
        assert!(registry.ended(ONE, older));
        // What was remembered before the upgrade was taken back is remembered still.
        assert_eq!(registry.introduce(15, hello(4, 1, 99)), Err(Memory { term: 6, ..remembered(false) }));
        assert!(registry.introduce(15, hello(4, 1, 130)).is_ok());
    }

    #[test]
    fn stream_of_a_stranger_that_was_forgotten_is_not_taken_for_a_later_one() {
        let mut registry = Registry::default();
        let old = registry.introduce(0, hello(1, 7, 0)).unwrap();
        let newer = registry.introduce(1, hello(1, 7, 0)).unwrap();
        assert!(registry.ended(ONE, newer));
        for id in 2..=100 {
            let introduction = Introduction { from: MemberId(id), ..hello(1, id, 0) };
            let stream = registry.introduce(0, introduction).unwrap();
            registry.ended(MemberId(id), stream);
        }
        registry.forget_strangers(|_| false);
        assert!(!registry.known.contains_key(&ONE));
        let newest = registry.introduce(2, hello(2, 8, 0)).unwrap();
        assert!(!registry.frame(3, ONE, old, 1, 1) && registry.frame(3, ONE, newest, 1, 1));
    }

    #[test]
    fn strangers_are_forgotten_beyond_a_number() {
        let mut registry = Registry::default();
        for id in 1..=1000 {
            let introduction = Introduction { from: MemberId(id), ..hello(1, id, 0) };
            let stream = registry.introduce(0, introduction).unwrap();
            registry.forget_strangers(|id| id.0 <= 2);
            registry.ended(MemberId(id), stream);
        }
        assert!(registry.known.len() <= MOST_STRANGERS + 3, "{}", registry.known.len());
        assert!(registry.known.contains_key(&ONE));
    }
}
