//! A disk that rots: what it returns is never taken for what was written, and what it has taken is told.

use std::path::Path;

use proptest::prelude::*;
use quorate_node::storage::OpenError;
use quorate_node::storage::disk::Disk as _;
use quorate_raft::LogId;

use crate::disk::{BLOCK, MemDisk, SECTOR};
use crate::model::Model;
use crate::{brief, command, one, open, segment_path, write};

/// Of a frame.
const HEADER: usize = 132;

/// What came of a damaged disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The log is what it was, and nothing was said.
    Unseen,
    /// The log is what it was.
    Harmless,
    /// Entries are missing, and that is known.
    Lost,
    /// Nothing can be done with it.
    Refused,
}

/// Opens a log that should hold what `model` says, and may be damaged. Nothing of it may be missing without a word, and nothing may
/// be overwritten.
pub(crate) fn judge(disk: &MemDisk, model: &Model) -> Verdict {
    let before = disk.files();
    let (wal, recovered) = match open(disk) {
        Ok(opened) => opened,
        Err(OpenError::Damaged(_) | OpenError::Foreign { .. }) => {
            assert_eq!(disk.files(), before, "something was overwritten");
            return Verdict::Refused;
        }
        Err(other) => panic!("{other}"),
    };
    drop(wal);
    if recovered.uncertain_tail {
        assert!(model.is(&recovered), "what was cut was durable: {}", brief(&recovered));
    } else {
        assert_eq!(disk.files(), before, "something was overwritten");
    }
    let Some(lost) = recovered.lost else {
        assert!(model.is(&recovered), "{}, not {:?} {:?}", brief(&recovered), model.hard_state, model.end());
        return if recovered.damage.is_empty() { Verdict::Unseen } else { Verdict::Harmless };
    };
    assert!(lost >= model.end(), "{lost:?} is older than {:?}", model.end());
    assert!(!recovered.damage.is_empty());
    let whole = recovered.entries.len();
    assert!(whole < model.entries.len(), "all is there, and {lost:?} said to be lost");
    assert!(recovered.entries == model.entries[..whole], "{}", brief(&recovered));
    assert_eq!(recovered.base, model.base);
    let (found, were) = (recovered.hard_state, model.hard_state);
    assert_eq!((found.term, found.vote), (were.term, were.vote));
    assert!(found.commit <= were.commit);
    Verdict::Lost
}

/// Two segments with frames and one that is prepared. The last group has 3000 bytes.
fn log() -> (MemDisk, Model) {
    let disk = MemDisk::default();
    let (mut wal, _) = open(&disk).unwrap();
    let mut model = Model::default();
    let first =
        [(1, 300), (2, 9000), (3, 300), (4, 12_000), (5, 300)].map(|(index, length)| one(index, length));
    let in_term_2 = |(index, length)| write(Some(crate::term(2)), vec![command(2, index, length)]);
    for write in first.into_iter().chain([(4, 300), (5, 3000)].map(in_term_2)) {
        wal.append(std::slice::from_ref(&write)).unwrap();
        model.append(&[write]);
    }
    while wal.prepare().unwrap() {}
    assert_eq!(disk.files().len(), 3);
    (disk, model)
}

/// Where frames start.
fn frames(disk: &MemDisk, segment: u64) -> Vec<usize> {
    let contents = &disk.files()[&segment_path(segment)];
    (0..contents.len()).step_by(BLOCK).filter(|at| contents[*at..].starts_with(b"QFRM")).collect()
}

/// Where the last frame starts, in the second segment.
fn last_frame(disk: &MemDisk) -> usize {
    *frames(disk, 2).last().expect("there are frames")
}

fn flip(disk: &MemDisk, model: &Model, path: &Path, bit: usize) -> Verdict {
    let disk = disk.fork();
    disk.tamper(path, |bytes| bytes[bit / 8] ^= 1 << (bit % 8));
    judge(&disk, model)
}

#[test]
fn every_bit_of_every_header() {
    let (disk, model) = log();
    for (path, contents) in disk.files() {
        for at in (0..contents.len()).step_by(BLOCK) {
            let used = match &contents[at..at + 8] {
                magic if magic.starts_with(b"QUORWAL") => 40,
                magic if magic.starts_with(b"QFRM") => HEADER,
                _ => continue,
            };
            for bit in at * 8..(at + used) * 8 {
                let verdict = flip(&disk, &model, &path, bit);
                assert_ne!(verdict, Verdict::Unseen, "bit {bit} of {}", path.display());
            }
        }
    }
}

/// The last frame's header has term and vote: it cannot do without. Its entries are not cut: it was written in full, so they may
/// have been acknowledged.
#[test]
fn every_byte_of_the_last_frame() {
    let (disk, model) = log();
    let start = last_frame(&disk);
    for at in 0..HEADER + 3000 {
        let wanted = if at < HEADER { Verdict::Refused } else { Verdict::Lost };
        let byte = start + at;
        assert_eq!(flip(&disk, &model, &segment_path(2), byte * 8 + at % 8), wanted, "byte {at}");
    }
}

/// Any frame before the last one may be gone altogether.
#[test]
fn every_frame() {
    let (disk, model) = log();
    let (first, second) = (frames(&disk, 1), frames(&disk, 2));
    assert_eq!((first.len(), second.len()), (3, 4));
    let places = first.into_iter().map(|at| (1, at)).chain(second.into_iter().map(|at| (2, at)));
    // Entries 4 and 5 of term 1 were replaced: they are not missed. What replaced entry 4 leaves nothing certain.
    let whole = [Some(0), Some(1), Some(2), None, None, Some(0), None];
    for ((segment, at), whole) in places.zip(whole) {
        let disk = disk.fork();
        let last = (segment, at) == (2, last_frame(&disk));
        disk.tamper(&segment_path(segment), |bytes| bytes[at..at + HEADER].fill(0xee));
        let Ok((_, recovered)) = open(&disk) else {
            assert!(last, "the frame at {at} in segment {segment} is not needed");
            continue;
        };
        let Some(whole) = whole else {
            assert!(model.is(&recovered) && !recovered.damage.is_empty(), "{}", brief(&recovered));
            continue;
        };
        assert_eq!((recovered.entries.len(), recovered.lost), (whole, Some(LogId { term: 2, index: 5 })));
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
    fn scribbles(segment in 1..=3_u64, at in any::<prop::sample::Index>(), seed in any::<u64>(), length in 1..6000_usize) {
        let (disk, model) = log();
        disk.tamper(&segment_path(segment), |bytes| {
            let at = at.index(bytes.len());
            let end = (at + length).min(bytes.len());
            bytes[at..end].copy_from_slice(&crate::noise(seed, end - at));
        });
        judge(&disk, &model);
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
            if segment == 2 && at >= last_frame(&disk) {
                let (_, recovered) = open(&disk).unwrap();
                assert!(recovered.uncertain_tail || model.is(&recovered), "sector {at}");
                assert!(
                    recovered.entries == model.entries[..recovered.entries.len()],
                    "{}",
                    brief(&recovered)
                );
            } else {
                judge(&disk, &model);
            }
        }
    }
}

/// Blocks that cannot be read are damage too.
#[test]
fn unreadable_blocks() {
    let (disk, model) = log();
    for segment in [1, 2, 3] {
        let path = segment_path(segment);
        for block in 0..disk.files()[&path].len() / BLOCK {
            let disk = disk.fork();
            disk.spoil(&path, [block]);
            match open(&disk) {
                Ok((_, recovered)) => {
                    let missing = recovered.entries.len() < model.entries.len();
                    assert_eq!(recovered.lost.is_some(), missing, "block {block} of segment {segment}");
                    assert!(recovered.damage.iter().any(|damage| damage.what.contains("cannot read this")));
                }
                Err(OpenError::Damaged(_)) => assert!(segment > 1, "block {block} of segment {segment}"),
                Err(other) => panic!("{other}"),
            }
        }
    }
}

/// Segments that are gone, cut short, exchanged or another member's.
#[test]
fn files_that_are_not_what_they_were() {
    let (disk, model) = log();
    let changed = |change: &dyn Fn(&MemDisk)| {
        let disk = disk.fork();
        change(&disk);
        disk
    };
    let refused = |change: &dyn Fn(&MemDisk), words: &str| {
        let error = open(&changed(change)).expect_err(words).to_string();
        assert!(error.contains(words), "{error}");
    };
    let lost = |change: &dyn Fn(&MemDisk), whole: usize| {
        let disk = changed(change);
        let (_, recovered) = open(&disk).unwrap();
        assert_eq!(
            (recovered.entries.len(), recovered.lost),
            (whole, Some(model.end())),
            "{}",
            brief(&recovered)
        );
    };
    lost(&|disk| disk.remove(&segment_path(1)).unwrap(), 0);
    lost(&|disk| disk.tamper(&segment_path(1), |bytes| bytes.truncate(9000)), 1);
    lost(&|disk| disk.tamper(&segment_path(1), |bytes| bytes.truncate(100)), 0);
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
