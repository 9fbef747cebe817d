//! A snapshot was installed: the log begins anew, and what it held before never comes back.

use quorate_raft::{LogId, Write};

use crate::disk::{Fault, MemDisk};
use crate::model::{Model, coin};
use crate::{command, one, open, reset, write};

/// A log of several segments.
fn long_log() -> (MemDisk, Model) {
    let disk = MemDisk::default();
    let (mut wal, _) = open(&disk).unwrap();
    let mut model = Model::default();
    for index in 1..=20 {
        let write = one(index, 5_000);
        wal.append(std::slice::from_ref(&write)).unwrap();
        model.append(&[write]);
    }
    assert!(disk.files().len() > 3);
    (disk, model)
}

fn append(disk: &MemDisk, model: &mut Model, write: Write) {
    let (mut wal, _) = open(disk).unwrap();
    wal.append(std::slice::from_ref(&write)).unwrap();
    model.append(&[write]);
}

#[test]
fn the_log_begins_anew_and_its_space_is_used_again() {
    for index in [7, 20, 50] {
        let (disk, mut model) = long_log();
        append(&disk, &mut model, reset(3, index, &[]));
        assert!(disk.files().len() <= 3, "all segments before it are gone but what is used again");
        let (_, recovered) = open(&disk).unwrap();
        assert!(model.is(&recovered), "{recovered:?}");
        assert_eq!((recovered.base, recovered.entries.len()), (LogId { term: 3, index }, 0));
        append(&disk, &mut model, write(None, vec![command(3, index + 1, 100)]));
        append(&disk, &mut model, reset(4, index + 9, &[10, 20]));
        disk.power_cut(|| false);
        assert!(model.is(&open(&disk).unwrap().1));
    }
}

/// Whatever is left of the segments before it when the power goes, they do not count.
#[test]
fn nothing_comes_back_from_before() {
    for n in 0.. {
        let (disk, mut model) = long_log();
        let (mut wal, _) = open(&disk).unwrap();
        disk.fail_after(n, Fault::Crash);
        let anew = reset(3, 9, &[300]);
        let outcome = wal.append(std::slice::from_ref(&anew));
        if !disk.failed() {
            assert!(n > 8, "only {n} operations");
            return outcome.unwrap();
        }
        disk.power_cut(coin(n));
        let (mut wal, recovered) = open(&disk).unwrap();
        if recovered.base.index > 0 {
            model.append(&[anew]);
        }
        assert!(model.is(&recovered), "operation {n}: {recovered:?}");
        // What is left of them goes with the next release.
        let next = write(None, vec![command(3, model.last + 1, 10)]);
        if recovered.base.index > 0 {
            wal.append(std::slice::from_ref(&next)).unwrap();
            model.append(&[next]);
            wal.release_before(model.last).unwrap();
            model.release(model.last);
            assert!(disk.files().len() <= 4, "operation {n}: {:?}", disk.files().keys());
            assert!(model.is(&open(&disk).unwrap().1));
        }
    }
}

/// A reset in the midst of a group takes what came before it in the group as well.
#[test]
fn within_a_group() {
    let (disk, mut model) = long_log();
    let (mut wal, _) = open(&disk).unwrap();
    let batch =
        [one(21, 100), reset(2, 30, &[5, 6]), write(None, vec![command(2, 32, 7), command(2, 33, 8)])];
    wal.append(&batch).unwrap();
    model.append(&batch);
    let (_, recovered) = open(&disk).unwrap();
    assert!(model.is(&recovered));
    assert_eq!(recovered.entries.iter().map(|entry| entry.index).collect::<Vec<_>>(), [31, 32, 33]);
}

/// The name of the entry that the log begins after is known, though it is gone itself.
#[test]
fn a_release_knows_the_term_of_what_it_takes() {
    let disk = MemDisk::default();
    let (mut wal, _) = open(&disk).unwrap();
    let in_term = |term, index| write(Some(crate::term(term)), vec![command(term, index, 10)]);
    for (term, index) in [(1, 1), (1, 2), (3, 3), (3, 4), (5, 3), (5, 4), (6, 5)] {
        wal.append(&[in_term(term, index)]).unwrap();
    }
    for (before, base) in [(3, (1, 2)), (4, (5, 3)), (5, (5, 4)), (6, (6, 5))] {
        wal.release_before(before).unwrap();
        let (reopened, recovered) = open(&disk).unwrap();
        assert_eq!(recovered.base, LogId { term: base.0, index: base.1 });
        wal = reopened;
    }
    wal.append(&[in_term(6, 6)]).unwrap();
    wal.release_before(7).unwrap();
    assert_eq!(open(&disk).unwrap().1.base, LogId { term: 6, index: 6 });
}
