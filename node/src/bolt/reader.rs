//! Reads a file that anybody may have made: nothing in it is believed before it was checked, and no more than some pages of it are held.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use bytes::{Bytes, BytesMut};

use super::cursor::Entries;
use super::page::{BRANCH, BUCKET, ELEMENT, HEADER, Header, IS_BUCKET, LEAF, META, META_BYTES, Meta};

/// The largest leaf that is read, in bytes: a handful of values, each of the largest request that an etcd is told to take.
const LARGEST_LEAF: u64 = 64 << 20;

/// The largest branch. Several may be held at a time.
const LARGEST_BRANCH: u64 = 1 << 20;

/// The largest root within its bucket: four times what bbolt makes with the largest pages.
const LARGEST_INLINE: usize = 64 << 10;

/// The sizes that pages can have, as powers of two.
const PAGE_SIZES: std::ops::RangeInclusive<u32> = 9..=16;

/// What a file lies in.
pub trait Storage {
    /// Fills `bytes` with what stands from byte `at` on; an error if there is less.
    fn read_at(&self, bytes: &mut [u8], at: u64) -> io::Result<()>;
}

impl Storage for File {
    fn read_at(&self, bytes: &mut [u8], at: u64) -> io::Result<()> {
        self.read_exact_at(bytes, at)
    }
}

impl Storage for &[u8] {
    fn read_at(&self, bytes: &mut [u8], at: u64) -> io::Result<()> {
        let from = usize::try_from(at).ok().and_then(|at| self.get(at..)).unwrap_or_default();
        let from = from.get(..bytes.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        bytes.copy_from_slice(from);
        Ok(())
    }
}

/// Why a file cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum BadFile {
    /// It cannot be read at all.
    #[error("it cannot be read: {0}")]
    Io(#[from] io::Error),
    /// It is no such file, or its beginning is damaged.
    #[error("it is no database file of etcd (bbolt), or its first two pages are damaged")]
    NoMeta,
    /// It ends before what it says that it holds.
    #[error("it is cut short: it has {has} bytes and should have {needs}")]
    CutShort {
        /// What it has, in bytes.
        has: u64,
        /// What it says that it has.
        needs: u64,
    },
    /// A page does not hold what it should.
    #[error("page {page} is damaged: {what}")]
    Damaged {
        /// Which.
        page: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// A page is larger than any that is read.
    #[error("page {page} has {bytes} bytes, which is more than is read at once ({most})")]
    TooLarge {
        /// Which.
        page: u64,
        /// What it says that it has.
        bytes: u64,
        /// The most that is read.
        most: u64,
    },
}

/// A file.
#[derive(Debug)]
pub struct Database<S> {
    storage: S,
    page_bytes: u64,
    pages: u64,
    root: u64,
}

/// Where the entries of a bucket are.
#[derive(Debug, Clone)]
pub struct Bucket {
    pub(super) root: BucketRoot,
}

#[derive(Debug, Clone)]
pub(super) enum BucketRoot {
    Page(u64),
    Inline(Node),
}

impl<S: Storage> Database<S> {
    /// Opens a file whose first `bytes` are the database.
    pub fn open(storage: S, bytes: u64) -> Result<Self, BadFile> {
        let newest = metas(&storage, bytes)?.into_iter().flatten().max_by_key(|meta| meta.transaction);
        let Meta { page_bytes, root, pages, .. } = newest.ok_or(BadFile::NoMeta)?;
        let page_bytes = u64::from(page_bytes);
        let needs = pages.saturating_mul(page_bytes);
        if needs > bytes {
            return Err(BadFile::CutShort { has: bytes, needs });
        }
        Ok(Self { storage, page_bytes, pages, root })
    }

    /// The buckets, by name.
    pub fn buckets(&self) -> Result<Vec<(Bytes, Bucket)>, BadFile> {
        let mut entries = Entries::new(self, BucketRoot::Page(self.root));
        let mut buckets = Vec::new();
        while let Some((name, bucket, flags)) = entries.next_with_flags()? {
            let damaged = |what| BadFile::Damaged { page: self.root, what };
            if flags & IS_BUCKET == 0 {
                return Err(damaged("the root holds something else than buckets"));
            }
            if buckets.len() == MOST_BUCKETS {
                return Err(damaged("it has far more buckets than etcd makes"));
            }
            buckets.push((Bytes::copy_from_slice(&name), bucket_of(self.root, &bucket)?));
        }
        Ok(buckets)
    }

    /// What `bucket`, one of this file's, holds.
    pub fn entries(&self, bucket: &Bucket) -> Entries<'_, S> {
        Entries::new(self, bucket.root.clone())
    }

    /// Reads the branch or leaf at page `id`.
    pub(super) fn node(&self, id: u64) -> Result<Node, BadFile> {
        let damaged = |what| BadFile::Damaged { page: id, what };
        if id < 2 || id >= self.pages {
            return Err(damaged("it lies outside of the file"));
        }
        let at = id.checked_mul(self.page_bytes).ok_or(damaged("it lies outside of the file"))?;
        let mut header = [0; HEADER];
        self.storage.read_at(&mut header, at)?;
        let header = Header::read(&header);
        if header.id != id {
            return Err(damaged("it says that it is another one"));
        }
        let most = match header.kind {
            LEAF => LARGEST_LEAF,
            BRANCH => LARGEST_BRANCH,
            _ => return Err(damaged("it is neither a branch nor a leaf")),
        };
        let run = u64::from(header.overflow) + 1;
        if run > self.pages - id {
            return Err(damaged("it goes on beyond the file"));
        }
        let bytes = run * self.page_bytes;
        if bytes > most {
            return Err(BadFile::TooLarge { page: id, bytes, most });
        }
        let mut page = BytesMut::zeroed(bytes as usize);
        self.storage.read_at(&mut page, at)?;
        Node::new(id, page.freeze())
    }
}

/// More than etcd has of any version.
const MOST_BUCKETS: usize = 64;

/// What the value of a bucket says.
fn bucket_of(page: u64, value: &Bytes) -> Result<Bucket, BadFile> {
    let damaged = |what| BadFile::Damaged { page, what };
    let root = value.first_chunk::<8>().filter(|_| value.len() >= BUCKET);
    let root = u64::from_le_bytes(*root.ok_or(damaged("a bucket without a root"))?);
    if root != 0 {
        return Ok(Bucket { root: BucketRoot::Page(root) });
    }
    if value.len() > LARGEST_INLINE {
        return Err(damaged("a bucket within a page that is far too large"));
    }
    // It is kept, and the page that it lies in is not.
    let node = Node::new(page, Bytes::copy_from_slice(&value[BUCKET..]))?;
    if node.is_branch() {
        return Err(damaged("a bucket within a page that is no leaf"));
    }
    Ok(Bucket { root: BucketRoot::Inline(node) })
}

/// The two pages that say where everything is, as far as they are whole. Without the first one it is not known where the second lies.
fn metas(storage: &impl Storage, bytes: u64) -> Result<[Option<Meta>; 2], BadFile> {
    let first = meta(storage, bytes, 0)?;
    if let Some(first) = first {
        return Ok([Some(first), meta(storage, bytes, u64::from(first.page_bytes))?]);
    }
    for shift in PAGE_SIZES {
        let second = meta(storage, bytes, 1 << shift)?.filter(|meta| meta.page_bytes == 1 << shift);
        if second.is_some() {
            return Ok([None, second]);
        }
    }
    Ok([None, None])
}

fn meta(storage: &impl Storage, bytes: u64, at: u64) -> Result<Option<Meta>, BadFile> {
    if bytes < at + (HEADER + META_BYTES) as u64 {
        return Ok(None);
    }
    let mut page = [0; HEADER + META_BYTES];
    storage.read_at(&mut page, at)?;
    let (Some(header), Some(meta)) = (page.first_chunk(), page.last_chunk()) else { return Ok(None) };
    if Header::read(header).kind != META {
        return Ok(None);
    }
    let is_size = |meta: &Meta| PAGE_SIZES.contains(&meta.page_bytes.trailing_zeros());
    Ok(Meta::read(meta).filter(|meta| meta.page_bytes.is_power_of_two() && is_size(meta)))
}

/// A branch or a leaf, whose elements lie within it.
#[derive(Debug, Clone)]
pub(super) struct Node {
    id: u64,
    kind: u16,
    count: usize,
    page: Bytes,
}

impl Node {
    fn new(id: u64, page: Bytes) -> Result<Self, BadFile> {
        let damaged = |what| BadFile::Damaged { page: id, what };
        let header = Header::read(page.first_chunk().ok_or(damaged("it has no header"))?);
        let count = usize::from(header.count);
        if !matches!(header.kind, LEAF | BRANCH) {
            return Err(damaged("it is neither a branch nor a leaf"));
        }
        if HEADER + count * ELEMENT > page.len() {
            return Err(damaged("it has more elements than room"));
        }
        Ok(Self { id, kind: header.kind, count, page })
    }

    pub(super) fn id(&self) -> u64 {
        self.id
    }

    pub(super) fn is_branch(&self) -> bool {
        self.kind == BRANCH
    }

    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// The page that element `number` of a branch leads to.
    pub(super) fn child(&self, number: usize) -> u64 {
        let (low, high) = (self.word(number, 2), self.word(number, 3));
        u64::from(high) << 32 | u64::from(low)
    }

    /// Key, value and flags of element `number` of a leaf.
    pub(super) fn entry(&self, number: usize) -> Result<(Bytes, Bytes, u32), BadFile> {
        let [flags, position, key, value] = [0, 1, 2, 3].map(|word| self.word(number, word));
        let outside = BadFile::Damaged { page: self.id, what: "an element points outside of it" };
        let begin = (HEADER + number * ELEMENT).checked_add(position as usize);
        let middle = begin.and_then(|begin| begin.checked_add(key as usize));
        let end = middle.and_then(|middle| middle.checked_add(value as usize));
        match (begin, middle, end) {
            (Some(begin), Some(middle), Some(end)) if end <= self.page.len() => {
                Ok((self.page.slice(begin..middle), self.page.slice(middle..end), flags))
            }
            _ => Err(outside),
        }
    }

    /// One of the four words of element `number`, which lies within the page.
    fn word(&self, number: usize, word: usize) -> u32 {
        let at = HEADER + number * ELEMENT + word * 4;
        let bytes = self.page.get(at..).and_then(|rest| rest.first_chunk());
        bytes.map_or(0, |bytes| u32::from_le_bytes(*bytes))
    }
}
