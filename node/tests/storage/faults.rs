//! Every operation on the disk fails once, in every way (raft-failures 6 and 7: a file without its directory's sync, a failed save that is
//! swallowed).

use std::io::ErrorKind;

use quorate_node::storage::{OpenError, Wal, WalError};

use crate::disk::{Fault, MemDisk};
use crate::model::{Model, coin};
use crate::{SEGMENT, one, open, write};

/// What a run came to: what was acknowledged, and what was on its way when it failed.
struct Run {
    acknowledged: Model,
    in_flight: Model,
    outcome: Result<(), WalError>,
}

/// Opens a log and fills some segments, with groups small and large, replaced tails, releases and preparing in between.
fn run(disk: &MemDisk) -> Result<Run, OpenError> {
    let (mut wal, _) = open(disk)?;
    let mut run = Run { acknowledged: Model::default(), in_flight: Model::default(), outcome: Ok(()) };
    run.outcome = work(&mut wal, &mut run.acknowledged, &mut run.in_flight);
    if run.outcome.is_err() {
        let before = disk.files();
        let next = one(run.acknowledged.last + 1, 10);
        assert!(matches!(wal.append(&[next]), Err(WalError::Poisoned(_))));
        assert!(matches!(wal.prepare(), Err(WalError::Poisoned(_))));
        assert!(matches!(wal.release_before(run.acknowledged.last + 1), Err(WalError::Poisoned(_))));
        assert_eq!(disk.files(), before, "a closed log writes nothing");
    }
    Ok(run)
}

fn work(wal: &mut Wal, acknowledged: &mut Model, in_flight: &mut Model) -> Result<(), WalError> {
    for round in 0..12 {
        let index = acknowledged.last + 1;
        let group = match round % 4 {
            0 => write(
                Some(crate::term(1)),
                vec![crate::command(1, index, 300), crate::command(1, index + 1, 9000)],
            ),
            1 => one(index - 1, 3000),
            2 if round == 6 => one(index, 40_000),
            2 if round == 10 => crate::reset(1, index + 5, &[700]),
            2 => one(index, 100),
            _ => write(None, vec![crate::command(1, index, 12_000)]),
        };
        in_flight.append(std::slice::from_ref(&group));
        wal.append(&[group])?;
        acknowledged.clone_from(in_flight);
        if round != 4 {
            wal.prepare()?;
        }
        if round == 7 || round == 11 {
            in_flight.release(acknowledged.last - 1);
            wal.release_before(acknowledged.last - 1)?;
            acknowledged.clone_from(in_flight);
        }
    }
    Ok(())
}

/// Lets operation 0, 1, 2... meet `fault`, until none is left to meet it: on disks of both kinds.
fn each_operation(fault: Fault, check: impl Fn(u64, &MemDisk, Option<Run>)) {
    for reserves in [false, true] {
        each_operation_of(|| MemDisk::new(reserves), fault, &check);
    }
}

fn each_operation_of(disk: impl Fn() -> MemDisk, fault: Fault, check: impl Fn(u64, &MemDisk, Option<Run>)) {
    for n in 0.. {
        let disk = disk();
        disk.fail_after(n, fault);
        let run = run(&disk).ok();
        if !disk.failed() {
            assert!(n > 60, "only {n} operations");
            let run = run.expect("nothing failed");
            run.outcome.expect("nothing failed");
            return;
        }
        check(n, &disk, run);
    }
}

/// What was acknowledged is there, and at the most what was in flight beside it; also after another power cut.
fn check_recovery(n: u64, disk: &MemDisk, run: Option<&Run>) {
    let default = Model::default();
    let (acknowledged, in_flight) =
        run.map_or((&default, &default), |run| (&run.acknowledged, &run.in_flight));
    let (_, recovered) = open(disk).unwrap_or_else(|e| panic!("operation {n}: {e}"));
    assert!(acknowledged.is(&recovered) || in_flight.is(&recovered), "operation {n}: {recovered:?}");
    disk.power_cut(|| false);
    let (_, again) = open(disk).unwrap_or_else(|e| panic!("operation {n}, again: {e}"));
    assert_eq!((again.hard_state, again.entries), (recovered.hard_state, recovered.entries), "operation {n}");
}

#[test]
fn a_failed_operation_closes_the_log() {
    each_operation(Fault::Error(ErrorKind::Other), |n, disk, run| {
        assert!(run.as_ref().is_none_or(|run| run.outcome.is_err()), "operation {n} failed without a word");
        check_recovery(n, disk, run.as_ref());
    });
}

#[test]
fn a_failed_operation_and_a_power_cut() {
    each_operation(Fault::Error(ErrorKind::Other), |n, disk, run| {
        disk.power_cut(coin(n));
        check_recovery(n, disk, run.as_ref());
    });
}

#[test]
fn a_power_cut_that_keeps_nothing() {
    each_operation(Fault::Crash, |n, disk, run| {
        disk.power_cut(|| false);
        check_recovery(n, disk, run.as_ref());
    });
}

#[test]
fn a_power_cut_that_keeps_all() {
    each_operation(Fault::Crash, |n, disk, run| {
        disk.power_cut(|| true);
        check_recovery(n, disk, run.as_ref());
    });
}

#[test]
fn a_power_cut_that_keeps_something() {
    for seed in 1..6 {
        each_operation(Fault::Crash, |n, disk, run| {
            disk.power_cut(coin(seed << 32 | n));
            check_recovery(n, disk, run.as_ref());
        });
    }
}

/// A full disk is met while the next segment is made, long before the active one is full. Nothing is lost, and with room the log
/// goes on.
#[test]
fn a_full_disk() {
    let disk = MemDisk::default();
    disk.set_capacity(Some(SEGMENT as usize + 20_000));
    let (mut wal, _) = open(&disk).unwrap();
    let mut model = Model::default();
    let error = loop {
        let write = one(model.last + 1, 1000);
        match wal.append(std::slice::from_ref(&write)) {
            Ok(()) => model.append(&[write]),
            Err(error) => break error,
        }
        wal.prepare().unwrap();
    };
    assert_eq!(model.last, SEGMENT / 4096 - 1, "all of the active segment was used");
    assert!(matches!(error, WalError::NoSpace { .. }), "{error}");
    assert!(error.to_string().contains("no space left"));

    let (_, recovered) = open(&disk).unwrap();
    assert!(model.is(&recovered));
    disk.set_capacity(None);
    let (mut wal, _) = open(&disk).unwrap();
    let write = one(model.last + 1, 1000);
    wal.append(std::slice::from_ref(&write)).unwrap();
    model.append(&[write]);
    assert!(model.is(&open(&disk).unwrap().1));
}

/// A released segment is used again, and what stood in it before is never taken for the log.
#[test]
fn recycling() {
    recycling_on(&MemDisk::default());
    recycling_on(&MemDisk::new(true));
}

fn recycling_on(disk: &MemDisk) {
    let (mut wal, _) = open(disk).unwrap();
    let mut model = Model::default();
    let mut most = 0;
    for _ in 0..200 {
        let write = one(model.last + 1, 1000);
        wal.append(std::slice::from_ref(&write)).unwrap();
        model.append(&[write]);
        if model.last.is_multiple_of(5) {
            wal.release_before(model.last - 2).unwrap();
            model.release(model.last - 2);
        }
        most = most.max(disk.files().len());
        assert!(model.is(&open(&disk.fork()).unwrap().1), "at {}", model.last);
    }
    assert!(most <= 4, "{most} files for a log of three entries");
}
