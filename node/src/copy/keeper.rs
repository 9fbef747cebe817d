//! Writes the copy behind the state.

use std::path::Path;
use std::sync::Arc;

use bytes::{Buf, BytesMut};
use parking_lot::RwLock;
use prost::Message as _;
use quorate_raft::MemberId;

use super::engine::{Engine, EngineError};
use super::{block, wire};
use crate::kv::{Incarnation, Store, records};

/// Versions that are read under one hold of the state's lock: some tens of microseconds.
const BATCH: usize = 256;

/// How much of the stream is written at once.
const STEP_BYTES: usize = 256 << 10;

/// A copy of more bytes than this is begun anew when less than half of it is still of use.
const LEAST_REWRITTEN: u64 = 16 << 20;

/// Keeps a copy of a state up to date.
#[derive(Debug)]
pub struct Keeper {
    engine: Box<dyn Engine>,
    member: MemberId,
    state: Arc<RwLock<Store>>,
    /// Of which state the copy is: another one may take its place.
    incarnation: Option<Incarnation>,
    /// The next version to be written.
    next: u64,
    blocks: u64,
    versions: u64,
    /// Bytes of records in the copy.
    bytes: u64,
    /// How much of the stream goes into a block.
    block_bytes: usize,
    /// How much of it is written at once.
    step_bytes: usize,
    /// Records that are not in a block yet.
    stream: BytesMut,
    /// There is nothing in the engine.
    is_empty: bool,
}

/// How far a step has brought the copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// There is more to be written.
    More,
    /// Everything that was applied is in it, durably.
    All,
}

impl Keeper {
    /// Keeps the copy of `state` in `engine`, whatever is in that: it is begun anew.
    pub fn new(engine: Box<dyn Engine>, member: MemberId, state: Arc<RwLock<Store>>) -> Self {
        let stream = BytesMut::new();
        let (incarnation, is_empty) = (None, false);
        Self {
            engine,
            member,
            state,
            incarnation,
            next: 1,
            blocks: 0,
            versions: 0,
            bytes: 0,
            block_bytes: block::BYTES,
            step_bytes: STEP_BYTES,
            stream,
            is_empty,
        }
    }

    /// The same of a `state` that was read from the engine: what comes is added to what is there.
    pub fn resume(engine: Box<dyn Engine>, member: MemberId, state: Arc<RwLock<Store>>) -> Self {
        let mut keeper = Self::new(engine, member, state);
        let head = keeper
            .engine
            .head()
            .ok()
            .flatten()
            .and_then(|head| block::open(u64::MAX, &head).map(<[u8]>::to_vec));
        if let Some(head) = head.and_then(|head| wire::Head::decode(&head[..]).ok()) {
            let mut state = keeper.state.write();
            keeper.incarnation = Some(state.incarnation());
            keeper.next = state.end();
            state.copy_from(keeper.next, 0);
            state.leases_mut().resume_copy();
            (keeper.blocks, keeper.versions, keeper.bytes) = (head.blocks, head.versions, head.bytes);
            drop(state);
        }
        keeper
    }

    /// The same in blocks of so many bytes of the stream, if that is less than usual: the simulator's states are small.
    #[must_use]
    pub fn in_blocks_of(self, bytes: usize) -> Self {
        let block_bytes = bytes.clamp(1, block::BYTES);
        Self { block_bytes, step_bytes: 4 * block_bytes, ..self }
    }

    /// What it is a copy of.
    pub fn state(&self) -> &Arc<RwLock<Store>> {
        &self.state
    }

    /// How many versions and leases wait to be written.
    pub fn lag(&self) -> u64 {
        let state = self.state.read();
        if self.incarnation.as_ref() == Some(&state.incarnation()) {
            state.end() - self.next + state.leases().uncopied()
        } else {
            u64::MAX
        }
    }

    /// Writes some of what was applied since. After an error the copy is begun anew.
    pub fn step(&mut self) -> Result<Kept, EngineError> {
        self.begin_anew_if_due()?;
        self.is_empty = false;
        let written = self.write();
        if written.is_err() {
            self.incarnation = None;
            self.state.write().end_copy();
        }
        written
    }

    /// Gives the copy up for now, and the room that it takes.
    pub fn give_up(&mut self) -> Result<(), EngineError> {
        self.incarnation = None;
        self.state.write().end_copy();
        if !self.is_empty {
            self.engine.wipe()?;
            self.is_empty = true;
        }
        Ok(())
    }

    fn write(&mut self) -> Result<Kept, EngineError> {
        let head = self.read()?;
        let whole = match head {
            Some(_) => self.stream.len(),
            None => self.stream.len() / self.block_bytes * self.block_bytes,
        };
        let parts = self.stream[..whole].chunks(self.block_bytes);
        let blocks: Vec<_> =
            (self.blocks..).zip(parts).map(|(number, part)| block::seal(number, part)).collect();
        self.stream.advance(whole);
        let first = self.blocks;
        self.blocks += blocks.len() as u64;
        let sealed = head.map(|head| {
            let head = wire::Head { blocks: self.blocks, versions: self.versions, bytes: self.bytes, ..head };
            block::seal(u64::MAX, &head.encode_to_vec())
        });
        let whole = sealed.is_some();
        if !blocks.is_empty() || whole {
            self.engine.append(first, blocks, sealed)?;
        }
        if !whole {
            return Ok(Kept::More);
        }
        self.engine.sync()?;
        Ok(Kept::All)
    }

    /// Reads the next versions into the stream. At their end: what the state is with all of them.
    fn read(&mut self) -> Result<Option<wire::Head>, EngineError> {
        while self.stream.len() < self.step_bytes {
            let mut state = self.state.write();
            if self.incarnation.as_ref() != Some(&state.incarnation()) {
                return Ok(None);
            }
            let (versions, next) = state.copy_from(self.next, BATCH);
            let head = state.is_copied(next).then(|| self.head(&state));
            drop(state);
            let before = self.stream.len();
            self.versions += versions.len() as u64;
            for version in versions {
                records::append(&mut self.stream, &version).map_err(|error| {
                    EngineError::new("append to", Path::new("the copy of the state"), &error)
                })?;
            }
            self.bytes += (self.stream.len() - before) as u64;
            self.next = next;
            if head.is_some() {
                return Ok(head);
            }
        }
        Ok(None)
    }

    fn head(&self, state: &Store) -> wire::Head {
        let applied = state.applied();
        wire::Head {
            member: self.member.0,
            index: applied.index,
            term: applied.term,
            state: Some(state.summary()),
            ..wire::Head::default()
        }
    }

    /// Another state has taken the place of the one that was copied, or most of the copy is of no use any more.
    fn begin_anew_if_due(&mut self) -> Result<(), EngineError> {
        let state = self.state.read();
        let incarnation = state.incarnation();
        let other = self.incarnation.as_ref() != Some(&incarnation);
        let wasteful = self.bytes > LEAST_REWRITTEN.max(2 * state.size_in_use());
        drop(state);
        if other || wasteful {
            self.engine.wipe()?;
            self.state.write().leases_mut().end_copy();
            self.incarnation = Some(incarnation);
            (self.next, self.blocks, self.versions, self.bytes) = (1, 0, 0, 0);
            self.stream.clear();
        }
        Ok(())
    }
}
