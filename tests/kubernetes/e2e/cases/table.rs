//! What the cases cost, a line each.

use std::fmt;
use std::time::Duration;

/// How a case ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Passed,
    Failed,
    /// It cannot be run here.
    LeftOut,
}

impl fmt::Display for Outcome {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Passed => "passed",
            Self::Failed => "FAILED",
            Self::LeftOut => "left out",
        })
    }
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) name: String,
    pub(super) outcome: Outcome,
    /// The longest time without an acknowledged write.
    pub(super) pause: Option<Duration>,
    /// What that may be at most. None: the case is an outage.
    pub(super) bound: Option<Duration>,
    /// From the first thing that was done until the cluster was Ready as wanted.
    pub(super) ready: Option<Duration>,
}

impl Row {
    /// Of a case that has not ended.
    pub(super) fn of(name: &str, bound: Option<Duration>) -> Self {
        Self { name: name.to_owned(), outcome: Outcome::Failed, pause: None, bound, ready: None }
    }
}

/// Prints them, and how many passed.
pub(super) fn print(rows: &[Row]) {
    let seconds = |time: Option<Duration>| {
        time.map_or_else(|| "-".to_owned(), |time| format!("{:.1} s", time.as_secs_f64()))
    };
    println!("\n{:<44} {:<9} {:>14} {:>8} {:>14}", "case", "result", "longest pause", "bound", "until Ready");
    for row in rows {
        let (pause, bound, ready) = (seconds(row.pause), seconds(row.bound), seconds(row.ready));
        println!("{:<44} {:<9} {pause:>14} {bound:>8} {ready:>14}", row.name, row.outcome);
    }
    let count = |outcome| rows.iter().filter(|row| row.outcome == outcome).count();
    let (passed, failed, left_out) =
        (count(Outcome::Passed), count(Outcome::Failed), count(Outcome::LeftOut));
    println!("\n{passed} passed, {failed} failed, {left_out} left out");
}
