//! A segment: a file of frames, behind a header of one block.
//!
//! ```text
//!  byte  size  little-endian
//!     0     8  magic "QUORWAL" and the format's version, 4
//!     8     4  CRC-32C of bytes 0..8 and 12..40
//!    12     4  zero
//!    16     8  the member whose log this is
//!    24     8  number: counts up by one, never used again when the file is recycled
//!    32     8  size in bytes, this header included
//!    40        zeros up to 4096
//! ```
//!
//! Every version to come keeps the magic, and a checksum at byte 8 that covers the version: so that a newer segment is told from a
//! damaged one, and a flipped bit in its version from another version. Version 3 was written before the first level, and has a
//! checksum of bytes 12..40.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use quorate_raft::{Index, MemberId};

use super::disk::File;
use super::record::BLOCK;
use super::{Damage, OpenError};
use crate::level::VERSION;

const MAGIC: [u8; 7] = *b"QUORWAL";
/// The versions that are read; the newest is written. A new one belongs to a level, and is written from that on.
const READ: RangeInclusive<u8> = 4..=4;
const BEFORE_LEVELS: u8 = 3;
const HEADER: usize = 40;

/// A segment of the log.
#[derive(Debug)]
pub(super) struct Segment {
    /// None where it was closed: what is full is only given up.
    pub(super) file: Option<Box<dyn File>>,
    pub(super) path: PathBuf,
    pub(super) number: u64,
    /// Its size, the header included.
    pub(super) bytes: u64,
    /// The highest index of an entry in it; 0 for none.
    pub(super) highest: Index,
}

impl Segment {
    /// Its file.
    ///
    /// # Panics
    /// If it was closed.
    pub(super) fn file(&self) -> &dyn File {
        self.file.as_deref().expect("only what is full is closed")
    }
}

/// A segment's file.
pub(super) fn path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:016x}.wal"))
}

/// The number in a segment's file name.
pub(super) fn number_of(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".wal")?;
    let number = u64::from_str_radix(digits, 16).ok()?;
    // The last one would have no successor.
    (number < u64::MAX && format!("{number:016x}") == digits).then_some(number)
}

/// A segment's first block.
pub(super) fn encode_header(member: MemberId, number: u64, bytes: u64) -> Vec<u8> {
    let mut block = vec![0; BLOCK];
    block[..7].copy_from_slice(&MAGIC);
    block[7] = *READ.end();
    block[16..24].copy_from_slice(&member.0.to_le_bytes());
    block[24..32].copy_from_slice(&number.to_le_bytes());
    block[32..40].copy_from_slice(&bytes.to_le_bytes());
    let checksum = checksum(&block);
    block[8..12].copy_from_slice(&checksum.to_le_bytes());
    block
}

/// What stands at byte 8 of a header.
fn checksum(header: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&header[..8]), &header[12..HEADER])
}

/// Verifies the header of the segment `number` in `path`; returns the segment's size.
pub(super) fn check_header(
    contents: &[u8],
    path: &Path,
    member: MemberId,
    number: u64,
) -> Result<u64, OpenError> {
    let damaged =
        |what: &str| OpenError::from(Damage { path: path.to_owned(), offset: 0, what: what.to_owned() });
    let foreign = |what: String| OpenError::Foreign { path: path.to_owned(), what };
    let header = contents.get(..BLOCK).ok_or_else(|| damaged("the file ends within its header"))?;
    let u64_at = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| header[at + i]));
    if header[..7] != MAGIC {
        return Err(damaged("not the header of a log segment"));
    }
    let stored = u32::from_le_bytes(std::array::from_fn(|i| header[8 + i]));
    let version = header[7];
    if version == BEFORE_LEVELS && crc32c::crc32c(&header[12..HEADER]) == stored {
        let what = "written in format 3, by a version from before the first level: start with an empty data directory";
        return Err(foreign(what.to_owned()));
    }
    if checksum(header) != stored {
        return Err(damaged("the segment's header does not match its checksum"));
    }
    if !READ.contains(&version) {
        let what = format!(
            "written in format {version}; this version of quorate-node ({VERSION}) reads format {}: upgrade it",
            READ.end()
        );
        return Err(foreign(what));
    }
    if u64_at(16) != member.0 {
        return Err(foreign(format!("the log of member {}, not of {member}", MemberId(u64_at(16)))));
    }
    if u64_at(24) != number {
        return Err(damaged(&format!("holds segment {:016x}", u64_at(24))));
    }
    let bytes = u64_at(32);
    if bytes < BLOCK as u64 || !bytes.is_multiple_of(BLOCK as u64) {
        return Err(damaged(&format!("a segment of {bytes} bytes")));
    }
    if (contents.len() as u64) < bytes {
        return Err(damaged(&format!("the file holds {} bytes of {bytes}", contents.len())));
    }
    Ok(bytes)
}
