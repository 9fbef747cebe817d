//! What stands at fixed places of a page.

use bytes::{Buf as _, BufMut as _, BytesMut};

/// Bytes before what a page holds.
pub(super) const HEADER: usize = 16;

/// Bytes of an element, whether of a branch or of a leaf.
pub(super) const ELEMENT: usize = 16;

/// Bytes of a bucket before the root that it may hold itself.
pub(super) const BUCKET: usize = 16;

/// Kinds of pages.
pub(super) const BRANCH: u16 = 0x01;
pub(super) const LEAF: u16 = 0x02;
pub(super) const META: u16 = 0x04;
pub(super) const FREELIST: u16 = 0x10;

/// The flag of an element of a leaf whose value is a bucket.
pub(super) const IS_BUCKET: u32 = 0x01;

const MAGIC: u32 = 0xED0C_DAED;
const VERSION: u32 = 2;

/// Bytes of a meta behind the page's header.
pub(super) const META_BYTES: usize = 64;

/// The first bytes of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) id: u64,
    pub(super) kind: u16,
    pub(super) count: u16,
    /// How many pages more belong to it.
    pub(super) overflow: u32,
}

impl Header {
    pub(super) fn write(self, out: &mut BytesMut) {
        out.put_u64_le(self.id);
        out.put_u16_le(self.kind);
        out.put_u16_le(self.count);
        out.put_u32_le(self.overflow);
    }

    pub(super) fn read(bytes: &[u8; HEADER]) -> Self {
        let mut bytes = &bytes[..];
        Self {
            id: bytes.get_u64_le(),
            kind: bytes.get_u16_le(),
            count: bytes.get_u16_le(),
            overflow: bytes.get_u32_le(),
        }
    }
}

/// Where a file begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Meta {
    pub(super) page_bytes: u32,
    /// The page of the root of all buckets.
    pub(super) root: u64,
    pub(super) freelist: u64,
    /// Pages from here on are not in use.
    pub(super) pages: u64,
    pub(super) transaction: u64,
}

impl Meta {
    pub(super) fn write(self, out: &mut BytesMut) {
        let start = out.len();
        out.put_u32_le(MAGIC);
        out.put_u32_le(VERSION);
        out.put_u32_le(self.page_bytes);
        out.put_u32_le(0);
        out.put_u64_le(self.root);
        out.put_u64_le(0);
        out.put_u64_le(self.freelist);
        out.put_u64_le(self.pages);
        out.put_u64_le(self.transaction);
        let checksum = fnv1a(&out[start..]);
        out.put_u64_le(checksum);
    }

    /// None if it is not whole, or of another format.
    pub(super) fn read(bytes: &[u8; META_BYTES]) -> Option<Self> {
        let (covered, checksum) = bytes.split_at(META_BYTES - 8);
        let mut left = covered;
        let known = left.get_u32_le() == MAGIC && left.get_u32_le() == VERSION;
        if !known || fnv1a(covered).to_le_bytes() != checksum {
            return None;
        }
        let page_bytes = left.get_u32_le();
        let _flags = left.get_u32_le();
        let root = left.get_u64_le();
        let _sequence = left.get_u64_le();
        Some(Self {
            page_bytes,
            root,
            freelist: left.get_u64_le(),
            pages: left.get_u64_le(),
            transaction: left.get_u64_le(),
        })
    }
}

/// The 64 bits of FNV-1a.
fn fnv1a(bytes: &[u8]) -> u64 {
    let add = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, add)
}
