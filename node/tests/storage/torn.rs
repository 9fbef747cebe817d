//! The power goes while a group is written: any of its sectors may be on the disk.

use quorate_raft::Write;

use crate::disk::{Fault, MemDisk, SECTOR};
use crate::model::{Model, coin};
use crate::{SEGMENT, one, open};

/// A log with `before` in it and the next segment ready.
fn log(before: &[Write]) -> (MemDisk, Model) {
    let disk = MemDisk::default();
    let (mut wal, _) = open(&disk).unwrap();
    let mut model = Model::default();
    for write in before {
        wal.append(std::slice::from_ref(write)).unwrap();
        model.append(std::slice::from_ref(write));
    }
    while wal.prepare().unwrap() {}
    (disk, model)
}

/// Appends `write` with the power going in the middle; of its sectors survive those that `keep` says, by number.
/// Returns how many sectors there were.
fn tear(before: &MemDisk, model: &Model, write: &Write, keep: impl Fn(usize) -> bool) -> usize {
    let disk = before.fork();
    let (mut wal, _) = open(&disk).unwrap();
    disk.fail_after(0, Fault::Crash);
    wal.append(std::slice::from_ref(write)).unwrap_err();
    let mut sectors = 0;
    let mut kept = 0;
    disk.power_cut(|| {
        let keep = keep(sectors);
        sectors += 1;
        kept += usize::from(keep);
        keep
    });

    let (mut wal, recovered) = open(&disk).unwrap();
    let mut after = model.clone();
    after.append(std::slice::from_ref(write));
    assert!(model.is(&recovered) || after.is(&recovered), "neither before nor after: {recovered:?}");
    if recovered.uncertain_tail {
        assert!(model.is(&recovered) && kept > 0, "cut something, with {kept} of {sectors} sectors");
    }

    // The log goes on, and a group that was cut never comes back.
    let mut model = if model.is(&recovered) { model.clone() } else { after };
    let next = one(model.last + 1, 10);
    wal.append(std::slice::from_ref(&next)).unwrap();
    model.append(&[next]);
    disk.power_cut(|| true);
    let (_, recovered) = open(&disk).unwrap();
    assert!(model.is(&recovered) && !recovered.uncertain_tail);
    sectors
}

fn every_way_to_tear(before: &[Write], write: &Write) {
    let (disk, model) = log(before);
    let sectors = tear(&disk, &model, write, |_| false);
    assert!(sectors * SECTOR >= 4096, "a frame has at least a block");
    for n in 0..=sectors {
        tear(&disk, &model, write, |sector| sector < n);
        tear(&disk, &model, write, |sector| sector >= n);
        tear(&disk, &model, write, |sector| sector != n);
        let kept: Vec<bool> = std::iter::repeat_with(coin(n as u64 + 1)).take(sectors + 8).collect();
        tear(&disk, &model, write, |sector| kept[sector]);
    }
}

#[test]
fn the_first_group() {
    every_way_to_tear(&[], &one(1, 900));
}

#[test]
fn a_small_group() {
    every_way_to_tear(&[one(1, 100), one(2, 5000)], &one(3, 200));
}

#[test]
fn a_group_of_many_sectors() {
    every_way_to_tear(&[one(1, 100), one(2, 5000)], &one(3, 12_000));
}

#[test]
fn a_group_that_replaces_the_tail() {
    every_way_to_tear(&[one(1, 100), one(2, 100), one(3, 100)], &one(2, 3000));
}

#[test]
fn the_first_group_of_a_segment() {
    let full = SEGMENT as usize - 6000;
    every_way_to_tear(&[one(1, full)], &one(2, 6000));
}

#[test]
fn a_group_that_begins_the_log_anew() {
    every_way_to_tear(&[one(1, 100), one(2, 5000), one(3, 100)], &crate::reset(1, 9, &[4000, 200]));
    every_way_to_tear(&[one(1, SEGMENT as usize - 6000)], &crate::reset(1, 9, &[6000]));
}

/// Blank sectors in what is written do not look like sectors that were not.
#[test]
fn a_group_of_zeros() {
    let mut zeros = one(2, 0);
    zeros.entries[0].payload = quorate_raft::Payload::Command(vec![0; 9000].into());
    let (disk, model) = log(&[one(1, 100)]);
    let sectors = tear(&disk, &model, &zeros, |_| false);
    for n in 0..=sectors {
        tear(&disk, &model, &zeros, |sector| sector < n);
    }
}
