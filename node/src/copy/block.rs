//! A block: a part of the stream of records, behind its checksum.

use crate::copy::sled::MOST_BLOCK_BYTES;

/// Of CRC-32C, little-endian: over the block's number and what follows.
const CHECKSUM: usize = 4;

/// The most of the stream that a block holds. sled puts up to sixteen into a page, keeps at least 256 pages in memory, and looks for
/// pages to give up only every 64 accesses: of larger blocks all that was ever written would stay there.
pub(super) const BYTES: usize = 4096;

const _: () = assert!(BYTES + CHECKSUM <= MOST_BLOCK_BYTES);

/// The block `number` with this part of the stream.
pub(super) fn seal(number: u64, part: &[u8]) -> Vec<u8> {
    let mut block = checksum(number, part).to_le_bytes().to_vec();
    block.extend_from_slice(part);
    block
}

/// The part of the stream that block `number` holds, if it is whole.
pub(super) fn open(number: u64, block: &[u8]) -> Option<&[u8]> {
    let (checked, part) = block.split_at_checked(CHECKSUM)?;
    (checked == checksum(number, part).to_le_bytes()).then_some(part)
}

fn checksum(number: u64, part: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&number.to_le_bytes()), part)
}
