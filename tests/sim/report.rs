//! What a person reads: how many runs there were, what they reached, and how one failed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::coverage::{Coverage, NAMES};
use crate::diary::Diary;
use crate::faults;
use crate::schedule::Plan;
use crate::shrink::shrink;
use crate::simulation::{Failure, Summary, run};
use crate::time::{MILLI, SECOND};

/// All runs together.
#[derive(Debug, Clone)]
pub(crate) struct Total {
    runs: u64,
    seconds: f64,
    events: u64,
    operations: usize,
    coverage: Coverage,
    faults: BTreeMap<&'static str, u64>,
}

impl Total {
    pub(crate) fn new() -> Self {
        let (coverage, faults) = (Coverage::new(), BTreeMap::new());
        Self { runs: 0, seconds: 0.0, events: 0, operations: 0, coverage, faults }
    }

    pub(crate) fn add(&mut self, summary: &Summary) {
        self.runs += 1;
        self.seconds += summary.time as f64 / SECOND as f64;
        self.events += summary.events;
        self.operations += summary.operations;
        self.coverage.merge(&summary.coverage);
        for (kind, times) in &summary.faults {
            *self.faults.entry(kind).or_default() += times;
        }
    }

    /// In a line.
    pub(crate) fn line(&self, took: Duration) -> String {
        let took = took.as_secs_f64();
        format!(
            "{} runs, {:.1} simulated hours in {took:.1} s ({:.0} times as fast), {} events, {} operations of clients",
            self.runs,
            self.seconds / 3600.0,
            self.seconds / took,
            self.events,
            self.operations
        )
    }

    /// Everything, with what was never reached at the end.
    pub(crate) fn print(&self, took: Duration) {
        println!("{}\n\nfaults", self.line(took));
        for (_, words, _) in faults::kinds() {
            println!("{:>12}  {words}", self.faults.get(words).copied().unwrap_or(0));
        }
        println!("\nreached");
        for name in NAMES {
            println!("{:>12}  {name}", self.coverage.get(name));
        }
        let never: Vec<_> = NAMES.iter().copied().filter(|name| self.coverage.get(name) == 0).collect();
        if !never.is_empty() {
            println!("\nnever reached: {}", never.join("; "));
        }
    }
}

/// Tells how a run failed: with the fewest faults, its last events in words, and how to see it again.
pub(crate) fn failed(seed: u64, kept: Option<&BTreeSet<usize>>, failure: &Failure) {
    println!("\nseed {seed} fails: {}", failure.what);
    println!("\nlooking for the fewest faults that are needed ...");
    let needed = shrink(seed, kept);
    let diary = Diary::open();
    let what = match run(seed, Some(&needed), &diary) {
        Err(failure) => failure.what,
        Ok(_) => "it does not fail again: the simulator is not deterministic".into(),
    };
    let plan = Plan::draw(seed);
    println!("of {} faults {} are needed:", plan.faults.len(), needed.len());
    for fault in plan.faults.iter().filter(|fault| needed.contains(&fault.number)) {
        println!(
            "{:>12.3} ms  fault {}: {}",
            fault.at as f64 / MILLI as f64,
            fault.number,
            fault.kind.words()
        );
    }
    println!("\nthe last events:");
    diary.last().iter().for_each(|line| println!("{line}"));
    println!("\n{what}");
    let list: Vec<String> = needed.iter().map(ToString::to_string).collect();
    println!(
        "\nsee it again:  make simulate SEED={seed} FAULTS={}",
        if list.is_empty() { "none".into() } else { list.join(",") }
    );
    println!("with all its faults:  make simulate SEED={seed}");
}
