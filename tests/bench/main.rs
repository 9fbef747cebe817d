//! Three nodes of Quorate beside three of etcd: the same machine, the same disk, the same client, turn and turn about.
//!
//! Every round runs every row once for each system, each time on a fresh cluster, and compares the two runs that were made one after the
//! other. Absolute figures differ from machine to machine and from hour to hour; the ratios within a run are what counts.

mod client;
mod cluster;
mod data;
mod disturbed;
mod failover;
mod idle;
mod join;
mod load;
mod report;
mod restart;
mod row;
mod statistics;
mod usage;
mod written;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use quorate_tests::binaries;

use crate::cluster::{Cluster, Product, System};
use crate::disturbed::Disturbance;
use crate::failover::Loss;
use crate::report::{Report, Run};
use crate::row::Row;

/// How many keys of [`load::VALUE`] bytes there are when all nodes are restarted.
const RESTART_KEYS: usize = 1_000_000;
/// How many keys there are beside those that are put, for requests that look at all of them.
const DISTURBED_KEYS: usize = 200_000;
/// How many connections do nothing.
const IDLE_CONNECTIONS: usize = 10_000;
/// What a slow disk writes in a second, in bytes.
const SLOW_DISK: u64 = 50_000_000;
/// How much a new member has to learn.
const JOIN_BYTES: usize = 1 << 30;

/// Compares Quorate with etcd.
#[derive(Debug, Parser)]
#[command(name = "bench")]
pub(crate) struct Options {
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
    pub(crate) rounds: usize,
    /// Measured seconds of each run, after one more to warm up.
    #[arg(long, default_value_t = 5)]
    pub(crate) seconds: u64,
    /// Rows to run [default: all].
    #[arg(long, value_delimiter = ',')]
    rows: Vec<Row>,
    /// How often the rows are run that take minutes: `restart` and `join`.
    #[arg(long, default_value_t = 1)]
    pub(crate) long_rounds: usize,
    /// The part of the data that these rows write: 0.01 to try them out.
    #[arg(long, default_value_t = 1.0)]
    pub(crate) scale: f64,
    /// How often the leader is lost in one run of the rows `failover` and `stall`.
    #[arg(long, default_value_t = 3)]
    kills: usize,
    /// Threads of the client, each with a runtime of its own.
    #[arg(long, default_value_t = 1)]
    pub(crate) threads: usize,
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
    let mut report = Report::new(&systems, options);
    for round in 0..options.rounds {
        for &row in rows.iter().filter(|row| round < options.long_rounds || !row.is_long()) {
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
                pair[side] =
                    run.map_err(|error| format!("{} on {}: {error}", row.title(), systems[side].name()))?;
                if let Some(run) = &pair[side] {
                    eprintln!("  {run}");
                }
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

/// One run; none if it is left out here.
fn measure(system: &System, row: Row, options: &Options) -> Result<Option<Run>, String> {
    let duration = Duration::from_secs(options.seconds);
    #[expect(clippy::cast_sign_loss, reason = "a negative part is none")]
    let part = |whole: usize| (whole as f64 * options.scale) as usize;
    if row == Row::Stall {
        let Some(cluster) = Cluster::start_on_faulty_disks(system, &options.data)? else { return Ok(None) };
        return failover::run(cluster, Loss::Stalled, options.kills).map(Some);
    }
    let cluster = if row.is_on_slow_disks() {
        let Some(cluster) = Cluster::start_on_faulty_disks(system, &options.data)? else { return Ok(None) };
        (0..cluster.size()).for_each(|node| cluster.faults(node).limit_bandwidth(SLOW_DISK));
        cluster
    } else {
        Cluster::start(system, &options.data)?
    };
    if let Some(disturbance) = Disturbance::of(row) {
        return disturbed::run(&cluster, disturbance, part(DISTURBED_KEYS), duration, options.threads)
            .map(Some);
    }
    let run = match (row, row.load()) {
        (_, Some(load)) => load::run(&cluster, &load, duration, options.threads),
        (Row::Restart, _) => restart::run(cluster, part(RESTART_KEYS)),
        (Row::Idle, _) => idle::run(&cluster, part(IDLE_CONNECTIONS)),
        (Row::Join, _) => join::run(cluster, part(JOIN_BYTES), duration, options.threads),
        _ => failover::run(cluster, Loss::Killed, options.kills),
    };
    run.map(Some)
}
