//! A disk that rots: what it returns is never taken for what was written.

use std::path::Path;

use proptest::prelude::*;
use quorate_node::storage::OpenError;
use quorate_node::storage::disk::Disk as _;

use crate::disk::{MemDisk, SECTOR};
use crate::model::Model;
use crate::{one, open, segment_path};

/// Where frames start, and the segments' headers end.
const BLOCK: usize = 4096;

/// Two segments with frames and one that is prepared. The last group has 3000 bytes.
fn log() -> (MemDisk, Model) {
    let disk = MemDisk::default();
    let (mut wal, _) = open(&disk).unwrap();
    let mut model = Model::default();
    let writes = [(1, 300), (2, 9000), (3, 300), (4, 12_000), (5, 300), (4, 300), (5, 3000)];
    for write in writes.map(|(index, length)| one(index, length)) {
        wal.append(std::slice::from_ref(&write)).unwrap();
        model.append(&[write]);
    }
    while wal.prepare().unwrap() {}
    assert_eq!(disk.files().len(), 3);
    (disk, model)
}

/// Where the last frame starts, in the second segment.
fn last_frame(disk: &MemDisk) -> usize {
    let contents = &disk.files()[&segment_path(2)];
    let last = (0..contents.len()).step_by(BLOCK).rfind(|at| contents[*at..].starts_with(b"QFRM"));
    last.expect("there are frames")
}

/// Flips one bit; the log must be refused, or be what it was.
fn flip(disk: &MemDisk, model: &Model, path: &Path, bit: usize) -> bool {
    let disk = disk.fork();
    disk.tamper(path, |bytes| bytes[bit / 8] ^= 1 << (bit % 8));
    let before = disk.files();
    match open(&disk) {
        Ok((_, recovered)) => {
            assert!(model.is(&recovered), "bit {bit} of {} made a difference", path.display());
            false
        }
        Err(OpenError::Damaged { .. } | OpenError::Foreign { .. }) => {
            assert_eq!(disk.files(), before, "something was overwritten");
            true
        }
        Err(other) => panic!("bit {bit}: {other}"),
    }
}

#[test]
fn every_bit_of_every_header() {
    let (disk, model) = log();
    for (path, contents) in disk.files() {
        for at in (0..contents.len()).step_by(BLOCK) {
            let used = match &contents[at..at + 8] {
                magic if magic.starts_with(b"QUORWAL") => 40,
                magic if magic.starts_with(b"QFRM") => 96,
                _ => continue,
            };
            for bit in at * 8..(at + used) * 8 {
                assert!(flip(&disk, &model, &path, bit), "bit {bit} of {} went unseen", path.display());
            }
        }
    }
}

/// The last frame is refused, not cut: it was written in full, so it may have been acknowledged.
#[test]
fn every_byte_of_the_last_frame() {
    let (disk, model) = log();
    let start = last_frame(&disk);
    for at in start..start + 96 + 3000 {
        assert!(flip(&disk, &model, &segment_path(2), at * 8 + at % 8), "byte {at} went unseen");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn any_bit(segment in 1..=3_u64, bits in prop::collection::vec(any::<prop::sample::Index>(), 16)) {
        let (disk, model) = log();
        let path = segment_path(segment);
        let length = disk.files()[&path].len();
        for bit in bits {
            flip(&disk, &model, &path, bit.index(length * 8));
        }
    }

    /// Any bytes over any place, also longer than a frame.
    #[test]
    fn scribbles(segment in 1..=3_u64, at in any::<prop::sample::Index>(), junk in prop::collection::vec(any::<u8>(), 1..6000)) {
        let (disk, model) = log();
        disk.tamper(&segment_path(segment), |bytes| {
            let at = at.index(bytes.len());
            let end = (at + junk.len()).min(bytes.len());
            bytes[at..end].copy_from_slice(&junk[..end - at]);
        });
        if let Ok((_, recovered)) = open(&disk) {
            prop_assert!(model.is(&recovered));
        }
    }
}

/// A sector that the device lost is damage where frames follow. In the last frame it looks like a torn write: it is cut, and said.
#[test]
fn lost_sectors() {
    let (disk, model) = log();
    for segment in [1, 2] {
        let path = segment_path(segment);
        let length = disk.files()[&path].len();
        for at in (0..length).step_by(SECTOR) {
            let disk = disk.fork();
            disk.tamper(&path, |bytes| bytes[at..at + SECTOR].fill(0));
            match open(&disk) {
                Err(OpenError::Damaged { .. }) => {}
                Err(other) => panic!("{other}"),
                Ok((_, recovered)) if recovered.uncertain_tail => {
                    assert!(segment == 2 && at >= last_frame(&disk));
                    assert_eq!(recovered.entries, model.entries[..4]);
                }
                Ok((_, recovered)) => assert!(model.is(&recovered), "sector {at} of segment {segment}"),
            }
        }
    }
}

/// Segments that are gone, cut short, exchanged or another member's.
#[test]
fn files_that_are_not_what_they_were() {
    let (disk, _) = log();
    let refused = |change: &dyn Fn(&MemDisk), words: &str| {
        let disk = disk.fork();
        change(&disk);
        let error = open(&disk).expect_err(words).to_string();
        assert!(error.contains(words), "{error}");
    };
    refused(&|disk| disk.remove(&segment_path(1)).unwrap(), "entries");
    refused(&|disk| disk.remove(&segment_path(2)).unwrap(), "the segment is missing");
    refused(
        &|disk| disk.tamper(&segment_path(2), |bytes| bytes.truncate(20_000)),
        "the file holds 20000 bytes",
    );
    refused(&|disk| disk.tamper(&segment_path(2), |bytes| bytes.truncate(100)), "ends within its header");
    refused(&|disk| disk.rename(&segment_path(1), &segment_path(3)).unwrap(), "holds segment");
    let other = MemDisk::default();
    drop(crate::Wal::open(
        &crate::dir(),
        crate::WalOptions { member: quorate_raft::MemberId(8), ..crate::options(&other) },
    ));
    let theirs = other.files()[&segment_path(1)].clone();
    refused(
        &|disk| disk.tamper(&segment_path(1), |bytes| bytes.clone_from(&theirs)),
        "the log of member 0000000000000008",
    );
}
