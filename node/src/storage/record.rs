//! A frame: one group of entries with the hard state that holds from it on, made durable by one write and one fdatasync.
//!
//! ```text
//!  byte  size  little-endian
//!     0     4  magic "QFRM"
//!     4     4  CRC-32C of bytes 8..132: the frame's checksum, named by its successor
//!     8     4  CRC-32C of the payload, as it stands here
//!    12     4  length of the payload in bytes
//!    16     8  number of the segment that it was written for (a segment's number is its generation: never used again)
//!    24     8  sequence number, counting up by one over all segments
//!    32     4  checksum of the frame before it; 0 in the first
//!    36     4  how many sectors of the frame are blank (all zero) although they were written
//!    40     8  term
//!    48     8  vote; 0 for none
//!    56     8  commit index
//!    64     8  index of the entry that the log begins after: it and what comes before it may be gone; 0 for none
//!    72     8  last index of the log, once this frame's entries are in it
//!    80     4  number of entries
//!    84     4  1 if the log begins anew here: nothing that stands in earlier frames belongs to it any more; else 0
//!    88     8  term of the entry that the log begins after
//!    96     8  term of the last entry of the log
//!   104     8  term of the entry before the first of this frame; of the last one when there are none
//!   112     8  index of the newest entry that damage has taken and that is not made good yet; 0 for none
//!   120     8  its term
//!   128     4  mask: what every word of four bytes of the payload, counted from the frame's start, was XORed with; mostly 0
//!   132        payload: the entries up to the last, each a length-delimited quorate.log.v1.Entry
//!              zeros up to the next multiple of 4096
//! ```
//!
//! The header says which entries the frame holds and which one they follow, so that a damaged payload leaves a hole of known
//! extent, and so that the entries behind a frame of which nothing is left can be matched with those before it (by term and
//! index: logs that have one entry in common have the same before it).
//!
//! No block within a frame begins with the magic: the mask sees to that. So when a header is gone, and the next frame has to be
//! looked for at every block, what a client has put into a value is never taken for one.
//!
//! Frames start at multiples of 4 KiB ([`BLOCK`]), not right behind one another. A packed frame would share its first block
//! with the end of the one before, and writing it would write durable, acknowledged bytes again: on a device whose unit of
//! writing is 4 KiB, a power cut in that moment may take both. Here a block that holds a durable frame is never written again
//! before its segment is recycled. The page cache writes whole pages in any case, so what is paid is space in the segment,
//! not traffic of the log; and a write that covers whole pages never reads one first.
//!
//! Whatever lies ahead of the log's end is zero, and a sector of 512 bytes is written whole or not at all. So a frame that does
//! not verify can be told apart: sectors that are blank and should not be were never written ([`Defect::Torn`]; if it is the
//! newest frame, it was not acknowledged); when there are none, the frame was written in full, and what it holds has changed
//! since ([`Defect::Damaged`]). What remains is a sector of a durable frame that the device itself has turned to zeros.

use std::collections::BTreeSet;

use bytes::{Buf, Bytes};
use prost::Message as _;
use quorate_api::log;
use quorate_raft::{Entry, HardState, Index, LogId, MemberId};

use crate::codec::{self, CodecError};
use crate::level::Level;

/// What frames are aligned to, and the size of a segment's header.
pub(super) const BLOCK: usize = 4096;
/// What a disk writes whole or not at all.
const SECTOR: usize = 512;
const HEADER: usize = 132;
const MAGIC: [u8; 4] = *b"QFRM";

/// A frame, without its entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Header {
    /// The segment that it was written for.
    pub(super) segment: u64,
    /// Its place among all frames; the first is 1.
    pub(super) sequence: u64,
    /// The checksum of the frame before it.
    pub(super) previous: u32,
    /// What holds from it on.
    pub(super) hard_state: HardState,
    /// The log begins after this entry.
    pub(super) base: LogId,
    /// It begins anew: what earlier frames hold is not part of it.
    pub(super) reset: bool,
    /// The entry that this frame's entries follow; what stood behind it is replaced.
    pub(super) before: LogId,
    /// The end of the log.
    pub(super) last: LogId,
    /// The newest entry that damage has taken, or may have been forgotten, while that is not made good. Its index may be `u64::MAX`: whatever there
    /// was of that term.
    pub(super) lost: Option<LogId>,
}

/// A frame whose header is intact.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) header: Header,
    /// From behind `header.before` up to `header.last`, if they are intact too.
    pub(super) entries: Result<Vec<Entry>, Defect>,
    /// What its successor names.
    pub(super) checksum: u32,
    /// With its padding, and no more than there are.
    pub(super) bytes: usize,
}

/// Why there is no frame, or what is wrong with one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Defect {
    /// Its first sector was never written.
    Absent,
    /// It was not written in full.
    Torn,
    /// It was written in full, and is not what was written.
    Damaged(String),
    /// A newer version has written it: this entry, which needs this level, if it says so.
    Newer(Index, Option<Level>),
}

/// A group's frame is larger than the format can say.
#[derive(Debug)]
pub(super) struct TooLarge;

/// Makes `buffer` the frame that ends with `entries`; returns its checksum.
pub(super) fn encode(buffer: &mut Vec<u8>, header: &Header, entries: &[&Entry]) -> Result<u32, TooLarge> {
    buffer.clear();
    buffer.resize(HEADER, 0);
    for entry in entries {
        codec::entry_to_wire(entry).encode_length_delimited(buffer).map_err(|_| TooLarge)?;
    }
    let length = u32::try_from(buffer.len() - HEADER).map_err(|_| TooLarge)?;
    let count = u32::try_from(entries.len()).map_err(|_| TooLarge)?;
    let mask = mask_for(buffer);
    apply_mask(&mut buffer[HEADER..], mask);
    buffer.resize(buffer.len().next_multiple_of(BLOCK), 0);

    let (head, payload) = buffer.split_at_mut(HEADER);
    let mut field = |at: usize, bytes: &[u8]| head[at..at + bytes.len()].copy_from_slice(bytes);
    let lost = header.lost.unwrap_or_default();
    field(0, &MAGIC);
    field(8, &crc32c::crc32c(&payload[..length as usize]).to_le_bytes());
    field(12, &length.to_le_bytes());
    field(16, &header.segment.to_le_bytes());
    field(24, &header.sequence.to_le_bytes());
    field(32, &header.previous.to_le_bytes());
    field(40, &header.hard_state.term.to_le_bytes());
    field(48, &header.hard_state.vote.map_or(0, |id| id.0).to_le_bytes());
    field(56, &header.hard_state.commit.to_le_bytes());
    field(64, &header.base.index.to_le_bytes());
    field(72, &header.last.index.to_le_bytes());
    field(80, &count.to_le_bytes());
    field(84, &u32::from(header.reset).to_le_bytes());
    field(88, &header.base.term.to_le_bytes());
    field(96, &header.last.term.to_le_bytes());
    field(104, &header.before.term.to_le_bytes());
    field(112, &lost.index.to_le_bytes());
    field(120, &lost.term.to_le_bytes());
    field(128, &mask.to_le_bytes());
    let blank = blank_sectors(buffer, length as usize);
    buffer[36..40].copy_from_slice(&blank.to_le_bytes());
    let checksum = crc32c::crc32c(&buffer[8..HEADER]);
    buffer[4..8].copy_from_slice(&checksum.to_le_bytes());
    Ok(checksum)
}

/// The frame at the start of `bytes`, which run to the end of segment `segment`. An error when its header is not intact.
pub(super) fn decode(bytes: &[u8], segment: u64) -> Result<Frame, Defect> {
    let first = bytes.get(..SECTOR).ok_or_else(|| damaged("the segment ends within a frame"))?;
    if is_blank(first) {
        return Err(Defect::Absent);
    }
    let u32_at = |at: usize| u32::from_le_bytes(array(first, at));
    let u64_at = |at: usize| u64::from_le_bytes(array(first, at));
    let checksum = u32_at(4);
    if array(first, 0) != MAGIC || crc32c::crc32c(&first[8..HEADER]) != checksum {
        return Err(damaged("a frame's header does not match its checksum"));
    }
    if u64_at(16) != segment {
        return Err(damaged(&format!("a frame that was written for segment {}", u64_at(16))));
    }
    let last = LogId { term: u64_at(96), index: u64_at(72) };
    let count = u64::from(u32_at(80));
    let base = LogId { term: u64_at(88), index: u64_at(64) };
    let before = last.index.checked_sub(count);
    let before = before.filter(|before| last.index < Index::MAX && base.index <= *before);
    let before = before.ok_or_else(|| damaged("a frame's entries have impossible indices"))?;
    let before = LogId { term: u64_at(104), index: before };
    let reset = u32_at(84) != 0;
    let in_order = base.term <= before.term && before.term <= last.term;
    if !in_order || (count == 0 && before != last) || (reset && before != base) {
        return Err(damaged("a frame's header contradicts itself"));
    }
    let header = Header {
        segment,
        sequence: u64_at(24),
        previous: u32_at(32),
        hard_state: HardState {
            term: u64_at(40),
            vote: Some(MemberId(u64_at(48))).filter(|id| id.0 != 0),
            commit: u64_at(56),
        },
        base,
        reset,
        before,
        last,
        lost: Some(LogId { term: u64_at(120), index: u64_at(112) }).filter(|lost| lost.index != 0),
    };

    let length = u32_at(12) as usize;
    let entries = match bytes.get(HEADER..HEADER + length) {
        None => Err(damaged("a frame is longer than its segment")),
        Some(payload) if crc32c::crc32c(payload) == u32_at(8) => {
            let mut payload = payload.to_vec();
            apply_mask(&mut payload, u32_at(128));
            decode_entries(payload.into(), &header)
        }
        Some(_) if blank_sectors(bytes, length) > u32_at(36) => Err(Defect::Torn),
        Some(_) => Err(damaged("a frame does not match its checksum")),
    };
    let bytes = (HEADER + length).next_multiple_of(BLOCK).min(bytes.len());
    Ok(Frame { header, entries, checksum, bytes })
}

/// The first mask under which no block of `frame` but the first begins with the magic.
fn mask_for(frame: &[u8]) -> u32 {
    let taken: BTreeSet<u32> = frame
        .chunks(BLOCK)
        .skip(1)
        .filter(|block| block.len() >= 4)
        .map(|block| u32::from_le_bytes(array(block, 0)) ^ u32::from_le_bytes(MAGIC))
        .collect();
    (0..=u32::MAX).find(|mask| !taken.contains(mask)).expect("a frame has fewer blocks than there are masks")
}

/// Puts a mask on a payload, or takes it away. It begins at a multiple of four in its frame.
fn apply_mask(payload: &mut [u8], mask: u32) {
    if mask != 0 {
        for (byte, mask) in payload.iter_mut().zip(mask.to_le_bytes().into_iter().cycle()) {
            *byte ^= mask;
        }
    }
}

/// The entries that `header` speaks of.
fn decode_entries(mut payload: Bytes, header: &Header) -> Result<Vec<Entry>, Defect> {
    let malformed = |error: CodecError| match error {
        CodecError::Newer { index, needs } => Defect::Newer(index, needs),
        error => damaged(&format!("a frame holds a bad entry: {error}")),
    };
    let mut wire = Vec::new();
    while payload.has_remaining() {
        wire.push(log::Entry::decode_length_delimited(&mut payload).map_err(|e| malformed(e.into()))?);
    }
    let entries = codec::entries_from_wire(header.before.index + 1, wire).map_err(malformed)?;
    if entries.last().map_or(header.before, Entry::id) != header.last {
        return Err(damaged("a frame does not hold the entries that it says"));
    }
    if entries.first().is_some_and(|first| first.term < header.before.term) {
        return Err(damaged("a frame's entries are of a term before that of the entry that they follow"));
    }
    Ok(entries)
}

/// The blank sectors among those that a frame with `length` bytes of payload touches.
fn blank_sectors(bytes: &[u8], length: usize) -> u32 {
    let end = (HEADER + length).next_multiple_of(SECTOR).min(bytes.len());
    bytes[..end].chunks(SECTOR).filter(|sector| is_blank(sector)).count() as u32
}

/// Whether `bytes` are zeros.
pub(super) fn is_blank(bytes: &[u8]) -> bool {
    // By comparing blocks: the rest of a segment is looked through at every start.
    const ZEROS: [u8; BLOCK] = [0; BLOCK];
    bytes.chunks(BLOCK).all(|chunk| *chunk == ZEROS[..chunk.len()])
}

/// `N` bytes of a header, whose length is known.
fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    std::array::from_fn(|i| bytes[at + i])
}

fn damaged(what: &str) -> Defect {
    Defect::Damaged(what.to_owned())
}
