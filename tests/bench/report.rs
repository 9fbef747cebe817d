//! The table, and the same as JSON.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use crate::cluster::System;
use crate::load::{KEYS, VALUE};
use crate::row::Row;
use crate::statistics::Spread;

/// What one run under load gave.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Figures {
    /// Answers a second.
    pub(crate) rate: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    /// CPU of all three servers for each operation, whatever they do beside included.
    pub(crate) server_cpu_us: f64,
    pub(crate) client_cpu_us: f64,
    /// Bytes written to the disk for each operation, by whomever; none if the data is on no disk.
    pub(crate) written_bytes: Option<f64>,
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
    Failover { gaps_ms: Vec<f64>, resident_mib: f64 },
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
            Self::Failover { gaps_ms, .. } => {
                let gaps: Vec<_> = gaps_ms.iter().map(|gap| format!("{gap:.0}")).collect();
                write!(f, "{} ms", gaps.join(", "))
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

const COLUMNS: [Column; 9] = [
    Column { name: "ops/s", decimals: 0, compared: true, figure: |run| run.load().map(|load| load.rate) },
    Column {
        name: "p50 ms",
        decimals: 2,
        compared: true,
        figure: |run| run.load().map_or_else(|| run.gap(0.5), |load| Some(load.p50_ms)),
    },
    Column { name: "p99 ms", decimals: 2, compared: true, figure: |run| run.load().map(|load| load.p99_ms) },
    Column { name: "max ms", decimals: 2, compared: true, figure: |run| run.gap(1.0) },
    Column {
        name: "server us/op",
        decimals: 1,
        compared: true,
        figure: |run| run.load().map(|load| load.server_cpu_us),
    },
    Column {
        name: "client us/op",
        decimals: 1,
        compared: false,
        figure: |run| run.load().map(|load| load.client_cpu_us),
    },
    Column {
        name: "written B/op",
        decimals: 0,
        compared: false,
        figure: |run| run.load().and_then(|load| load.written_bytes),
    },
    Column {
        name: "other cores",
        decimals: 2,
        compared: false,
        figure: |run| run.load().map(|load| load.strangers),
    },
    Column { name: "resident MiB", decimals: 0, compared: true, figure: |run| Some(run.resident()) },
];

impl Run {
    fn load(&self) -> Option<&Figures> {
        match self {
            Self::Load(figures) => Some(figures),
            Self::Failover { .. } => None,
        }
    }

    /// The middle gap (0.5) or the longest (1.0).
    fn gap(&self, part: f64) -> Option<f64> {
        let Self::Failover { gaps_ms, .. } = self else { return None };
        let spread = Spread::of(gaps_ms.clone())?;
        Some(if part < 1.0 { spread.median } else { spread.max })
    }

    fn resident(&self) -> f64 {
        match self {
            Self::Load(figures) => figures.resident_mib,
            Self::Failover { resident_mib, .. } => *resident_mib,
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
    rows: BTreeMap<Row, Vec<[Run; 2]>>,
}

impl Report {
    pub(crate) fn new(systems: &[System], rounds: usize, seconds: u64, client_threads: usize) -> Self {
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        let rows = BTreeMap::new();
        Self {
            systems: systems.to_vec(),
            value_bytes: VALUE,
            keys: KEYS,
            rounds,
            seconds,
            client_threads,
            cores,
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
            "ratio: {first} / {second}, of runs made one after the other: median, and the least and greatest"
        )?;
        for (row, pairs) in &self.rows {
            writeln!(f, "\n{}", row.title())?;
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
    let errors: usize = pairs.iter().filter_map(|pair| pair[side].load()).map(|figures| figures.errors).sum();
    if errors == 0 { String::new() } else { format!("   {errors} requests FAILED") }
}
