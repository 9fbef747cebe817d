//! Who a data directory belongs to, and who is on it (raft-failures 8 and 9: lost metadata restarts at term 0, a wiped disk
//! comes back under the same ID).

use std::fs;

use quorate_node::storage::disk::Disk as _;
use quorate_node::storage::identity::{Identity, random_member};
use quorate_node::storage::{OpenError, lock, starts};
use quorate_raft::MemberId;

use crate::disk::{Fault, MemDisk};
use crate::model::coin;
use crate::{MEMBER, dir, one, open};

fn identity(disk: &MemDisk) -> Result<Identity, OpenError> {
    Identity::open(disk, &dir(), MEMBER)
}

#[test]
fn it_stays() {
    let disk = MemDisk::default();
    let mut first = identity(&disk).unwrap();
    assert_eq!(first, Identity { member: MEMBER, cluster: 0, removed: 0, leases: false });
    open(&disk).unwrap();
    first.join(&disk, &dir(), 5).unwrap();
    first.join(&disk, &dir(), 5).unwrap();
    let again = Identity::open(&disk, &dir(), MemberId(9)).unwrap();
    assert_eq!(again, Identity { member: MEMBER, cluster: 5, removed: 0, leases: false });
    let error = first.join(&disk, &dir(), 6).unwrap_err().to_string();
    assert!(error.contains("cluster 0000000000000005, not to 0000000000000006"), "{error}");
    for removed in [7, 7, 0] {
        first.set_removed(&disk, &dir(), removed).unwrap();
        assert_eq!(identity(&disk).unwrap(), Identity { member: MEMBER, cluster: 5, removed, leases: false });
    }
    for removed in [0, 7] {
        first.set_leases(&disk, &dir()).unwrap();
        first.set_removed(&disk, &dir(), removed).unwrap();
        assert_eq!(identity(&disk).unwrap(), Identity { member: MEMBER, cluster: 5, removed, leases: true });
    }
    assert_ne!(random_member().unwrap(), random_member().unwrap());
}

#[test]
fn starts_are_counted_and_never_fall() {
    let disk = MemDisk::default();
    identity(&disk).unwrap();
    assert_eq!(starts::read(&disk, &dir()).unwrap(), 0);
    for (least, number) in [(0, 1), (0, 2), (7, 7), (3, 8)] {
        assert_eq!(starts::count(&disk, &dir(), least).unwrap(), number);
        assert_eq!(starts::read(&disk, &dir()).unwrap(), number);
    }
    // It is no promise: what cannot be read counts as none.
    let replace = |text: &str| {
        disk.remove(&dir().join("starts")).unwrap();
        disk.create(&dir().join("starts")).unwrap().write_at(text.as_bytes(), 0).unwrap();
    };
    replace("quorate starts 1\nstarts 9\n");
    assert_eq!(starts::count(&disk, &dir(), 0).unwrap(), 1);
    replace("quorate starts 2\n");
    assert!(matches!(starts::count(&disk, &dir(), 0), Err(OpenError::Foreign { .. })));
}

/// Whenever the power goes, the identity is the old one or the new one.
#[test]
fn it_is_replaced_as_a_whole() {
    let start = MemDisk::default();
    identity(&start).unwrap();
    open(&start).unwrap();
    for n in 0.. {
        let disk = start.fork();
        disk.fail_after(n, Fault::Crash);
        let joined = identity(&disk).unwrap().join(&disk, &dir(), 5);
        if !disk.failed() {
            assert!(n >= 4, "only {n} operations");
            return joined.unwrap();
        }
        disk.power_cut(coin(n));
        let found = identity(&disk).unwrap();
        assert!(found.member == MEMBER && [0, 5].contains(&found.cluster), "{found:?}");
    }
}

/// A first start that was cut short is begun again.
#[test]
fn a_first_start_can_be_repeated() {
    for n in 0.. {
        let disk = MemDisk::default();
        disk.fail_after(n, Fault::Crash);
        let started = identity(&disk).and_then(|_| open(&disk));
        if !disk.failed() {
            return drop(started.unwrap());
        }
        disk.power_cut(coin(n + 99));
        identity(&disk).unwrap();
        open(&disk).unwrap();
    }
}

#[test]
fn what_is_lost_is_said() {
    let disk = MemDisk::default();
    let mut identity_here = identity(&disk).unwrap();
    let (mut wal, _) = open(&disk).unwrap();
    wal.append(&[one(1, 10)]).unwrap();
    identity_here.join(&disk, &dir(), 5).unwrap();

    let without = disk.fork();
    without.remove(&dir().join("identity")).unwrap();
    let error = identity(&without).unwrap_err().to_string();
    assert!(error.contains("the identity is missing beside a log"), "{error}");

    let without = disk.fork();
    for path in without.files().keys().filter(|path| path.extension().is_some()) {
        without.remove(path).unwrap();
    }
    let error = identity(&without).unwrap_err().to_string();
    assert!(error.contains("the log of 0000000000000007 is gone"), "{error}");
}

#[test]
fn every_flipped_bit_is_seen() {
    let disk = MemDisk::default();
    identity(&disk).unwrap();
    let path = dir().join("identity");
    for bit in 0..disk.files()[&path].len() * 8 {
        disk.tamper(&path, |bytes| bytes[bit / 8] ^= 1 << (bit % 8));
        identity(&disk).unwrap_err();
        disk.tamper(&path, |bytes| bytes[bit / 8] ^= 1 << (bit % 8));
    }
    identity(&disk).unwrap();
}

#[test]
fn one_process_on_a_directory() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("a/b");
    let held = lock(&data).unwrap();
    let error = lock(&data).unwrap_err().to_string();
    assert!(error.contains(&format!("is in use by process {} on ", std::process::id())), "{error}");
    drop(held);
    lock(&data).unwrap();

    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let error = lock(&file).unwrap_err().to_string();
    assert!(error.contains("file"), "{error}");
}
