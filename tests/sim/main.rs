//! The simulator: whole members (protocol, log on disk, key-value state) on virtual time in one thread, from one seed, under faults
//! of network, disk, process, clock and people. `make simulate` runs it; so does `cargo test`, for some hundred fresh seeds and every
//! seed that once failed.
//!
//! Each run is drawn from its seed ([`schedule`]), happens in a [`world`], is watched by the [`invariants`], and has to come to rest
//! ([`finale`]). To add a fault: a row in [`faults`] and a function in the file of its part; to add an invariant: a file beside the others.

#![allow(clippy::panic, reason = "a run that breaks panics, in its helpers too")]

mod applying;
mod arguments;
mod clients;
mod clock;
mod copying;
mod coverage;
mod diary;
mod disk;
mod faults;
mod finale;
mod forms;
mod host;
#[path = "../invariants/mod.rs"]
mod invariants;
mod leasing;
mod life;
mod network;
mod notes;
mod removal;
mod report;
mod schedule;
mod shrink;
mod simulation;
mod step;
mod streams;
mod time;
mod world;

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::Instant;

use arguments::{Arguments, Request};
use diary::Diary;
use report::Total;
use simulation::{Failure, run};

/// How many fresh seeds a test runs, and how many of them twice.
const FRESH: u64 = 300;
const TWICE: u64 = 3;

/// How many with faults of applying alone: no election may come of them.
const APPLYING: u64 = 30;

fn main() -> ExitCode {
    match arguments::read() {
        Ok(Request::Nothing) => ExitCode::SUCCESS,
        Ok(Request::Test) => test(),
        Ok(Request::Simulate(arguments)) => simulate(&arguments),
        Err(reason) => {
            eprintln!("{reason}");
            ExitCode::from(2)
        }
    }
}

/// What `make simulate` does.
fn simulate(arguments: &Arguments) -> ExitCode {
    let Arguments { first, count, faults, brief } = arguments;
    println!("seeds {first} to {}", first.wrapping_add(count - 1));
    let began = Instant::now();
    let mut total = Total::new();
    if let Err((seed, failure)) = many(*first, *count, faults.as_ref(), &mut total) {
        tell(seed, faults.as_ref(), *brief, &failure);
        return ExitCode::FAILURE;
    }
    total.print(began.elapsed());
    ExitCode::SUCCESS
}

/// Runs seeds on all cores, up to the first that fails.
fn many(
    first: u64,
    count: u64,
    faults: Option<&BTreeSet<usize>>,
    total: &mut Total,
) -> Result<(), (u64, Failure)> {
    let began = Instant::now();
    let (next, failed) = (AtomicU64::new(0), AtomicBool::new(false));
    let (done, outcomes) = mpsc::channel();
    let work = |done: mpsc::Sender<_>| {
        while !failed.load(Ordering::Relaxed) {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                return;
            }
            let seed = first.wrapping_add(number);
            let _ = done.send((seed, run(seed, faults, &diary())));
        }
    };
    let mut broken = Ok(());
    std::thread::scope(|scope| {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        for _ in 0..cores {
            let done = done.clone();
            scope.spawn(move || work(done));
        }
        drop(done);
        for (number, (seed, outcome)) in outcomes.iter().enumerate() {
            match outcome {
                Ok(summary) => total.add(&summary),
                Err(failure) => {
                    failed.store(true, Ordering::Relaxed);
                    broken = broken.clone().and(Err((seed, failure)));
                }
            }
            if number % 1000 == 999 {
                println!("{}", total.line(began.elapsed()));
            }
        }
    });
    broken
}

/// `QUORATE_DIARY=1` tells everything that happens.
fn diary() -> Diary {
    if std::env::var_os("QUORATE_DIARY").is_some() { Diary::open() } else { Diary::default() }
}

fn tell(seed: u64, kept: Option<&BTreeSet<usize>>, brief: bool, failure: &Failure) {
    if brief {
        println!("seed {seed} fails: {}", failure.what);
    } else {
        report::failed(seed, kept, failure);
    }
}

/// What `cargo test` does: every seed that once failed, fresh ones, and a few twice.
fn test() -> ExitCode {
    let began = Instant::now();
    let mut total = Total::new();
    for line in include_str!("seeds").lines().filter(|line| !line.starts_with('#')) {
        let (seed, kept) = arguments::saved(line);
        if !one(seed, kept.as_ref(), &mut total) {
            println!("this seed has failed before: {line}");
            return ExitCode::FAILURE;
        }
    }
    let first = quorate_tests::seed::seed("--test simulator");
    if let Err((seed, failure)) = many(first, FRESH, None, &mut total) {
        tell(seed, None, false, &failure);
        return ExitCode::FAILURE;
    }
    for seed in (0..APPLYING).map(|number| first.wrapping_add(number)) {
        let kept = schedule::Plan::draw(seed).of_applying();
        if !one(seed, Some(&kept), &mut total) {
            return ExitCode::FAILURE;
        }
    }
    for seed in (0..TWICE).map(|number| first.wrapping_add(number)) {
        let digests: BTreeSet<Option<u64>> =
            (0..2).map(|_| run(seed, None, &Diary::default()).ok().map(|summary| summary.digest)).collect();
        if digests.len() > 1 {
            println!("seed {seed} does not give the same run twice");
            return ExitCode::FAILURE;
        }
    }
    println!("{}", total.line(began.elapsed()));
    ExitCode::SUCCESS
}

/// Runs a seed. Whether it holds.
fn one(seed: u64, kept: Option<&BTreeSet<usize>>, total: &mut Total) -> bool {
    match run(seed, kept, &diary()) {
        Ok(summary) => {
            total.add(&summary);
            true
        }
        Err(failure) => {
            tell(seed, kept, false, &failure);
            false
        }
    }
}
