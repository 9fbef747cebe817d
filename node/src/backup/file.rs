//! The file, as it is sent: its length is known before its first byte, and no more of it is held than what is sent next.

use bytes::{BufMut as _, Bytes};
use parking_lot::RwLock;
use prost::Message as _;

use super::rows::{Cluster, Row, Rows};
use crate::bolt::{Layout, Unplanned, Writer};
use crate::kv::{KvError, Store};

/// Why a file cannot be finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BackupError {
    /// What it is of cannot be read any more.
    #[error("the state that it is of is gone: another has taken its place, or memory is short")]
    Gone,
    /// A defect.
    #[error(transparent)]
    Unplanned(#[from] Unplanned),
}

impl From<KvError> for BackupError {
    fn from(_: KvError) -> Self {
        Self::Gone
    }
}

/// A database in the making.
#[derive(Debug)]
pub struct Backup {
    rows: Rows,
    writer: Writer,
    /// Known once all was gone through.
    layout: Option<Layout>,
    is_written: bool,
}

impl Backup {
    /// Of `store` as it is now, which is the state of `cluster`.
    pub fn new(store: &mut Store, cluster: &Cluster) -> Self {
        let (rows, writer) = (Rows::new(store, cluster), Writer::counting());
        Self { rows, writer, layout: None, is_written: false }
    }

    /// The revision of the state.
    pub fn revision(&self) -> i64 {
        self.rows.revision()
    }

    /// The bytes of the whole database; none before they are counted.
    pub fn bytes(&self) -> Option<u64> {
        self.layout.map(Layout::bytes)
    }

    /// Goes on, under one hold of the lock of `store`, in which it was begun. False at the end: what is left then is the end of the
    /// file.
    pub fn advance(&mut self, store: &RwLock<Store>) -> Result<bool, BackupError> {
        if self.is_written {
            return Ok(false);
        }
        let Some(rows) = self.rows.next(store)? else {
            let layout = self.writer.finish()?;
            if self.layout.is_some() {
                self.is_written = true;
                return Ok(false);
            }
            self.layout = Some(layout);
            self.writer = Writer::writing(layout);
            self.rows.rewind();
            return Ok(true);
        };
        for row in rows {
            self.put(row);
        }
        Ok(true)
    }

    fn put(&mut self, row: Row) {
        match row {
            Row::Begin(_) => {}
            Row::Bytes(key, value) => self.writer.put(&key, value.len(), |out| out.put_slice(&value)),
            Row::Version(key, kv) => {
                // The buffer grows.
                let write = |out: &mut _| _ = kv.encode(out);
                self.writer.put(&key, kv.encoded_len(), write);
            }
            Row::End(name) => self.writer.end_bucket(name),
        }
    }

    /// How much of it can be taken.
    pub fn written(&self) -> usize {
        self.writer.written()
    }

    /// Takes up to `most` bytes of it, in order.
    pub fn take(&mut self, most: usize) -> Bytes {
        self.writer.take(most)
    }
}
