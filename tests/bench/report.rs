//! The table, and the same as JSON.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use crate::Options;
use crate::cluster::System;
use crate::load::{KEYS, VALUE};
use crate::row::Row;
use crate::statistics::Spread;
use crate::written::Amplification;

/// What one run under load gave.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Figures {
    /// Answers a second.
    pub(crate) rate: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    /// CPU of all three servers for each operation, whatever they do beside included.
    pub(crate) server_cpu_us: f64,
    /// The part of it in their own code, and in the kernel.
    pub(crate) server_user_us: f64,
    pub(crate) server_system_us: f64,
    pub(crate) client_cpu_us: f64,
    /// How many terms have begun meanwhile: elections.
    pub(crate) terms: u64,
    /// None for a load that writes nothing.
    pub(crate) written: Option<Amplification>,
    /// Of the largest node, at the end.
    pub(crate) resident_mib: f64,
    /// Cores that other processes kept busy meanwhile: what makes a run untrustworthy.
    pub(crate) strangers: f64,
    /// Requests that failed.
    pub(crate) errors: usize,
    /// What one of them was told.
    pub(crate) error: Option<String>,
}

/// One run of one row on one system.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Run {
    Load(Figures),
    Failover {
        gaps_ms: Vec<f64>,
        resident_mib: f64,
    },
    Restart {
        /// Of each node, from the start of its process to its first answer.
        read_s: Vec<f64>,
        written: Amplification,
        resident_mib: f64,
        /// After it.
        restarted_mib: f64,
    },
    Join {
        join_s: f64,
        /// Of the clients' writes before anyone joined.
        p99_before_ms: f64,
        /// And meanwhile.
        p99_ms: f64,
        errors: usize,
        error: Option<String>,
        resident_mib: f64,
    },
    /// Puts beside something that costs much.
    Disturbed {
        /// Of the puts before it began.
        p99_before_ms: f64,
        /// And meanwhile.
        p99_ms: f64,
        /// The longest time without an answer to any of them.
        silence_ms: f64,
        terms: u64,
        /// How often what costs much was done, and refused.
        done: usize,
        refused: usize,
        refusal: Option<String>,
        errors: usize,
        resident_mib: f64,
    },
    Idle {
        connections: usize,
        /// Of the largest node before there were any.
        before_mib: f64,
        resident_mib: f64,
    },
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Load(run) => {
                write!(f, "{:.0}/s, p50 {:.2} ms, p99 {:.2} ms, ", run.rate, run.p50_ms, run.p99_ms)?;
                write!(f, "server {:.1} us, client {:.1} us, ", run.server_cpu_us, run.client_cpu_us)?;
                write!(
                    f,
                    "{:.0} MiB, {:.2} cores busy with something else",
                    run.resident_mib, run.strangers
                )?;
                match &run.error {
                    Some(error) => write!(f, "; {} requests FAILED, one with: {error}", run.errors),
                    None => Ok(()),
                }
            }
            Self::Disturbed { p99_before_ms, p99_ms, silence_ms, terms, done, refused, refusal, .. } => {
                write!(f, "p99 {p99_before_ms:.2} ms before, {p99_ms:.2} ms meanwhile, ")?;
                write!(f, "{silence_ms:.0} ms of silence, {terms} terms, ")?;
                write!(f, "{done} done and {refused} refused")?;
                refusal.as_ref().map_or(Ok(()), |refusal| write!(f, " ({refusal})"))
            }
            Self::Idle { connections, before_mib, resident_mib } => {
                write!(
                    f,
                    "{connections} connections: {before_mib:.1} MiB before, {resident_mib:.1} with them"
                )
            }
            Self::Failover { gaps_ms, .. } => {
                let gaps: Vec<_> = gaps_ms.iter().map(|gap| format!("{gap:.0}")).collect();
                write!(f, "{} ms", gaps.join(", "))
            }
            Self::Restart { read_s, written, resident_mib, restarted_mib } => {
                let reads: Vec<_> = read_s.iter().map(|read| format!("{read:.2}")).collect();
                write!(f, "{} s, {:.1} bytes written for each, ", reads.join(", "), written.processes)?;
                write!(f, "{resident_mib:.0} MiB before, {restarted_mib:.0} after")
            }
            Self::Join { join_s, p99_before_ms, p99_ms, errors, error, resident_mib } => {
                write!(f, "{join_s:.2} s, p99 {p99_before_ms:.2} ms before, {p99_ms:.2} ms meanwhile, ")?;
                write!(f, "{resident_mib:.0} MiB")?;
                match error {
                    Some(error) => write!(f, "; {errors} requests FAILED, one with: {error}"),
                    None => Ok(()),
                }
            }
        }
    }
}

/// A column: its name, its decimals, and where its figure is in a run.
struct Column {
    name: &'static str,
    decimals: usize,
    /// Whether it says something about the system, and not about the machine.
    compared: bool,
    figure: fn(&Run) -> Option<f64>,
}

const fn column(name: &'static str, decimals: usize, figure: fn(&Run) -> Option<f64>) -> Column {
    Column { name, decimals, compared: true, figure }
}

/// A figure that says more about the machine.
const fn aside(name: &'static str, decimals: usize, figure: fn(&Run) -> Option<f64>) -> Column {
    Column { name, decimals, compared: false, figure }
}

const COLUMNS: [Column; 19] = [
    column("ops/s", 0, |run| run.load().map(|load| load.rate)),
    column("read s", 2, |run| run.reads().map(|spread| spread.median)),
    column("last read s", 2, |run| run.reads().map(|spread| spread.max)),
    column("join s", 2, Run::join),
    column("p50 ms", 2, |run| run.load().map(|load| load.p50_ms).or(run.gaps().map(|spread| spread.median))),
    column("p99 ms", 2, Run::p99),
    column("p99 before", 2, Run::p99_before),
    column("max ms", 2, Run::silence),
    column("server us/op", 1, |run| run.load().map(|load| load.server_cpu_us)),
    column("user us/op", 1, |run| run.load().map(|load| load.server_user_us)),
    column("system us/op", 1, |run| run.load().map(|load| load.server_system_us)),
    aside("client us/op", 1, |run| run.load().map(|load| load.client_cpu_us)),
    column("disk B/B", 1, |run| run.written().and_then(|written| written.disk)),
    aside("dirtied B/B", 1, |run| run.written().map(|written| written.processes)),
    aside("other cores", 2, |run| run.load().map(|load| load.strangers)),
    column("resident MiB", 0, |run| Some(run.resident())),
    column("restarted", 0, Run::restarted),
    column(
        "before MiB",
        1,
        |run| if let Run::Idle { before_mib, .. } = run { Some(*before_mib) } else { None },
    ),
    aside("terms", 0, |run| run.terms().map(|terms| terms as f64)),
];

impl Run {
    /// The longest time without an answer, in milliseconds.
    fn silence(&self) -> Option<f64> {
        if let Self::Disturbed { silence_ms, .. } = self {
            return Some(*silence_ms);
        }
        self.gaps().map(|spread| spread.max)
    }

    fn terms(&self) -> Option<u64> {
        match self {
            Self::Load(Figures { terms, .. }) | Self::Disturbed { terms, .. } => Some(*terms),
            _ => None,
        }
    }

    fn load(&self) -> Option<&Figures> {
        if let Self::Load(figures) = self { Some(figures) } else { None }
    }

    /// How long nothing was written, in milliseconds.
    fn gaps(&self) -> Option<Spread> {
        if let Self::Failover { gaps_ms, .. } = self { Spread::of(gaps_ms.clone()) } else { None }
    }

    fn reads(&self) -> Option<Spread> {
        if let Self::Restart { read_s, .. } = self { Spread::of(read_s.clone()) } else { None }
    }

    fn restarted(&self) -> Option<f64> {
        if let Self::Restart { restarted_mib, .. } = self { Some(*restarted_mib) } else { None }
    }

    fn join(&self) -> Option<f64> {
        if let Self::Join { join_s, .. } = self { Some(*join_s) } else { None }
    }

    fn p99(&self) -> Option<f64> {
        match self {
            Self::Load(Figures { p99_ms, .. }) | Self::Join { p99_ms, .. } => Some(*p99_ms),
            _ => None,
        }
    }

    fn p99_before(&self) -> Option<f64> {
        if let Self::Join { p99_before_ms, .. } = self { Some(*p99_before_ms) } else { None }
    }

    fn written(&self) -> Option<Amplification> {
        match self {
            Self::Load(figures) => figures.written,
            Self::Restart { written, .. } => Some(*written),
            _ => None,
        }
    }

    fn errors(&self) -> usize {
        match self {
            Self::Load(Figures { errors, .. })
            | Self::Join { errors, .. }
            | Self::Disturbed { errors, .. } => *errors,
            _ => 0,
        }
    }

    fn resident(&self) -> f64 {
        match self {
            Self::Load(Figures { resident_mib, .. })
            | Self::Failover { resident_mib, .. }
            | Self::Restart { resident_mib, .. }
            | Self::Join { resident_mib, .. }
            | Self::Disturbed { resident_mib, .. }
            | Self::Idle { resident_mib, .. } => *resident_mib,
        }
    }
}

/// All runs, in pairs that were made one after the other.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    systems: Vec<System>,
    value_bytes: usize,
    keys: usize,
    rounds: usize,
    seconds: u64,
    client_threads: usize,
    cores: usize,
    /// Of the data in the rows that write much.
    scale: f64,
    rows: BTreeMap<Row, Vec<[Run; 2]>>,
}

impl Report {
    pub(crate) fn new(systems: &[System], options: &Options) -> Self {
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        let rows = BTreeMap::new();
        Self {
            systems: systems.to_vec(),
            value_bytes: VALUE,
            keys: KEYS,
            rounds: options.rounds,
            seconds: options.seconds,
            client_threads: options.threads,
            cores,
            scale: options.scale,
            rows,
        }
    }

    pub(crate) fn add(&mut self, row: Row, first: Run, second: Run) {
        self.rows.entry(row).or_default().push([first, second]);
    }

    pub(crate) fn json(&self) -> String {
        serde_json::to_string_pretty(self).expect("these types have only string keys and plain figures")
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [first, second] = [0, 1].map(|side| self.systems[side].name());
        for system in &self.systems {
            writeln!(
                f,
                "{}: {}, three nodes on loopback, each run on a fresh cluster",
                system.name(),
                system.version()
            )?;
        }
        writeln!(
            f,
            "{} rounds of {} s; {} cores shared by servers and client; {} B values, {} keys; client of {} thread(s), \
             one connection goes to the leader, 100 are spread over the nodes",
            self.rounds, self.seconds, self.cores, self.value_bytes, self.keys, self.client_threads
        )?;
        writeln!(
            f,
            "server us/op: CPU of all three servers; other cores: busy with other processes; resident: the largest node; figures are medians"
        )?;
        writeln!(
            f,
            "disk B/B: bytes that reached the disk for each byte of keys and values, by whomever; dirtied B/B: what the processes are charged with, in whole pages of up to 2 MiB"
        )?;
        writeln!(
            f,
            "ratio: {first} / {second}, of runs made one after the other: median, and the least and greatest"
        )?;
        for (row, pairs) in &self.rows {
            let part = if row.is_long() && self.scale < 1.0 {
                format!(" (data: {} of it)", self.scale)
            } else {
                String::new()
            };
            writeln!(f, "\n{}{part}", row.title())?;
            let columns: Vec<&Column> =
                COLUMNS.iter().filter(|c| (c.figure)(&pairs[0][0]).is_some()).collect();
            write!(f, "  {:<10}", "")?;
            columns.iter().try_for_each(|column| write!(f, "{:>14}", column.name))?;
            writeln!(f)?;
            for (side, name) in [(0, first), (1, second)] {
                write!(f, "  {name:<10}")?;
                columns.iter().try_for_each(|column| write!(f, "{:>14}", median(column, pairs, side)))?;
                writeln!(f, "{}", errors(pairs, side))?;
            }
            write!(f, "  {:<10}", "ratio")?;
            columns.iter().try_for_each(|column| write!(f, "{:>14}", ratio(column, pairs, false)))?;
            write!(f, "\n  {:<10}", "  spread")?;
            columns.iter().try_for_each(|column| write!(f, "{:>14}", ratio(column, pairs, true)))?;
            writeln!(f)?;
        }
        Ok(())
    }
}

fn median(column: &Column, pairs: &[[Run; 2]], side: usize) -> String {
    let spread = Spread::of(pairs.iter().filter_map(|pair| (column.figure)(&pair[side])).collect());
    spread.map_or_else(|| "-".to_owned(), |spread| format!("{:.*}", column.decimals, spread.median))
}

fn ratio(column: &Column, pairs: &[[Run; 2]], spread: bool) -> String {
    let of_pair = |pair: &[Run; 2]| {
        let (first, second) = ((column.figure)(&pair[0])?, (column.figure)(&pair[1])?);
        (second > 0.0).then(|| first / second)
    };
    match Spread::of(pairs.iter().filter_map(of_pair).collect()) {
        _ if !column.compared => String::new(),
        None => "-".to_owned(),
        Some(ratio) if spread => format!("{:.2}-{:.2}", ratio.min, ratio.max),
        Some(ratio) => format!("{:.2}", ratio.median),
    }
}

/// Failed requests are never hidden.
fn errors(pairs: &[[Run; 2]], side: usize) -> String {
    let errors: usize = pairs.iter().map(|pair| pair[side].errors()).sum();
    if errors == 0 { String::new() } else { format!("   {errors} requests FAILED") }
}
