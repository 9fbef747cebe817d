//! A stream of records, each behind its length as a varint: what snapshots and copies of a state are made of.

use bytes::{Buf, Bytes, BytesMut};
use prost::Message;

use super::check::MAX_REQUEST_BYTES;

/// No record is longer: a version comes of one request.
pub const MAX_RECORD_BYTES: usize = 2 * MAX_REQUEST_BYTES;

/// What the length of a varint cannot exceed.
const MAX_PREFIX: usize = 10;

/// A record's length makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadLength {
    /// It does not end, or not within 64 bits.
    #[error("its length")]
    Malformed,
    /// No record has so many bytes.
    #[error("it has {0} bytes")]
    TooLong(usize),
}

/// A record of so many bytes would be refused by [`take`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a record of {0} bytes could not be read back")]
pub struct TooLong(pub usize);

/// Whether a record can be appended to a stream.
pub fn check(record: &impl Message) -> Result<(), TooLong> {
    let length = record.encoded_len();
    if length > MAX_RECORD_BYTES { Err(TooLong(length)) } else { Ok(()) }
}

/// Appends a record to the stream, unless it could not be taken off again.
pub fn append(stream: &mut BytesMut, record: &impl Message) -> Result<(), TooLong> {
    check(record)?;
    record.encode_length_delimited(stream).expect("a buffer that grows has room");
    Ok(())
}

/// Takes a record off the stream, if all of it is there.
pub fn take(stream: &mut BytesMut) -> Result<Option<Bytes>, BadLength> {
    // The last byte of a varint, and no other, has no high bit.
    let Some(prefix) = stream.iter().take(MAX_PREFIX).position(|byte| byte & 0x80 == 0) else {
        return if stream.len() < MAX_PREFIX { Ok(None) } else { Err(BadLength::Malformed) };
    };
    let length = prost::decode_length_delimiter(&stream[..]).map_err(|_| BadLength::Malformed)?;
    if length > MAX_RECORD_BYTES {
        return Err(BadLength::TooLong(length));
    }
    if stream.len() <= prefix + length {
        return Ok(None);
    }
    stream.advance(prefix + 1);
    Ok(Some(stream.split_to(length).freeze()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_appended_is_taken_off_again_and_nothing_else_is_appended() {
        let mut stream = BytesMut::new();
        // A message of one field: a byte for what it is, and four for its length.
        for bytes in [0, 1, MAX_RECORD_BYTES - 5, MAX_RECORD_BYTES - 4, MAX_RECORD_BYTES] {
            let record = vec![7_u8; bytes];
            match append(&mut stream, &record) {
                Ok(()) => {
                    let taken = take(&mut stream).expect("its length is right").expect("all of it is there");
                    assert_eq!(Vec::<u8>::decode(&taken[..]), Ok(record));
                }
                Err(TooLong(length)) => assert!(length > MAX_RECORD_BYTES && bytes > MAX_RECORD_BYTES - 5),
            }
            assert!(stream.is_empty());
        }
    }
}
