//! Writes a file from its first byte to its last.
//!
//! The first pages say where the root is and how many pages there are, which is known at the end. So what is to be written is gone through
//! twice: once to count, and once to write. Both are the same code, and nothing but a page of each level is held between.

use bytes::{BufMut as _, Bytes, BytesMut};

use super::PAGE_BYTES;
use super::page::{BUCKET, FREELIST, Header, IS_BUCKET, META, Meta};
use super::tree::{Pages, Root, Tree, Value};

/// The pages before the first of a tree: two of where everything is, and the freelist.
const FIRST: u64 = 3;
const FREELIST_PAGE: u64 = 2;

/// What counting has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    pages: u64,
    root: u64,
}

impl Layout {
    /// The bytes of the file.
    pub fn bytes(self) -> u64 {
        self.pages * PAGE_BYTES as u64
    }
}

/// What was written is not what was counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("what is written is not what was counted before")]
pub struct Unplanned;

/// A file in the making. Buckets come in the order of their names, and keys ascend within each.
#[derive(Debug)]
pub struct Writer {
    pages: Pages,
    layout: Option<Layout>,
    /// The buckets, by name.
    root: Tree,
    bucket: Tree,
}

impl Writer {
    /// One that only counts.
    pub fn counting() -> Self {
        Self::new(None, None)
    }

    /// One that writes what was counted.
    pub fn writing(layout: Layout) -> Self {
        let mut out = BytesMut::new();
        for transaction in [0, 1] {
            let page_bytes = PAGE_BYTES as u32;
            let Layout { pages, root } = layout;
            begin_page(&mut out, transaction, META);
            Meta { page_bytes, root, freelist: FREELIST_PAGE, pages, transaction }.write(&mut out);
            end_page(&mut out);
        }
        begin_page(&mut out, FREELIST_PAGE, FREELIST);
        end_page(&mut out);
        Self::new(Some(layout), Some(out))
    }

    fn new(layout: Option<Layout>, out: Option<BytesMut>) -> Self {
        Self { pages: Pages { next: FIRST, out }, layout, root: Tree::new(), bucket: Tree::new() }
    }

    /// Adds a key to the bucket that is ended next, with a value of so many `bytes`, which is written only if it is not only counted.
    pub fn put(&mut self, key: &[u8], bytes: usize, write: impl FnOnce(&mut BytesMut)) {
        self.bucket.put(&mut self.pages, key, Value { flags: 0, bytes, write });
    }

    /// Ends a bucket, which holds what was put since the one before it was ended.
    pub fn end_bucket(&mut self, name: &[u8]) {
        let tree = std::mem::replace(&mut self.bucket, Tree::new());
        let (page, bytes, inline) = match tree.finish(&mut self.pages, true) {
            Root::Page(page) => (page, 0, BytesMut::new()),
            Root::Inline(bytes, inline) => (0, bytes, inline),
        };
        let write = |out: &mut BytesMut| {
            out.put_u64_le(page);
            out.put_u64_le(0);
            out.put_slice(&inline);
        };
        self.root.put(&mut self.pages, name, Value { flags: IS_BUCKET, bytes: BUCKET + bytes, write });
    }

    /// How many bytes can be taken.
    pub fn written(&self) -> usize {
        self.pages.out.as_ref().map_or(0, BytesMut::len)
    }

    /// Takes up to `most` bytes that are written, in order.
    pub fn take(&mut self, most: usize) -> Bytes {
        let Some(out) = &mut self.pages.out else { return Bytes::new() };
        out.split_to(most.min(out.len())).freeze()
    }

    /// Ends the file: what is left of it can be taken. Fails if it is not what was counted.
    pub fn finish(&mut self) -> Result<Layout, Unplanned> {
        let root = std::mem::replace(&mut self.root, Tree::new());
        let Root::Page(root) = root.finish(&mut self.pages, false) else { return Err(Unplanned) };
        let found = Layout { pages: self.pages.next, root };
        if self.layout.is_some_and(|counted| counted != found) { Err(Unplanned) } else { Ok(found) }
    }
}

fn begin_page(out: &mut BytesMut, id: u64, kind: u16) {
    Header { id, kind, count: 0, overflow: 0 }.write(out);
}

fn end_page(out: &mut BytesMut) {
    out.resize(out.len().next_multiple_of(PAGE_BYTES), 0);
}
