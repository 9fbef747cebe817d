//! A snapshot's file: its pieces, its manifest, and a block that says where that is.
//!
//! ```text
//!  the pieces, one behind the other; zeros up to the next multiple of 4096
//!  the manifest: a quorate.snapshot.v1.Manifest; zeros up to the next multiple of 4096
//!  the last 4096 bytes, little-endian:
//!  byte  size
//!     0     8  magic "QUORSNP" and the format's version, 2
//!     8     4  CRC-32C of bytes 0..8 and 12..32
//!    12     4  CRC-32C of the manifest
//!    16     8  where the manifest begins
//!    24     8  its length in bytes
//! ```
//!
//! Everything is written in multiples of 4096 bytes at multiples of 4096: such writes can go past the page cache, where they would
//! push out what is read, and hold up the log's fsync.
//!
//! Every version to come keeps the magic, and a checksum at byte 8 that covers the version: so that a newer file is told from a damaged
//! one. Version 1 was written before the first level.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use prost::Message;
use quorate_api::snapshot as wire;

use super::manifest::{Manifest, ManifestError};
use super::{Context, SnapshotError};
use crate::level::{Levels, Subject, VERSION as VERSION_OF_BUILD};
use crate::storage::disk::File;

/// What everything in a file is aligned to.
pub(super) const BLOCK: usize = 4096;
const MAGIC: &[u8; 7] = b"QUORSNP";
const VERSION: u8 = 2;
/// How much of the last block says something.
const TRAILER: usize = 32;

/// A file that is written.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) file: Box<dyn File>,
    pub(super) path: PathBuf,
}

/// A file that is whole.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) file: Box<dyn File>,
    pub(super) path: PathBuf,
    pub(super) manifest: Manifest,
    /// Another member has asked for it since the newest one came.
    pub(super) wanted: bool,
}

impl Part {
    /// Writes a piece at `offset`; all but the last are as long as a multiple of a block.
    pub(super) fn write_piece(&self, offset: u64, piece: &[u8]) -> Result<(), SnapshotError> {
        self.write(offset, piece.to_vec())
    }

    /// Ends the file, and makes all of it durable.
    pub(super) fn finish(&self, manifest: &Manifest) -> Result<(), SnapshotError> {
        let encoded = manifest.to_wire().encode_to_vec();
        let begin = manifest.bytes().next_multiple_of(BLOCK as u64);
        let mut trailer = vec![0; BLOCK];
        trailer[..7].copy_from_slice(MAGIC);
        trailer[7] = VERSION;
        trailer[12..16].copy_from_slice(&crc32c::crc32c(&encoded).to_le_bytes());
        trailer[16..24].copy_from_slice(&begin.to_le_bytes());
        trailer[24..32].copy_from_slice(&(encoded.len() as u64).to_le_bytes());
        let checksum = checksum(&trailer);
        trailer[8..12].copy_from_slice(&checksum.to_le_bytes());
        let mut footer = encoded;
        footer.resize(footer.len().next_multiple_of(BLOCK), 0);
        footer.extend_from_slice(&trailer);
        self.write(begin, footer)?;
        self.file.sync().during("sync", &self.path)
    }

    fn write(&self, offset: u64, mut bytes: Vec<u8>) -> Result<(), SnapshotError> {
        bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
        self.file.write_at(&bytes, offset).during("write", &self.path)
    }
}

impl Kept {
    /// Reads what `file` says of itself. Whether its pieces are whole is seen when they are read.
    pub(super) fn open(file: Box<dyn File>, path: PathBuf) -> Result<Self, SnapshotError> {
        let damaged = |what: String| SnapshotError::Damaged { path: path.clone(), what };
        let length = file.len().during("read", &path)?;
        let at = length.checked_sub(BLOCK as u64).ok_or_else(|| damaged("it is too short".into()))?;
        let mut trailer = [0; TRAILER];
        file.read_at(&mut trailer, at).during("read", &path)?;
        let u32_at = |at: usize| u32::from_le_bytes(std::array::from_fn(|i| trailer[at + i]));
        let u64_at = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| trailer[at + i]));
        check_version(&trailer, &path)?;
        let (begin, bytes) = (u64_at(16), u64_at(24));
        if begin.checked_add(bytes).is_none_or(|end| end > at) {
            return Err(damaged("its manifest lies outside of it".into()));
        }
        let mut encoded = vec![0; bytes as usize];
        file.read_at(&mut encoded, begin).during("read", &path)?;
        if crc32c::crc32c(&encoded) != u32_at(12) {
            return Err(damaged("its manifest does not match its checksum".into()));
        }
        let wire = wire::Manifest::decode(&encoded[..]).map_err(|error| damaged(error.to_string()))?;
        let index = wire.index;
        let manifest = Manifest::from_wire(wire).map_err(|error| match error {
            ManifestError::Level(level) => Levels::ALL.lacks(Subject::Snapshot(index), Some(level)).into(),
            error => damaged(error.to_string()),
        })?;
        if manifest.bytes().next_multiple_of(BLOCK as u64) != begin {
            return Err(damaged("its pieces and its manifest overlap".into()));
        }
        Ok(Self { file, path, manifest, wanted: false })
    }

    /// Reads piece `number`, and verifies it.
    pub(super) fn verified_piece(&self, number: u32) -> Result<Bytes, SnapshotError> {
        verified_piece(&self.manifest, self.file.as_ref(), &self.path, number)
    }
}

/// What stands at byte 8 of the last block.
fn checksum(trailer: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&trailer[..8]), &trailer[12..TRAILER])
}

/// Whether the last block is one of a snapshot of this format.
fn check_version(trailer: &[u8; TRAILER], path: &Path) -> Result<(), SnapshotError> {
    let stored = u32::from_le_bytes(std::array::from_fn(|i| trailer[8 + i]));
    let is_ours = trailer[..7] == *MAGIC;
    let foreign = |what: String| Err(SnapshotError::Foreign { path: path.to_owned(), what });
    match trailer[7] {
        VERSION if is_ours && checksum(trailer) == stored => Ok(()),
        1 if is_ours && crc32c::crc32c(&trailer[12..]) == stored => foreign(
            "written in format 1, by a version from before the first level: start with an empty data directory".into(),
        ),
        newer if is_ours && checksum(trailer) == stored => foreign(format!(
            "written in format {newer}; this version of quorate-node ({VERSION_OF_BUILD}) reads format {VERSION}: upgrade it"
        )),
        _ => {
            let what = format!("its last block is none of a snapshot of format {VERSION}");
            Err(SnapshotError::Damaged { path: path.to_owned(), what })
        }
    }
}

/// Reads piece `number` of `manifest`'s snapshot from a file, and verifies it.
pub(super) fn verified_piece(
    manifest: &Manifest,
    file: &dyn File,
    path: &Path,
    number: u32,
) -> Result<Bytes, SnapshotError> {
    let mut piece = vec![0; manifest.piece_bytes(number)];
    file.read_at(&mut piece, manifest.offset(number)).during("read", path)?;
    if manifest.fits(number, &piece) {
        return Ok(piece.into());
    }
    let what = format!("piece {number} does not match its hash");
    Err(SnapshotError::Damaged { path: path.to_owned(), what })
}
