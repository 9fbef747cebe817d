//! The engine: sled.
//!
//! Its own `flush` hands what it has to the system and does not wait for the device, so the file is synced here. Blocks stay below what
//! it would put into files of their own, which nobody syncs. Even so it can never be the only copy.

use std::fs::File;
use std::path::{Path, PathBuf};

use sled::{Batch, Config, Db, Mode};

use super::engine::{Engine, EngineError};

/// What it may keep in memory: next to nothing, as it is written in order, and read once.
const CACHE_BYTES: u64 = 4 << 20;

/// What it writes at once, and how large the buffers for that are.
const SEGMENT_BYTES: usize = 1 << 20;

/// The largest block that stays in the one file: a quarter of a segment is the least that does not.
pub(super) const MOST_BLOCK_BYTES: usize = SEGMENT_BYTES / 8;

const HEAD: &[u8] = b"head";

/// A database in a folder.
#[derive(Debug)]
pub(super) struct Sled {
    path: PathBuf,
    /// None only while it is replaced.
    db: Option<Db>,
}

impl Sled {
    /// Opens the database in `path`, or makes one.
    pub(super) fn open(path: &Path) -> Result<Self, EngineError> {
        Ok(Self { path: path.to_owned(), db: Some(open(path)?) })
    }

    fn db(&self) -> Result<&Db, EngineError> {
        self.db.as_ref().ok_or_else(|| EngineError::new("use", &self.path, &"it could not be begun anew"))
    }
}

fn open(path: &Path) -> Result<Db, EngineError> {
    Config::default()
        .path(path)
        .cache_capacity(CACHE_BYTES)
        .segment_size(SEGMENT_BYTES)
        .mode(Mode::LowSpace)
        .flush_every_ms(None)
        .open()
        .map_err(|error| EngineError::new("open", path, &error))
}

impl Engine for Sled {
    fn head(&self) -> Result<Option<Vec<u8>>, EngineError> {
        let head = self.db()?.get(HEAD).map_err(|error| EngineError::new("read", &self.path, &error))?;
        Ok(head.map(|bytes| bytes.to_vec()))
    }

    fn block(&self, number: u64) -> Result<Option<Vec<u8>>, EngineError> {
        let block = self.db()?.get(number.to_be_bytes());
        Ok(block.map_err(|error| EngineError::new("read", &self.path, &error))?.map(|bytes| bytes.to_vec()))
    }

    fn append(&mut self, first: u64, blocks: Vec<Vec<u8>>, head: Option<Vec<u8>>) -> Result<(), EngineError> {
        let mut batch = Batch::default();
        for (number, block) in (first..).zip(blocks) {
            debug_assert!(block.len() <= MOST_BLOCK_BYTES);
            batch.insert(&number.to_be_bytes(), block);
        }
        if let Some(head) = head {
            batch.insert(HEAD, head);
        }
        self.db()?.apply_batch(batch).map_err(|error| EngineError::new("write", &self.path, &error))
    }

    fn sync(&mut self) -> Result<(), EngineError> {
        self.db()?.flush().map_err(|error| EngineError::new("flush", &self.path, &error))?;
        let file = File::open(self.path.join("db")).and_then(|file| file.sync_data());
        file.map_err(|error| EngineError::new("sync", &self.path, &error))
    }

    fn wipe(&mut self) -> Result<(), EngineError> {
        drop(self.db.take());
        super::remove(&self.path)?;
        self.db = Some(open(&self.path)?);
        Ok(())
    }
}
