//! Logs of other versions: refused by name, never taken for damaged, never changed.

use prost::Message as _;
use quorate_api::log;
use quorate_node::level::{NEWEST, Subject};
use quorate_node::storage::OpenError;

use crate::disk::{BLOCK, MemDisk};
use crate::{one, open, segment_path};

/// A log of a segment with three frames.
fn log() -> MemDisk {
    let disk = MemDisk::default();
    let (mut wal, _) = open(&disk).unwrap();
    for index in 1..4 {
        wal.append(&[one(index, 300)]).unwrap();
    }
    disk
}

/// What opening says. Nothing may change by it.
fn refused(disk: &MemDisk) -> OpenError {
    let before = disk.files();
    let error = open(disk).map(drop).expect_err("it is of another version");
    assert_eq!(disk.files(), before, "something was overwritten");
    error
}

fn write_u32(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

#[test]
fn a_segment_of_another_version_is_refused_by_name() {
    for (version, says) in [(3, "before the first level"), (5, "upgrade it"), (255, "upgrade it")] {
        let disk = log();
        disk.tamper(&segment_path(1), |bytes| {
            bytes[7] = version;
            // Before the first level the checksum did not cover the version.
            let first = if version == 3 { 0 } else { crc32c::crc32c(&bytes[..8]) };
            let checksum = crc32c::crc32c_append(first, &bytes[12..40]);
            write_u32(bytes, 8, checksum);
        });
        let error = refused(&disk);
        assert!(matches!(&error, OpenError::Foreign { what, .. } if what.contains(says)), "{error}");
    }
}

/// It was taken for another version, where a flip anywhere else in the header is borne.
#[test]
fn a_bit_that_flips_in_the_version_is_borne_like_any_other() {
    let disk = log();
    let (mut wal, _) = open(&disk).unwrap();
    // The newest frame is to lie in the next segment.
    for index in 4..20 {
        wal.append(&[one(index, 9000)]).unwrap();
        while wal.prepare().unwrap() {}
    }
    drop(wal);
    for bit in 0..8 {
        let disk = disk.fork();
        disk.tamper(&segment_path(1), |bytes| bytes[7] ^= 1 << bit);
        let (_, recovered) = open(&disk).unwrap();
        assert_eq!((recovered.damage.len(), recovered.lost), (1, None), "bit {bit}");
    }
}

/// Puts `entry` in the place of the entries of the frame at byte `at` of the first segment, as a version would write it that knows more.
fn rewrite(disk: &MemDisk, at: usize, entry: &log::Entry) {
    let payload = entry.encode_length_delimited_to_vec();
    disk.tamper(&segment_path(1), |bytes| {
        bytes[at + 132..at + BLOCK].fill(0);
        bytes[at + 132..at + 132 + payload.len()].copy_from_slice(&payload);
        write_u32(bytes, at + 8, crc32c::crc32c(&payload));
        write_u32(bytes, at + 12, payload.len() as u32);
        write_u32(bytes, at + 128, 0);
        let checksum = crc32c::crc32c(&bytes[at + 8..at + 132]);
        write_u32(bytes, at + 4, checksum);
    });
}

/// C1 of the review: such a frame was said to be damaged.
#[test]
fn an_entry_that_a_newer_version_wrote_is_no_damage() {
    let newest = 3 * BLOCK;
    for (format, needs) in [(0, None), (NEWEST + 1, Some(NEWEST + 1))] {
        let disk = log();
        rewrite(&disk, newest, &log::Entry { term: 1, payload: None, format });
        let error = refused(&disk);
        let OpenError::Unsupported(unsupported) = &error else { panic!("{error}") };
        assert_eq!((&unsupported.what, unsupported.needs), (&Subject::Entry(3), needs));
        assert!(error.to_string().contains("upgrade it. Nothing was changed"), "{error}");
    }
    // The same bytes with something else wrong are damage, as ever.
    let disk = log();
    rewrite(&disk, newest, &log::Entry { term: 1, payload: None, format: 0 });
    disk.tamper(&segment_path(1), |bytes| bytes[newest + 134] ^= 1);
    assert!(!matches!(open(&disk), Err(OpenError::Unsupported(_))));
}
