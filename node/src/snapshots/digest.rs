//! What members compare of what they hold: the digests of their snapshots.

use std::fmt;

use quorate_raft::LogId;
use ring::digest::{SHA256, SHA256_OUTPUT_LEN, digest};

use super::manifest::Manifest;
use crate::level::Level;

/// The SHA-256 of a manifest, as it is on the wire: of the entry, the configuration, and the hash of each piece. The default is none.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Hash(pub [u8; SHA256_OUTPUT_LEN]);

impl Hash {
    /// Of a manifest in its encoded form.
    pub(super) fn of(encoded: &[u8]) -> Self {
        let mut hash = Self::default();
        hash.0.copy_from_slice(digest(&SHA256, encoded).as_ref());
        hash
    }

    /// The hash that was sent. None if the bytes are none.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// The hash that was written as text.
    pub(super) fn from_text(text: &str) -> Option<Self> {
        let byte = |at: usize| u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok();
        let bytes: Option<Vec<u8>> = (0..SHA256_OUTPUT_LEN).map(byte).collect();
        Self::from_bytes(&bytes?).filter(|hash| hash.to_string() == text)
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Enough to tell one from another.
        self.0.iter().take(4).try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A snapshot that a member holds: two members that hold others at one entry, of one level, hold different states.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest {
    /// The entry up to which it goes.
    pub id: LogId,
    /// Of the state, and so the format of the snapshot. Those of different levels are not compared.
    pub level: Level,
    /// What it holds.
    pub hash: Hash,
}

impl Digest {
    /// Of the snapshot that `manifest` describes.
    pub fn of(manifest: &Manifest) -> Self {
        Digest { id: manifest.id(), level: manifest.level(), hash: manifest.hash() }
    }
}

/// Where a member's state was found to differ from what a majority holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[error(
    "the state of this member differs from that of a majority at entry {}: the digest of its snapshot is {own}, theirs is {majority}. It \
     serves and leads nothing any more. Remove this member from its cluster and start a new one with an empty data directory",
    id.index
)]
pub struct Corrupt {
    /// The entry.
    pub id: LogId,
    /// What this member held there.
    pub own: Hash,
    /// What a majority did.
    pub majority: Hash,
}
