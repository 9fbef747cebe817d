//! Goes through a bucket from its first key to its last.
//!
//! Pages may lead anywhere, also back to where one comes from. But keys ascend, a page that is no root holds some, and a tree is not
//! deep: so every step finds a key that was not found before, or an error.

use bytes::Bytes;

use super::reader::{BadFile, BucketRoot, Database, Node, Storage};

/// Deeper than any tree is.
const DEEPEST: usize = 32;

/// The entries of a bucket.
#[derive(Debug)]
pub struct Entries<'a, S> {
    database: &'a Database<S>,
    /// Where it is to begin.
    root: Option<BucketRoot>,
    /// The way to where it is: each page, and the element that is next.
    way: Vec<(Node, usize)>,
    /// The key before.
    last: Option<Bytes>,
}

impl<'a, S: Storage> Entries<'a, S> {
    pub(super) fn new(database: &'a Database<S>, root: BucketRoot) -> Self {
        Self { database, root: Some(root), way: Vec::new(), last: None }
    }

    /// The next key and its value. A bucket within a bucket is an error: etcd has none.
    #[expect(clippy::should_implement_trait, reason = "an iterator would go on behind an error")]
    pub fn next(&mut self) -> Result<Option<(Bytes, Bytes)>, BadFile> {
        let Some((key, value, flags)) = self.next_with_flags()? else { return Ok(None) };
        if flags != 0 {
            let page = self.way.last().map_or(0, |(node, _)| node.id());
            return Err(BadFile::Damaged { page, what: "it holds a bucket within a bucket" });
        }
        Ok(Some((key, value)))
    }

    pub(super) fn next_with_flags(&mut self) -> Result<Option<(Bytes, Bytes, u32)>, BadFile> {
        match self.root.take() {
            Some(BucketRoot::Page(page)) => self.way.push((self.database.node(page)?, 0)),
            Some(BucketRoot::Inline(node)) => self.way.push((node, 0)),
            None => {}
        }
        while let Some((node, next)) = self.way.last_mut() {
            if *next == node.count() {
                self.way.pop();
                continue;
            }
            let number = *next;
            *next += 1;
            if !node.is_branch() {
                let entry = node.entry(number)?;
                let page = node.id();
                return self.ascending(page, entry).map(Some);
            }
            let (from, child) = (node.id(), node.child(number));
            self.descend(from, child)?;
        }
        Ok(None)
    }

    fn descend(&mut self, from: u64, child: u64) -> Result<(), BadFile> {
        if self.way.len() == DEEPEST {
            return Err(BadFile::Damaged { page: from, what: "the tree is deeper than any can be" });
        }
        let node = self.database.node(child)?;
        if node.count() == 0 {
            return Err(BadFile::Damaged { page: child, what: "it holds nothing" });
        }
        self.way.push((node, 0));
        Ok(())
    }

    fn ascending(
        &mut self,
        page: u64,
        (key, value, flags): (Bytes, Bytes, u32),
    ) -> Result<(Bytes, Bytes, u32), BadFile> {
        if key.is_empty() || self.last.as_ref().is_some_and(|last| *last >= key) {
            return Err(BadFile::Damaged { page, what: "its keys do not ascend" });
        }
        self.last = Some(key.clone());
        Ok((key, value, flags))
    }
}
