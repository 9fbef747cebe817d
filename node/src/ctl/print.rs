//! Tables for people, JSON for programs.

use std::fmt::Write as _;
use std::io::{self, Write as _};

use serde_json::Value;

/// Columns as wide as their widest cell, two spaces between them. Numbers stand to the right.
pub(super) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain([head[column].len()]).max().unwrap_or(0)
    };
    let is_number = |cell: &str| !cell.is_empty() && cell.chars().all(|c| c.is_ascii_digit());
    let numeric = |column: usize| {
        rows.iter().any(|row| {
            row.get(column).is_some_and(|c| is_number(c)) && head[column] != "ID" && head[column] != "NAME"
        })
    };
    let mut text = String::new();
    let head_row: Vec<String> = head.iter().map(|cell| (*cell).to_owned()).collect();
    for row in std::iter::once(&head_row).chain(rows) {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let pad = " ".repeat(width(column).saturating_sub(cell.chars().count()));
            let (before, after) = if numeric(column) { (pad.as_str(), "") } else { ("", pad.as_str()) };
            let _ = write!(line, "{before}{cell}{after}  ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// One JSON value and the end of the line.
pub(super) fn json(value: &Value) -> io::Result<()> {
    text(&format!("{value:#}\n"))
}

/// Text as it is.
pub(super) fn text(text: &str) -> io::Result<()> {
    bytes(text.as_bytes())
}

/// Bytes as they are.
pub(super) fn bytes(bytes: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(bytes)?;
    out.flush()
}

/// What is under way, beside the answer.
pub(super) fn progress(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// A member's or cluster's ID, as people see it everywhere.
pub(super) fn id(id: u64) -> String {
    format!("{id:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let rows = vec![
            vec!["a".into(), "7".into()],
            vec!["long".into(), "-".into()],
            vec!["b".into(), "1234".into()],
        ];
        let text = table(&["NAME", "TERM"], &rows);
        assert_eq!(text, "NAME  TERM\na        7\nlong     -\nb     1234\n");
    }
}
