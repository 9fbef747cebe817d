//! Which cases have passed, in a file: a run that was stopped goes on after them.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use super::table::{Outcome, Row};

/// The cases that have passed, a line of JSON each.
pub(super) struct Progress {
    passed: Vec<Row>,
    file: File,
}

impl Progress {
    /// Goes on with what an earlier run has left, or begins anew.
    pub(super) fn open(go_on: bool) -> Result<Self, String> {
        let path = path();
        let failed = |error| format!("{}: {error}", path.display());
        let folder = path.parent().unwrap_or_else(|| Path::new("."));
        std::fs::create_dir_all(folder).map_err(failed)?;
        let before = if go_on { std::fs::read_to_string(&path).unwrap_or_default() } else { String::new() };
        let passed = before.lines().filter_map(read).collect();
        let mut options = OpenOptions::new();
        options.create(true).write(true).append(go_on).truncate(!go_on);
        Ok(Self { passed, file: options.open(&path).map_err(failed)? })
    }

    /// What a case has cost, if it has passed before.
    pub(super) fn passed(&self, name: &str) -> Option<Row> {
        self.passed.iter().find(|row| row.name == name).cloned()
    }

    /// Writes down that a case has passed.
    pub(super) fn note(&mut self, row: &Row) -> Result<(), String> {
        if row.outcome != Outcome::Passed || self.passed.contains(row) {
            return Ok(());
        }
        writeln!(self.file, "{}", write(row)).map_err(|error| format!("{}: {error}", path().display()))
    }
}

fn path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../.local/test-all")
}

fn write(row: &Row) -> Value {
    let millis = |time: Option<Duration>| time.map(|time| time.as_millis().to_string());
    json!({"name": row.name, "pause": millis(row.pause), "bound": millis(row.bound), "ready": millis(row.ready)})
}

/// None of a line that was cut off.
fn read(line: &str) -> Option<Row> {
    let row: Value = serde_json::from_str(line).ok()?;
    let millis = |field: &str| row[field].as_str()?.parse().ok().map(Duration::from_millis);
    Some(Row {
        name: row["name"].as_str()?.to_owned(),
        outcome: Outcome::Passed,
        pause: millis("pause"),
        bound: millis("bound"),
        ready: millis("ready"),
    })
}
