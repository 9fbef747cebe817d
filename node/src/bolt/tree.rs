//! A tree of pages that is made from its first key to its last.
//!
//! A page is laid down as soon as it is full, and noted in the branch above it; so of the tree one page a level is held, and pages lie in the
//! file in the order in which they get full, a branch behind what it leads to.

use bytes::{BufMut as _, BytesMut};

use super::PAGE_BYTES;
use super::page::{BRANCH, ELEMENT, HEADER, Header, LEAF};

/// bbolt expects as many elements in a branch at least.
const LEAST_IN_BRANCH: usize = 2;

/// The most bytes of a root that is laid into the leaf that names its bucket. More would be moved out by bbolt at its next write.
const MOST_INLINE: usize = PAGE_BYTES / 4;

/// The pages of a file, in order.
#[derive(Debug)]
pub(super) struct Pages {
    /// The ID of the page that comes next.
    pub(super) next: u64,
    /// What was laid down and not taken yet; none where they are only counted.
    pub(super) out: Option<BytesMut>,
}

impl Pages {
    /// Lays down `node`, and says at which page.
    fn lay(&mut self, node: &Node) -> u64 {
        let pages = node.bytes().div_ceil(PAGE_BYTES);
        let id = self.next;
        self.next += pages as u64;
        if let Some(out) = &mut self.out {
            let end = out.len() + pages * PAGE_BYTES;
            node.write(id, (pages - 1) as u32, out);
            out.resize(end, 0);
        }
        id
    }
}

/// A tree in the making.
#[derive(Debug)]
pub(super) struct Tree {
    /// The leaf, the branch above, and so on.
    levels: Vec<Node>,
}

/// Where the root of a tree is.
#[derive(Debug)]
pub(super) enum Root {
    /// At a page.
    Page(u64),
    /// In the bucket itself: its bytes, and what they are where they are not only counted.
    Inline(usize, BytesMut),
}

/// A value that is to be put: its length, and what writes it.
pub(super) struct Value<F> {
    pub(super) flags: u32,
    pub(super) bytes: usize,
    pub(super) write: F,
}

impl Tree {
    pub(super) fn new() -> Self {
        Self { levels: vec![Node::new(LEAF)] }
    }

    /// Adds the next key, with its value.
    pub(super) fn put(&mut self, pages: &mut Pages, key: &[u8], value: Value<impl FnOnce(&mut BytesMut)>) {
        let more = ELEMENT + key.len() + value.bytes;
        let leaf = &self.levels[0];
        if !leaf.elements.is_empty() && leaf.bytes() + more > PAGE_BYTES {
            self.close_leaf(pages);
        }
        let leaf = &mut self.levels[0];
        let keeps = pages.out.is_some() || leaf.elements.is_empty();
        leaf.push(key, keeps, Element { flags: value.flags, value: value.bytes, page: 0, key: key.len() });
        leaf.bytes += value.bytes;
        if pages.out.is_some() {
            let before = leaf.body.len();
            (value.write)(&mut leaf.body);
            debug_assert_eq!(leaf.body.len() - before, value.bytes, "a value has the length that was said");
        }
    }

    /// Lays down the leaf, and notes it in the branch above.
    fn close_leaf(&mut self, pages: &mut Pages) {
        let leaf = std::mem::replace(&mut self.levels[0], Node::new(LEAF));
        let id = pages.lay(&leaf);
        self.note(pages, 1, leaf.first_key(), id);
    }

    /// Notes in the branch of `level` the page that begins with `key`. A branch that is too large for a page is laid down but for its last
    /// elements, with which the next one begins.
    fn note(&mut self, pages: &mut Pages, level: usize, key: &[u8], page: u64) {
        if level == self.levels.len() {
            self.levels.push(Node::new(BRANCH));
        }
        let branch = &mut self.levels[level];
        branch.push(key, true, Element { flags: 0, value: 0, page, key: key.len() });
        if branch.bytes() <= PAGE_BYTES || branch.elements.len() < 2 * LEAST_IN_BRANCH {
            return;
        }
        let next = branch.split_off(branch.elements.len() - LEAST_IN_BRANCH);
        let full = std::mem::replace(branch, next);
        let id = pages.lay(&full);
        self.note(pages, level + 1, full.first_key(), id);
    }

    /// Lays down what is left. A small tree may stay with the bucket, if that is wanted.
    pub(super) fn finish(mut self, pages: &mut Pages, inline: bool) -> Root {
        if self.levels.len() == 1 {
            let leaf = &self.levels[0];
            let bytes = leaf.bytes();
            if inline && bytes <= MOST_INLINE {
                let mut page = BytesMut::new();
                if pages.out.is_some() {
                    leaf.write(0, 0, &mut page);
                }
                return Root::Inline(bytes, page);
            }
            return Root::Page(pages.lay(leaf));
        }
        self.close_leaf(pages);
        let mut level = 1;
        // A branch may become full by what is noted in it now, and get one above it.
        while level + 1 < self.levels.len() {
            let branch = std::mem::replace(&mut self.levels[level], Node::new(BRANCH));
            let id = pages.lay(&branch);
            self.note(pages, level + 1, branch.first_key(), id);
            level += 1;
        }
        Root::Page(pages.lay(&self.levels[level]))
    }
}

/// A page in the making.
#[derive(Debug)]
struct Node {
    kind: u16,
    elements: Vec<Element>,
    /// Keys and values, one behind the other. Of a leaf that is only counted, the first key.
    body: BytesMut,
    /// How many bytes they have.
    bytes: usize,
}

#[derive(Debug, Clone, Copy)]
struct Element {
    /// Of a leaf.
    flags: u32,
    /// The same: bytes of the value.
    value: usize,
    /// Of a branch.
    page: u64,
    /// Bytes of the key.
    key: usize,
}

impl Node {
    fn new(kind: u16) -> Self {
        Self { kind, elements: Vec::new(), body: BytesMut::new(), bytes: 0 }
    }

    /// What it takes in all.
    fn bytes(&self) -> usize {
        HEADER + self.elements.len() * ELEMENT + self.bytes
    }

    /// The key that it begins with; it has one.
    fn first_key(&self) -> &[u8] {
        self.elements.first().map_or(&[], |first| &self.body[..first.key])
    }

    fn push(&mut self, key: &[u8], keeps: bool, element: Element) {
        if keeps {
            self.body.put_slice(key);
        }
        self.bytes += key.len();
        self.elements.push(element);
    }

    /// The elements of a branch from number `at` on, which it has no more.
    fn split_off(&mut self, at: usize) -> Self {
        let elements = self.elements.split_off(at);
        let bytes = self.elements.iter().map(|element| element.key).sum();
        let body = self.body.split_off(bytes);
        let next = Self { kind: self.kind, elements, bytes: body.len(), body };
        self.bytes = bytes;
        next
    }

    fn write(&self, id: u64, overflow: u32, out: &mut BytesMut) {
        let count = self.elements.len() as u16;
        Header { id, kind: self.kind, count, overflow }.write(out);
        let mut at = 0;
        for (number, element) in self.elements.iter().enumerate() {
            let position = (self.elements.len() - number) * ELEMENT + at;
            if self.kind == LEAF {
                out.put_u32_le(element.flags);
                out.put_u32_le(position as u32);
                out.put_u32_le(element.key as u32);
                out.put_u32_le(element.value as u32);
            } else {
                out.put_u32_le(position as u32);
                out.put_u32_le(element.key as u32);
                out.put_u64_le(element.page);
            }
            at += element.key + element.value;
        }
        out.put_slice(&self.body);
    }
}
