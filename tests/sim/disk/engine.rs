//! The engine of a member's copy of its state: blocks in memory, in virtual time, that are lost and spoilt as a database's are.
//!
//! Batches become durable in the order in which they came, some time after that was asked for. Of those that are not yet durable when the
//! process ends, the first ones are kept. What the trait calls whole is whole: a torn batch is for sled to find.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use quorate_node::copy::{Engine, EngineError};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::time::{SECOND, Time};

/// How many states that were durable once can come back, and how long one must have been the newest to be remembered.
const REMEMBERED: usize = 4;
const REMEMBERED_EVERY: Time = SECOND;

/// What happens to what is durable, seen by the next process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spoilt {
    /// It is gone.
    Gone,
    /// What was durable some time ago takes its place.
    Older,
    /// A bit of it turns over.
    Flipped,
}

/// Clones share the same engine.
#[derive(Debug, Clone)]
pub(crate) struct SimEngine(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    /// What it shows, of which what follows is not yet durable.
    shown: Contents,
    durable: Contents,
    /// Newest last.
    earlier: VecDeque<Contents>,
    /// When one was remembered last.
    remembered: Time,
    batches: VecDeque<Batch>,
    now: Time,
    /// What it takes at least to make a batch durable.
    sync: Time,
    /// Until when it fails every now and then.
    fails_until: Time,
    spoilt: Option<Spoilt>,
    random: ChaCha8Rng,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Contents {
    head: Option<Bytes>,
    blocks: BTreeMap<u64, Bytes>,
}

/// What becomes durable as a whole.
#[derive(Debug)]
struct Batch {
    what: Change,
    /// When it is durable, if that was asked for.
    durable: Option<Time>,
}

#[derive(Debug)]
enum Change {
    Append { first: u64, blocks: Vec<Bytes>, head: Option<Bytes> },
    Wipe,
}

impl SimEngine {
    pub(crate) fn new(sync: Time, seed: u64) -> Self {
        Self(Arc::new(Mutex::new(State {
            shown: Contents::default(),
            durable: Contents::default(),
            earlier: VecDeque::new(),
            remembered: 0,
            batches: VecDeque::new(),
            now: 0,
            sync,
            fails_until: 0,
            spoilt: None,
            random: ChaCha8Rng::seed_from_u64(seed),
        })))
    }

    /// What it is asked for next happens now.
    pub(crate) fn begin(&self, now: Time) {
        self.0.lock().settle(now);
    }

    /// A process opens it. What has happened to it since the one before.
    pub(crate) fn opens(&self, now: Time) -> Option<Spoilt> {
        self.crash(now);
        let mut state = self.0.lock();
        let spoilt = state.spoilt.take()?;
        state.spoil(spoilt).then_some(spoilt)
    }

    /// Whether there is nothing in it.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.lock().shown.head.is_none()
    }

    /// The process, or its machine, ends.
    pub(crate) fn crash(&self, now: Time) {
        let mut state = self.0.lock();
        state.settle(now);
        let State { batches, durable, random, shown, .. } = &mut *state;
        let kept = random.random_range(0..=batches.len());
        batches.drain(..).take(kept).for_each(|batch| durable.take(&batch.what));
        shown.clone_from(durable);
    }

    /// It fails until then, every now and then.
    pub(crate) fn fail(&self, until: Time) {
        self.0.lock().fails_until = until;
    }

    /// The next process finds it spoilt.
    pub(crate) fn spoil(&self, spoilt: Spoilt) {
        self.0.lock().spoilt = Some(spoilt);
    }

    /// All trouble is over, but for what has happened.
    pub(crate) fn heal(&self) {
        self.0.lock().fails_until = 0;
    }
}

impl State {
    /// What was to be durable by now is.
    fn settle(&mut self, now: Time) {
        self.now = now;
        let done = self.batches.partition_point(|batch| batch.durable.is_some_and(|at| at <= now));
        if done == 0 {
            return;
        }
        if now >= self.remembered + REMEMBERED_EVERY {
            self.remembered = now;
            self.earlier.push_back(self.durable.clone());
            if self.earlier.len() > REMEMBERED {
                self.earlier.pop_front();
            }
        }
        self.batches.drain(..done).for_each(|batch| self.durable.take(&batch.what));
    }

    /// Whether there was something to be spoilt.
    fn spoil(&mut self, spoilt: Spoilt) -> bool {
        let before = self.durable.clone();
        match spoilt {
            Spoilt::Gone => self.durable = Contents::default(),
            Spoilt::Older if self.earlier.is_empty() => {}
            Spoilt::Older => {
                let newest = self.random.random_range(0..self.earlier.len());
                self.earlier.truncate(newest + 1);
                self.durable = self.earlier.pop_back().unwrap_or_default();
            }
            Spoilt::Flipped => self.durable.flip(&mut self.random),
        }
        self.shown.clone_from(&self.durable);
        self.durable != before
    }

    /// An error, every now and then while it fails.
    fn attempt(&mut self, action: &'static str) -> Result<(), EngineError> {
        if self.now < self.fails_until && self.random.random() {
            return Err(EngineError::new(action, Path::new("/copy"), &"the engine reports an error"));
        }
        Ok(())
    }

    /// Does it whole; or fails, and may have done it all the same.
    fn change(&mut self, action: &'static str, what: Change) -> Result<(), EngineError> {
        let done = self.attempt(action);
        if done.is_ok() || self.random.random() {
            self.shown.take(&what);
            self.batches.push_back(Batch { what, durable: None });
        }
        done
    }
}

impl Contents {
    fn take(&mut self, change: &Change) {
        let Change::Append { first, blocks, head } = change else {
            *self = Self::default();
            return;
        };
        self.blocks.extend((*first..).zip(blocks.iter().cloned()));
        if head.is_some() {
            self.head.clone_from(head);
        }
    }

    /// Turns over a bit somewhere.
    fn flip(&mut self, random: &mut ChaCha8Rng) {
        let parts = self.blocks.values_mut().chain(&mut self.head);
        let count = parts.size_hint().0;
        let Some(part) = parts.skip(random.random_range(0..count.max(1))).find(|part| !part.is_empty())
        else {
            return;
        };
        let mut bytes = part.to_vec();
        let at = random.random_range(0..bytes.len());
        bytes[at] ^= 1 << random.random_range(0..8);
        *part = bytes.into();
    }
}

impl Engine for SimEngine {
    fn head(&self) -> Result<Option<Vec<u8>>, EngineError> {
        let mut state = self.0.lock();
        state.attempt("read")?;
        Ok(state.shown.head.as_ref().map(|bytes| bytes.to_vec()))
    }

    fn block(&self, number: u64) -> Result<Option<Vec<u8>>, EngineError> {
        let mut state = self.0.lock();
        state.attempt("read")?;
        Ok(state.shown.blocks.get(&number).map(|bytes| bytes.to_vec()))
    }

    fn append(&mut self, first: u64, blocks: Vec<Vec<u8>>, head: Option<Vec<u8>>) -> Result<(), EngineError> {
        let blocks = blocks.into_iter().map(Bytes::from).collect();
        self.0.lock().change("write", Change::Append { first, blocks, head: head.map(Bytes::from) })
    }

    fn sync(&mut self) -> Result<(), EngineError> {
        let mut state = self.0.lock();
        state.attempt("sync")?;
        let (least, now) = (state.sync, state.now);
        let end = now + state.random.random_range(least..=2 * least);
        let end = state.batches.iter().filter_map(|batch| batch.durable).fold(end, Time::max);
        state.batches.iter_mut().for_each(|batch| batch.durable = batch.durable.or(Some(end)));
        Ok(())
    }

    fn wipe(&mut self) -> Result<(), EngineError> {
        self.0.lock().change("wipe", Change::Wipe)
    }
}
