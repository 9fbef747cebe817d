//! Files of bbolt, the store that etcd keeps its state in: one that is read from whoever gives it, and one that is written in one go.
//!
//! A file is pages of one size, counted from 0. Numbers are little-endian.
//!
//! ```text
//! page      id u64, kind u16, count u16, overflow u32, and what its kind says: count elements, say, and what these point to
//!           A page with an overflow goes on through as many pages behind it.
//! meta      page 0 and page 1: magic u32, version u32, bytes of a page u32, flags u32, bucket of the root, page of the
//!           freelist u64 (all ones for none), pages u64, transaction u64, FNV-1a of all that u64. The one that is whole and
//!           of the later transaction counts.
//! freelist  count page IDs u64, which are of no use
//! branch    elements: position u32, bytes of the key u32, page u64. The key is the first one of that page.
//! leaf      elements: flags u32 (1: the value is a bucket), position u32, bytes of the key u32, of the value u32.
//!           The value follows the key.
//! bucket    page of its root u64, sequence u64. For a page of 0 the root follows: a leaf within a leaf.
//! ```
//!
//! Positions count from the element that says them. Keys ascend within a page, and from page to page of a tree.

mod cursor;
mod page;
mod reader;
#[cfg(test)]
mod tests;
mod tree;
mod writer;

pub use cursor::Entries;
pub use reader::{BadFile, Bucket, Database, Storage};
pub use writer::{Layout, Unplanned, Writer};

/// Bytes of a page of the files that are written here, as etcd writes them on most machines.
pub const PAGE_BYTES: usize = 4096;
