//! What the simulator is asked to do.

use std::collections::BTreeSet;

use clap::Parser;
use rand::Rng;

/// What to do.
#[derive(Debug)]
pub(crate) enum Request {
    /// A test of another name is asked for, or a list of them.
    Nothing,
    Test,
    Simulate(Arguments),
}

/// Which runs.
#[derive(Debug)]
pub(crate) struct Arguments {
    pub(crate) first: u64,
    pub(crate) count: u64,
    /// Only these faults.
    pub(crate) faults: Option<BTreeSet<usize>>,
    /// A failure is told in a line, and not cut to the fewest faults.
    pub(crate) brief: bool,
}

// Each is a flag of its own on the command line.
#[allow(clippy::struct_excessive_bools)]
#[derive(Debug, Parser)]
#[command(name = "simulator", about = "Whole clusters on virtual time, under faults, from seeds")]
struct Line {
    /// The first seed; without it, a random one.
    #[arg(long)]
    seed: Option<u64>,
    /// How many seeds to run, one after the other.
    #[arg(long)]
    seeds: Option<u64>,
    /// Only the faults with these numbers: 3,17,40, or none.
    #[arg(long)]
    faults: Option<String>,
    /// Say in a line which seed fails, and do not look for the fewest faults.
    #[arg(long)]
    brief: bool,
    /// Which tests to run, as every test program is asked.
    filter: Vec<String>,
    #[arg(long, hide = true)]
    list: bool,
    #[arg(long, hide = true)]
    nocapture: bool,
    #[arg(long, hide = true)]
    exact: bool,
}

/// Reads the command line.
pub(crate) fn read() -> Result<Request, String> {
    let line = Line::parse();
    if line.list {
        println!("simulator: test");
        return Ok(Request::Nothing);
    }
    if line.seed.is_none() && line.seeds.is_none() {
        let asked = line.filter.is_empty() || line.filter.iter().any(|filter| "simulator".contains(filter));
        return Ok(if asked { Request::Test } else { Request::Nothing });
    }
    let faults = line.faults.as_deref().map(numbers).transpose()?;
    // Small enough to be typed again.
    let first = line.seed.unwrap_or_else(|| rand::rng().next_u64() >> 24);
    Ok(Request::Simulate(Arguments {
        first,
        count: line.seeds.unwrap_or(1).max(1),
        faults,
        brief: line.brief,
    }))
}

/// A line of the seeds that once failed: the seed, its faults, and what it found.
pub(crate) fn saved(line: &str) -> (u64, Option<BTreeSet<usize>>) {
    let mut words = line.split_whitespace();
    let seed = words.next().and_then(|word| word.parse().ok()).expect("a line begins with a seed");
    let faults = words.next().expect("and says which faults");
    (seed, (faults != "all").then(|| numbers(faults).expect("they are numbers")))
}

fn numbers(list: &str) -> Result<BTreeSet<usize>, String> {
    if list == "none" {
        return Ok(BTreeSet::new());
    }
    list.split(',')
        .map(|word| word.parse().map_err(|_| format!("{word} is not the number of a fault")))
        .collect()
}
