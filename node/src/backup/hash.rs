//! The hash of all that an etcd with this state would store (`Hash`): the CRC-32C of every bucket's name, its keys and its values, but for
//! how far the log is applied and the version of the storage.
//!
//! It has the members in it, and their addresses, so no two clusters have the same.

use parking_lot::RwLock;
use prost::Message as _;

use super::file::BackupError;
use super::rows::{Cluster, Row, Rows};
use super::schema::{CONSISTENT_INDEX, META, STORAGE, TERM};
use crate::kv::Store;

/// A hash in the making.
#[derive(Debug)]
pub struct BackendHash {
    rows: Rows,
    bucket: &'static [u8],
    hash: u32,
}

impl BackendHash {
    /// Of `store` as it is now, which is the state of `cluster`.
    pub fn new(store: &mut Store, cluster: &Cluster) -> Self {
        Self { rows: Rows::new(store, cluster), bucket: &[], hash: 0 }
    }

    /// The revision of the state.
    pub fn revision(&self) -> i64 {
        self.rows.revision()
    }

    /// Goes on, under one hold of the lock of `store`, in which it was begun. The hash, at the end.
    pub fn advance(&mut self, store: &RwLock<Store>) -> Result<Option<u32>, BackupError> {
        let Some(rows) = self.rows.next(store)? else { return Ok(Some(self.hash)) };
        for row in rows {
            match row {
                Row::Begin(name) => {
                    self.bucket = name;
                    self.add(name);
                }
                Row::Bytes(key, value) => {
                    if self.bucket != META || ![CONSISTENT_INDEX, TERM, STORAGE].contains(&&key[..]) {
                        self.add(&key);
                        self.add(&value);
                    }
                }
                Row::Version(key, kv) => {
                    self.add(&key);
                    self.add(&kv.encode_to_vec());
                }
                Row::End(_) => {}
            }
        }
        Ok(None)
    }

    fn add(&mut self, bytes: &[u8]) {
        self.hash = crc32c::crc32c_append(self.hash, bytes);
    }
}
