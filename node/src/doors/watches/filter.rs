//! What a watch wants to hear of.

use bytes::Bytes;

/// Which changes. Watches that want the same are told the same.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Filter {
    /// The first key.
    pub start: Bytes,
    /// Up to which one.
    pub end: End,
    /// Of puts too.
    pub puts: bool,
    /// Of deletions too.
    pub deletions: bool,
    /// With what the key held before.
    pub previous: bool,
}

/// Where the keys of a watch end.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum End {
    /// There is one key only.
    One,
    /// Nowhere.
    Never,
    /// Before this key.
    Before(Bytes),
}

impl Filter {
    /// Whether there is a key that it wants.
    pub fn is_empty(&self) -> bool {
        matches!(&self.end, End::Before(end) if *end <= self.start)
    }

    /// Whether it wants changes of `key`.
    pub(super) fn covers(&self, key: &[u8]) -> bool {
        match &self.end {
            End::One => key == &self.start[..],
            End::Never => key >= &self.start[..],
            End::Before(end) => key >= &self.start[..] && key < &end[..],
        }
    }

    /// Whether it wants changes of a kind.
    pub(super) fn wants(&self, is_deletion: bool) -> bool {
        if is_deletion { self.deletions } else { self.puts }
    }

    /// Bytes of its keys.
    pub fn bytes(&self) -> usize {
        let end = if let End::Before(end) = &self.end { end.len() } else { 0 };
        self.start.len() + end
    }
}
