//! The disk does what a disk does, and fails when it is told to.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::PathBuf;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::OFlags;
use rustix::io::Errno;
use tempfile::TempDir;

use super::{FaultyDisk, Times};

/// A disk over a folder, which is not to be used otherwise.
fn disk() -> Option<(FaultyDisk, TempDir)> {
    let folder = tempfile::tempdir().expect("there is a place for temporary files");
    let files = folder.path().join("files");
    fs::create_dir(&files).expect("the folder takes another");
    let disk = FaultyDisk::mount_unless_excused(&files).unwrap_or_else(|reason| panic!("{reason}"))?;
    Some((disk, folder))
}

fn create(path: PathBuf) -> File {
    OpenOptions::new().read(true).write(true).create_new(true).open(path).expect("it can be made")
}

#[test]
fn files_are_files() {
    let Some((disk, folder)) = disk() else { return };
    let inside = disk.path().join("a/b");
    fs::create_dir_all(&inside).expect("directories can be made");
    let file = create(inside.join("one"));
    file.write_all_at(b"hello", 3).expect("it can be written");
    file.sync_data().expect("it can be synced");
    File::open(&inside).and_then(|directory| directory.sync_all()).expect("so can its directory");
    fs::rename(inside.join("one"), inside.join("two")).expect("it can get another name");
    fs::rename(disk.path().join("a"), disk.path().join("c")).expect("so can a directory");
    let inside = disk.path().join("c/b");
    assert_eq!(fs::read(inside.join("two")).expect("it is there"), b"\0\0\0hello");
    assert_eq!(fs::read(folder.path().join("files/c/b/two")).expect("it is in the folder"), b"\0\0\0hello");
    file.set_len(4).expect("it can be cut");
    assert_eq!(fs::metadata(inside.join("two")).expect("it is there").len(), 4);
    let names: Vec<_> = fs::read_dir(&inside)
        .expect("it can be listed")
        .map(|name| name.expect("a name").file_name())
        .collect();
    assert_eq!(names, ["two"]);
    fs::remove_file(inside.join("two")).expect("it can be removed");
    file.write_all_at(b"still", 0).expect("whoever has it open goes on");
    assert_eq!(file.metadata().expect("it is open").len(), 5);
    assert_eq!(fs::read(inside.join("two")).expect_err("it is gone").kind(), ErrorKind::NotFound);
}

#[test]
fn without_descriptors_nothing_is_opened_and_what_is_open_goes_on() {
    let Some((disk, _folder)) = disk() else { return };
    let file = create(disk.path().join("open"));
    let directory = File::open(disk.path()).expect("it is a directory");
    disk.faults().take_descriptors();
    let refused = [
        File::open(disk.path().join("open")).expect_err("it is opened"),
        File::create_new(disk.path().join("new")).expect_err("it is made"),
        fs::read_dir(disk.path()).map(drop).expect_err("it is listed"),
    ];
    assert!(
        refused.iter().all(|error| error.raw_os_error() == Some(Errno::MFILE.raw_os_error())),
        "{refused:?}"
    );
    assert_eq!(disk.faults().not_opened(), 3);
    file.write_all_at(b"x", 0).and_then(|()| file.sync_data()).expect("it is open");
    fs::rename(disk.path().join("open"), disk.path().join("moved")).expect("that takes none");
    directory.sync_all().expect("it is open");
    disk.faults().heal();
    File::open(disk.path().join("moved")).expect("there are descriptors again");
}

#[test]
fn a_slow_disk_takes_its_time_for_what_is_written() {
    let Some((disk, _folder)) = disk() else { return };
    let file = create(disk.path().join("file"));
    disk.faults().limit_bandwidth(1 << 20);
    let begun = Instant::now();
    file.write_all_at(&vec![1; 1 << 18], 0).expect("it can be written");
    assert!(begun.elapsed() >= Duration::from_millis(240), "{:?}", begun.elapsed());
}

#[test]
fn a_file_is_locked_by_one() {
    let Some((disk, _folder)) = disk() else { return };
    let path = disk.path().join("lock");
    let first = create(path.clone());
    first.try_lock().expect("nobody else has it");
    let second = File::open(&path).expect("it can be opened");
    assert!(matches!(second.try_lock(), Err(fs::TryLockError::WouldBlock)));
    drop(first);
    second.lock().expect("nobody has it any more");
}

#[test]
fn writes_may_go_around_the_cache() {
    let Some((disk, _folder)) = disk() else { return };
    let flags = (OFlags::DIRECT | OFlags::DSYNC).bits().cast_signed();
    let path = disk.path().join("direct");
    let file = OpenOptions::new().write(true).create_new(true).custom_flags(flags).open(&path);
    let file = file.expect("it can be made");
    // Aligned to a block by what is around it, whatever the allocator says.
    let buffer = vec![7; 3 * 4096];
    let skipped = buffer.as_ptr().align_offset(4096);
    file.write_all_at(&buffer[skipped..skipped + 4096], 4096).expect("it can be written");
    let found = fs::read(&path).expect("it is there");
    assert!(found[..4096].iter().all(|byte| *byte == 0) && found[4096..].iter().all(|byte| *byte == 7));
    disk.faults().fail_syncs(Times::Once);
    let failed = file.write_all_at(&buffer[skipped..skipped + 4096], 8192).expect_err("it is to be durable");
    assert_eq!(failed.raw_os_error(), Some(Errno::IO.raw_os_error()));
    assert_eq!(fs::metadata(&path).expect("it is there").len(), 8192);
}

#[test]
fn what_a_failed_sync_was_for_is_gone() {
    let Some((disk, _folder)) = disk() else { return };
    let path = disk.path().join("log");
    let file = create(path.clone());
    file.write_all_at(b"kept....", 0).and_then(|()| file.sync_data()).expect("all is well");
    for times in [Times::Once, Times::Always] {
        file.write_all_at(b"lost", 4).and_then(|()| file.write_all_at(b"longer", 6)).expect("all is well");
        disk.faults().fail_syncs(times);
        let failed = file.sync_data().expect_err("it fails");
        assert_eq!(failed.raw_os_error(), Some(Errno::IO.raw_os_error()));
        assert_eq!(file.sync_data().is_ok(), times == Times::Once);
        assert_eq!(fs::read(&path).expect("it is there"), b"kept....");
    }
    assert_eq!(disk.faults().failed(), 3);
    disk.faults().heal();
    file.sync_all().expect("all is well again");
}

#[test]
fn power_is_lost() {
    let Some((disk, _folder)) = disk() else { return };
    let path = disk.path().join("log");
    let file = create(path.clone());
    file.write_all_at(b"synced", 0).and_then(|()| file.sync_data()).expect("all is well");
    file.write_all_at(b"not synced", 0).and_then(|()| file.set_len(3)).expect("all is well");
    drop(file);
    disk.lose_power().expect("the folder can be written");
    assert_eq!(fs::read(&path).expect("it is there"), b"synced");
}

#[test]
fn a_disk_stands_still_for_those_who_write() {
    let Some((disk, _folder)) = disk() else { return };
    let path = disk.path().join("log");
    let file = create(path.clone());
    disk.faults().stall();
    let (done, waits) = mpsc::channel();
    thread::scope(|scope| {
        for n in 0..20 {
            let (done, file) = (done.clone(), create(disk.path().join(n.to_string())));
            scope.spawn(move || done.send(file.write_all_at(b"late", 0).and_then(|()| file.sync_all())));
        }
        while disk.faults().held_up() < 20 {
            thread::sleep(Duration::from_millis(1));
        }
        // More of them than there are threads, and still others are served.
        assert_eq!(fs::read(&path).expect("it can be read"), b"");
        assert!(waits.try_recv().is_err());
        disk.faults().heal();
    });
    assert!(waits.iter().take(20).all(|written: io::Result<()>| written.is_ok()));
    drop(file);
}

#[test]
fn a_disk_fills_up() {
    let Some((disk, _folder)) = disk() else { return };
    let (one, other) = (create(disk.path().join("one")), create(disk.path().join("other")));
    disk.faults().fill_up(10);
    one.write_all_at(b"12345678", 0).expect("there is room");
    let full = other.write_all_at(b"123", 0).expect_err("there is no room");
    assert_eq!(full.kind(), ErrorKind::StorageFull);
    one.write_all_at(b"ABCD", 4).expect("this takes no more");
    one.set_len(7).expect("this takes less");
    other.write_all_at(b"123", 0).expect("there is room again");
    fs::remove_file(disk.path().join("one")).expect("it can be removed");
    other.write_all_at(b"1234567", 3).expect("that has made room");
    assert_eq!(disk.faults().refused(), 1);
    disk.faults().heal();
    other.write_all_at(&vec![0; 1 << 20], 0).expect("nothing limits it");
}

#[test]
fn it_vanishes_with_the_last_who_uses_it() {
    let Some((disk, folder)) = disk() else { return };
    let mounts = || fs::read_to_string("/proc/self/mounts").expect("Linux tells");
    assert!(!mounts().contains(&folder.path().display().to_string()), "it is in the tree");
    let path = disk.path().join("file");
    let file = create(path.clone());
    disk.faults().stall();
    let waits = thread::spawn(move || file.write_all_at(b"late", 0));
    while disk.faults().held_up() == 0 {
        thread::sleep(Duration::from_millis(1));
    }
    drop(disk);
    waits.join().expect("it does not panic").expect("it is written after all");
    assert!(!path.exists());
}
