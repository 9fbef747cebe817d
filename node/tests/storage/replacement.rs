//! A data directory's contents are exchanged as a whole, wherever the process ends.

use std::path::Path;

use quorate_node::storage::disk::Disk;
use quorate_node::storage::identity::Identity;
use quorate_node::storage::replacement;
use quorate_raft::MemberId;

use crate::dir;
use crate::disk::{Fault, MemDisk};

const OLD: MemberId = MemberId(1);
const NEW: MemberId = MemberId(2);

/// An identity, a log and a snapshot, which name their member.
fn fill(disk: &MemDisk, dir: &Path, member: MemberId) {
    Identity::open(disk, dir, member).unwrap();
    for folder in ["wal", "snapshots"] {
        disk.create_dir(&dir.join(folder)).unwrap();
        put(disk, &dir.join(folder).join("file"), member);
    }
}

fn put(disk: &MemDisk, path: &Path, member: MemberId) {
    disk.create(path).unwrap().write_at(&member.0.to_le_bytes(), 0).unwrap();
}

fn member_in(disk: &MemDisk, path: &Path) -> Option<u64> {
    let mut bytes = [0; 8];
    disk.open(path).ok()?.read_at(&mut bytes, 0).unwrap();
    Some(u64::from_le_bytes(bytes))
}

/// Whose the directory is: all of it is one member's.
fn whose(disk: &MemDisk, dir: &Path) -> MemberId {
    let member = Identity::read(disk, dir).unwrap().expect("it has an identity").member;
    for folder in ["wal", "snapshots"] {
        assert_eq!(member_in(disk, &dir.join(folder).join("file")), Some(member.0), "{folder}");
    }
    member
}

/// A directory of [`OLD`], with a copy of its state beside, for which [`NEW`]'s is ready.
fn prepared() -> MemDisk {
    let disk = MemDisk::default();
    disk.create_dir(&dir()).unwrap();
    fill(&disk, &dir(), OLD);
    disk.create_dir(&dir().join("copy")).unwrap();
    let new = replacement::begin(&disk, &dir()).unwrap();
    fill(&disk, &new, NEW);
    disk
}

#[test]
fn an_exchange_leaves_the_old_contents_beside() {
    let disk = prepared();
    assert_eq!(replacement::finish(&disk, &dir()).unwrap(), None, "it does not count yet");
    assert_eq!(whose(&disk, &dir()), OLD);
    let before = replacement::exchange(&disk, &dir()).unwrap();
    assert_eq!(whose(&disk, &dir()), NEW);
    assert_eq!(whose(&disk, &before), OLD);
    assert!(disk.list(&before).unwrap().contains(&"copy".to_owned()), "a copy of the old state is of no use");
    assert_eq!(before, dir().join("before-0000000000000001/old"));
    assert_eq!(replacement::finish(&disk, &dir()).unwrap(), None);
}

/// Killed at any operation, and again while it is ended: one or the other, as a whole.
#[test]
fn an_exchange_that_is_interrupted_is_ended_by_the_next_process() {
    let mut ended_new = 0;
    for first in 0.. {
        let interrupted = prepared();
        interrupted.fail_after(first, Fault::Crash);
        let exchanged = replacement::exchange(&interrupted, &dir());
        interrupted.power_on();
        for second in 0.. {
            let disk = interrupted.fork();
            disk.fail_after(second, Fault::Crash);
            let again = replacement::finish(&disk, &dir());
            disk.power_on();
            let _ = replacement::finish(&disk, &dir()).unwrap();
            let member = whose(&disk, &dir());
            assert!(exchanged.is_err() || member == NEW);
            ended_new += u32::from(member == NEW);
            if again.is_ok() {
                break;
            }
        }
        if exchanged.is_ok() {
            break;
        }
    }
    assert!(ended_new > 100, "{ended_new}");
}
