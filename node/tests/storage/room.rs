//! The next segment: made ready at the pace of the log, and missed in time when the disk is full.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use quorate_node::storage::disk::{Dir, Disk, File, OsDisk};
use quorate_node::storage::{Lack, Room, Wal, WalError, WalOptions, space};
use rustix::io::Errno;

use crate::disk::MemDisk;
use crate::{MEMBER, SEGMENT, dir, one, open};

const MIB: usize = 1 << 20;
const PIECE: u64 = 512 * 1024;

/// A disk that counts the bytes that are zeroed ahead of the log.
#[derive(Debug, Clone, Default)]
struct Counting {
    disk: MemDisk,
    zeroed: Arc<AtomicU64>,
    /// There is no room for a directory's names.
    no_names: Arc<AtomicBool>,
}

#[derive(Debug)]
struct CountingDir {
    dir: Box<dyn Dir>,
    no_names: Arc<AtomicBool>,
}

#[derive(Debug)]
struct CountingFile {
    file: Box<dyn File>,
    zeroed: Arc<AtomicU64>,
}

impl Counting {
    /// One that can reserve blocks.
    fn reserving() -> Self {
        Self { disk: MemDisk::new(true), ..Self::default() }
    }

    fn file(&self, file: Box<dyn File>) -> Box<dyn File> {
        Box::new(CountingFile { file, zeroed: Arc::clone(&self.zeroed) })
    }

    /// How many bytes were zeroed since it was asked last.
    fn zeroed(&self) -> u64 {
        self.zeroed.swap(0, Ordering::Relaxed)
    }

    /// With segments of 16 MiB.
    fn open(&self) -> Wal {
        let options =
            WalOptions { segment_bytes: 16 << 20, disk: Arc::new(self.clone()), ..WalOptions::new(MEMBER) };
        let wal = Wal::open(&dir(), options).unwrap().0;
        self.zeroed();
        wal
    }
}

impl Disk for Counting {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.disk.create_dir(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.disk.list(dir)
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn File>> {
        Ok(self.file(self.disk.open(path)?))
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn File>> {
        Ok(self.file(self.disk.create(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.disk.remove(path)
    }

    fn open_dir(&self, dir: &Path) -> io::Result<Box<dyn Dir>> {
        Ok(Box::new(CountingDir { dir: self.disk.open_dir(dir)?, no_names: Arc::clone(&self.no_names) }))
    }
}

impl Dir for CountingDir {
    fn sync(&self) -> io::Result<()> {
        if self.no_names.load(Ordering::Relaxed) { Err(Errno::NOSPC.into()) } else { self.dir.sync() }
    }
}

impl File for CountingFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync()
    }

    fn zero(&self, offset: u64, length: u64) -> io::Result<()> {
        self.zeroed.fetch_add(length, Ordering::Relaxed);
        self.file.zero(offset, length)
    }

    fn reserve(&self, length: u64) -> io::Result<bool> {
        self.file.reserve(length)
    }
}

/// Appends groups of `bytes` without a pause, over several segments. The most that was zeroed for one of them.
fn most_zeroed(disk: &Counting, wal: &mut Wal, next: &mut u64, bytes: usize, total: usize) -> u64 {
    let appends = (0..total / bytes).map(|_| {
        wal.append(&[one(*next, bytes)]).unwrap();
        *next += 1;
        disk.zeroed()
    });
    appends.max().unwrap()
}

/// As btrfs and quotas do it.
#[test]
fn a_name_that_finds_no_room_is_tried_again() {
    let disk = Counting::default();
    let mut wal = disk.open();
    disk.no_names.store(true, Ordering::Relaxed);
    while wal.prepare().unwrap() {}
    assert_eq!(wal.room().lacks, Some(Lack::Space));
    assert!(!wal.prepare().unwrap(), "there is none yet");
    wal.append(&[one(1, MIB)]).unwrap();
    disk.no_names.store(false, Ordering::Relaxed);
    while wal.prepare().unwrap() {}
    assert!(wal.room().spare);
    assert_eq!(wal.room().lacks, None);
}

#[test]
fn no_append_waits_for_much_more_than_it_writes() {
    for disk in [Counting::default(), Counting::reserving()] {
        let mut wal = disk.open();
        let mut next = 1;
        for bytes in [MIB / 16, 3 * MIB, 5 * MIB, 5 * MIB / 2] {
            let most = most_zeroed(&disk, &mut wal, &mut next, bytes, 48 * MIB);
            // The first group in a segment has paid for the end of the one before, and at the end some room is left: the others share that.
            let share = (bytes * 16 * MIB / (16 * MIB - 2 * bytes)) as u64;
            assert!(most <= share + PIECE, "{most} bytes were zeroed for a group of {bytes}");
        }
    }
}

/// Zeros that are written would take half of the disk's bandwidth.
#[test]
fn large_groups_write_nothing_but_themselves_where_blocks_can_be_reserved() {
    let disk = Counting::reserving();
    let mut wal = disk.open();
    let mut next = 1;
    for bytes in [MIB, 3 * MIB] {
        assert_eq!(most_zeroed(&disk, &mut wal, &mut next, bytes, 100 * MIB), 0);
    }
    // Segments that are given up are used again the same way.
    wal.release_before(next).unwrap();
    disk.zeroed();
    assert_eq!(most_zeroed(&disk, &mut wal, &mut next, MIB, 40 * MIB), 0);
}

/// Beside large groups small ones pay no more than for themselves, though little room is left.
#[test]
fn small_groups_do_not_pay_for_large_ones() {
    let disk = Counting::reserving();
    let mut wal = disk.open();
    let mut next = 1;
    for _ in 0..14 {
        most_zeroed(&disk, &mut wal, &mut next, MIB, MIB);
        let most = most_zeroed(&disk, &mut wal, &mut next, 100, 100);
        assert!(most <= PIECE, "{most} bytes were zeroed for a block");
    }
    // The next segment is begun all the same, so that a full disk is known ahead.
    disk.disk.set_capacity(Some(32 * MIB));
    let last = loop {
        if let Err(error) = wal.append(&[one(next, MIB)]) {
            break error;
        }
        next += 1;
    };
    assert!(matches!(last, WalError::NoSpace { .. }), "{last}");
    assert_eq!(wal.room().lacks, Some(Lack::Space));
}

/// Of groups of a block few wait at all.
#[test]
fn small_groups_wait_seldom() {
    for disk in [Counting::default(), Counting::reserving()] {
        let mut wal = disk.open();
        let waits = (1..=3000).filter(|index| {
            wal.append(&[one(*index, 100)]).unwrap();
            disk.zeroed() > 0
        });
        assert_eq!(waits.count(), 3000 * 4096 / PIECE as usize + 1);
    }
}

/// Whatever stood there, and beyond the end.
#[test]
fn what_is_reserved_reads_as_zeros() {
    let home = tempfile::tempdir().unwrap();
    let file = OsDisk.create(&home.path().join("file")).unwrap();
    file.write_at(&[7; 10_000], 0).unwrap();
    file.sync().unwrap();
    if !file.reserve(16_384).unwrap() {
        let mut bytes = [0; 10_000];
        file.read_at(&mut bytes, 0).unwrap();
        assert_eq!(bytes, [7; 10_000], "this file system cannot do it, and has done nothing");
        return;
    }
    let mut bytes = [1; 16_384];
    file.read_at(&mut bytes, 0).unwrap();
    assert_eq!(bytes, [0; 16_384]);
}

/// A process that starts with a segment nearly full has more to catch up with, and spreads it over what is left.
#[test]
fn what_was_not_prepared_before_is_spread() {
    let disk = Counting::default();
    let mut next = 1;
    for _ in 0..12 {
        disk.open().append(&[one(next, MIB)]).unwrap();
        next += 1;
    }
    // What the others have prepared is begun anew; a quarter of the segment is left.
    let mut wal = disk.open();
    let most = most_zeroed(&disk, &mut wal, &mut next, MIB / 4, 8 * MIB);
    assert!(most <= 2 * MIB as u64, "{most}");
}

#[test]
fn a_full_disk_is_known_ahead() {
    let disk = MemDisk::default();
    let (mut wal, _) = open(&disk).unwrap();
    let empty = SEGMENT - 4096;
    assert_eq!(wal.room(), Room { active: empty, spare: false, lacks: None });
    disk.set_capacity(Some(SEGMENT as usize));
    assert!(!wal.prepare().unwrap(), "nothing can be done");
    assert_eq!(wal.room(), Room { active: empty, spare: false, lacks: Some(Lack::Space) });
    wal.append(&[one(1, 10)]).unwrap();
    assert_eq!(wal.room(), Room { active: empty - 4096, spare: false, lacks: Some(Lack::Space) });

    disk.set_capacity(Some(2 * SEGMENT as usize));
    wal.prepare().unwrap();
    assert_eq!(wal.room(), Room { active: empty - 4096, spare: true, lacks: None });
    // With a spare segment, that one and the active one can be used up.
    let mut index = 1;
    while wal.room().spare || wal.room().active > 0 {
        index += 1;
        wal.append(&[one(index, 1000)]).unwrap();
        wal.prepare().unwrap();
    }
    assert_eq!((index, wal.room().lacks), (14, Some(Lack::Space)));
    // Nothing is lost, and what is released is room.
    wal.release_before(8).unwrap_err();
    let (mut wal, recovered) = open(&disk).unwrap();
    assert_eq!(recovered.entries.len(), 14);
    disk.set_capacity(None);
    wal.release_before(8).unwrap();
    wal.append(&[one(15, 10)]).unwrap();
}

/// While the disk is full, few appends try to make the next segment.
#[test]
fn a_full_disk_is_not_asked_again_and_again() {
    let disk = Counting::default();
    let mut wal = disk.open();
    disk.disk.set_capacity(Some(16 * MIB));
    let tries = (1..=2000).filter(|index| {
        wal.append(&[one(*index, 100)]).unwrap();
        disk.zeroed() > 0
    });
    let tries = tries.count();
    assert!((10..40).contains(&tries), "{tries} tries");
}

/// Nothing ends, nothing is lost, and when there are descriptors again everything goes on: with a new file, with one that is to be used
/// again, and with the segments that are given up meanwhile.
#[test]
fn without_descriptors_the_log_goes_on_to_the_end_of_its_segment_and_later_from_there() {
    let disk = MemDisk::default();
    let (mut wal, _) = open(&disk).unwrap();
    let mut next = 1;
    for round in 0..6 {
        disk.take_descriptors(true);
        let refused = loop {
            wal.prepare().unwrap();
            match wal.append(&[one(next, 1000)]) {
                Ok(()) => next += 1,
                Err(error) => break error,
            }
        };
        assert!(matches!(refused, WalError::NoDescriptors { .. }), "round {round}: {refused}");
        assert_eq!(wal.room().lacks, Some(Lack::Descriptors));
        assert!(next > 1, "there is room in the active segment");
        disk.take_descriptors(false);
        wal.append(&[one(next, 1000)]).unwrap();
        next += 1;
        wal.prepare().unwrap();
        assert_eq!(wal.room().lacks, None);
    }
    drop(wal);
    let (_, recovered) = open(&disk).unwrap();
    assert_eq!(recovered.entries.len() as u64, next - 1);
}

/// The descriptors that are kept for the log are a number: a log may be a hundred segments long.
#[test]
fn long_log_has_few_files_open() {
    let home = tempfile::tempdir().unwrap();
    let options = WalOptions { segment_bytes: 8192, ..WalOptions::new(MEMBER) };
    let open_files = || {
        let all = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
        all.filter(|fd| std::fs::read_link(fd.path()).is_ok_and(|file| file.starts_with(home.path()))).count()
    };
    let (mut wal, _) = Wal::open(home.path(), options.clone()).unwrap();
    for index in 1..=50 {
        wal.append(&[one(index, 3000)]).unwrap();
        wal.prepare().unwrap();
        assert!(open_files() <= 7, "{} open at entry {index}", open_files());
    }
    drop(wal);
    let (mut wal, recovered) = Wal::open(home.path(), options.clone()).unwrap();
    assert_eq!(recovered.entries.len(), 50);
    assert!(open_files() <= 7, "{} open", open_files());
    // What was closed is used again.
    wal.release_before(40).unwrap();
    for index in 51..=60 {
        wal.append(&[one(index, 3000)]).unwrap();
    }
    drop(wal);
    assert_eq!(Wal::open(home.path(), options).unwrap().1.entries.last().map(|last| last.index), Some(60));
}

/// A segment that is given up is the next one without being opened again.
#[test]
fn what_is_used_again_takes_no_descriptor() {
    let disk = MemDisk::default();
    let (mut wal, _) = open(&disk).unwrap();
    let mut next = 1;
    let fill = |wal: &mut Wal, next: &mut u64| {
        let full = wal.room().active;
        while wal.room().active <= full && wal.room().active > 0 {
            wal.append(&[one(*next, 1000)]).unwrap();
            *next += 1;
        }
    };
    while wal.prepare().unwrap() {}
    fill(&mut wal, &mut next);
    wal.append(&[one(next, 1000)]).unwrap();
    next += 1;
    disk.take_descriptors(true);
    wal.release_before(next).unwrap();
    while wal.prepare().unwrap() {}
    assert!(wal.room().spare, "the file of the segment before is the next");
    fill(&mut wal, &mut next);
    wal.append(&[one(next, 1000)]).unwrap();
}

#[test]
fn the_room_of_a_file_system() {
    let here = tempfile::tempdir().unwrap();
    let room = space(here.path()).unwrap();
    assert!(room.available > 0 && room.total >= room.available);
    assert_eq!(OsDisk.space(here.path()).unwrap().unwrap().total, room.total);
    space(&here.path().join("nothing")).unwrap_err();
    assert_eq!(MemDisk::default().space(&dir()).unwrap(), None);
}
