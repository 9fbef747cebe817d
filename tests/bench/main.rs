//! Three nodes of Quorate beside three of etcd: the same machine, the same disk, the same client, turn and turn about.
//!
//! Every round runs every row once for each system, each time on a fresh cluster, and compares the two runs that were made one after the
//! other. Absolute figures differ from machine to machine and from hour to hour; the ratios within a run are what counts.

mod client;
mod cluster;
mod failover;
mod load;
mod report;
mod row;
mod statistics;
mod usage;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use quorate_tests::binaries;

use crate::cluster::{Product, System};
use crate::report::Report;
use crate::row::Row;

/// Compares Quorate with etcd.
#[derive(Debug, Parser)]
#[command(name = "bench")]
struct Options {
    /// The quorate-node program [default: beside this program].
    #[arg(long, env = "QUORATE_NODE")]
    node: Option<PathBuf>,
    /// The etcd program.
    #[arg(long, env = "ETCD", default_value = "etcd")]
    etcd: PathBuf,
    /// What is compared: the first with the second.
    #[arg(long, value_delimiter = ',', default_values = ["quorate", "etcd"])]
    compare: Vec<Product>,
    /// How often every row is run for each system.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Measured seconds of each run, after one more to warm up.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Rows to run [default: all].
    #[arg(long, value_delimiter = ',')]
    rows: Vec<Row>,
    /// How often the leader is killed in one run of the row `failover`.
    #[arg(long, default_value_t = 3)]
    kills: usize,
    /// Threads of the client, each with a runtime of its own.
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Where the data directories are made, on the disk to be measured. They are removed at the end.
    #[arg(long, default_value = ".")]
    data: PathBuf,
    /// The report as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<(), String> {
    let systems: Vec<System> =
        options.compare.iter().map(|product| system(*product, options)).collect::<Result<_, _>>()?;
    if systems.len() != 2 {
        return Err(format!("two systems can be compared, not {}", systems.len()));
    }
    let rows = if options.rows.is_empty() { Row::ALL.to_vec() } else { options.rows.clone() };
    let mut report = Report::new(&systems, options.rounds, options.seconds, options.threads);
    for round in 0..options.rounds {
        for &row in &rows {
            let mut pair = [None, None];
            // Who goes first changes with the round: neither always finds the machine as the other left it.
            for side in if round % 2 == 0 { [0, 1] } else { [1, 0] } {
                eprintln!(
                    "round {} of {}: {} on {}",
                    round + 1,
                    options.rounds,
                    row.title(),
                    systems[side].name()
                );
                let run = measure(&systems[side], row, options);
                let run =
                    run.map_err(|error| format!("{} on {}: {error}", row.title(), systems[side].name()))?;
                eprintln!("  {run}");
                pair[side] = Some(run);
            }
            if let [Some(first), Some(second)] = pair {
                report.add(row, first, second);
            }
        }
    }
    println!("{report}");
    if let Some(path) = &options.json {
        std::fs::write(path, report.json())
            .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    }
    Ok(())
}

fn system(product: Product, options: &Options) -> Result<System, String> {
    let program = match (product, &options.node) {
        (Product::Etcd, _) => options.etcd.clone(),
        (Product::Quorate, Some(path)) => path.clone(),
        (Product::Quorate, None) => binaries::workspace("quorate-node", "QUORATE_NODE")?,
    };
    System::new(product, program)
}

fn measure(system: &System, row: Row, options: &Options) -> Result<report::Run, String> {
    let cluster = cluster::Cluster::start(system, &options.data)?;
    match row.load() {
        Some(load) => load::run(&cluster, &load, Duration::from_secs(options.seconds), options.threads),
        None => failover::run(cluster, options.kills),
    }
}
