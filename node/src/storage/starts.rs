//! How many processes have run on a data directory: by the number of its start, others tell a process from those before it.
//!
//! The file `starts` is text:
//!
//! ```text
//! quorate starts 1
//! starts 000000000000002a
//! crc32c 89abcdef
//! ```
//!
//! It is a file of its own, and may be missing, so that builds that do not count their starts can run on the directory in between. The checksum is
//! of all lines before it. The file is replaced as a whole, atomically. What it says is no promise: with a number that is too low a process is
//! told by the others that it has forgotten something, is repaired, and goes on from the number that they remember. So a damaged file
//! counts as none.

use std::io;
use std::path::Path;

use super::disk::Disk;
use super::{Context, OpenError, replace_file};

/// The file.
pub(super) const NAME: &str = "starts";
const FIRST_LINE: &str = "quorate starts ";
/// The newest format.
const NEWEST: u32 = 1;

/// The number of the newest process that was counted in data directory `dir`; 0 if none was.
pub fn read(disk: &dyn Disk, dir: &Path) -> Result<u64, OpenError> {
    let path = dir.join(NAME);
    let file = match disk.open(&path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(0),
        opened => opened.on("open", &path)?,
    };
    let length = file.len().on("read", &path)?.min(4096);
    let mut bytes = vec![0; length as usize];
    file.read_at(&mut bytes, 0).on("read", &path)?;
    let found = std::str::from_utf8(&bytes).unwrap_or_default();
    let format = found.lines().next().and_then(|line| line.strip_prefix(FIRST_LINE)?.parse::<u32>().ok());
    if let Some(format) = format.filter(|format| *format > NEWEST) {
        let what = format!("written in format {format}; this version reads formats up to {NEWEST}");
        return Err(OpenError::Foreign { path, what });
    }
    let digits = found.lines().find_map(|line| line.strip_prefix("starts ")).unwrap_or_default();
    let number = u64::from_str_radix(digits, 16).ok().filter(|number| text(*number) == found);
    if number.is_none() {
        tracing::warn!(path = %path.display(), "the count of starts is damaged, and begins anew");
    }
    Ok(number.unwrap_or(0))
}

/// Counts a start, durably: returns its number, which is greater than that of each before it on this directory, and at least `least`.
/// To be called by a process before it says anything to another member.
pub fn count(disk: &dyn Disk, dir: &Path, least: u64) -> Result<u64, OpenError> {
    let number = read(disk, dir)?.saturating_add(1).max(least);
    replace_file(disk, dir, NAME, text(number).as_bytes())?;
    Ok(number)
}

fn text(number: u64) -> String {
    let lines = format!("{FIRST_LINE}{NEWEST}\nstarts {number:016x}\n");
    format!("{lines}crc32c {:08x}\n", crc32c::crc32c(lines.as_bytes()))
}
