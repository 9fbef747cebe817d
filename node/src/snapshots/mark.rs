//! The mark on a volume whose state was found to differ from what a majority holds: such a member never serves again.
//!
//! The file `corrupt` in the data directory is text:
//!
//! ```text
//! quorate corrupt 1
//! entry 0000000000000005 00000000000f4240
//! own 9f86d081…
//! majority 60303ae2…
//! crc32c 89abcdef
//! ```
//!
//! The entry's term comes before its index. The checksum is of all lines before it. The file is replaced as a whole, atomically. A mark that cannot be
//! read is a mark: what it says is for people.

use std::io;
use std::path::Path;

use quorate_raft::LogId;

use super::digest::{Corrupt, Hash};
use crate::storage::disk::Disk;
use crate::storage::{CORRUPT, OpenError, replace_file};

/// The mark in data directory `dir`. None if there is none.
pub fn read_mark(disk: &dyn Disk, dir: &Path) -> Result<Option<Corrupt>, OpenError> {
    let path = dir.join(CORRUPT);
    let io = |action| move |source| OpenError::Io { action, path: dir.join(CORRUPT), source };
    let file = match disk.open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(io("open"))?,
    };
    let length = file.len().map_err(io("read"))?.min(4096);
    let mut bytes = vec![0; length as usize];
    file.read_at(&mut bytes, 0).map_err(io("read"))?;
    let unknown = Corrupt { id: LogId::default(), own: Hash::default(), majority: Hash::default() };
    Ok(Some(parse(&bytes).unwrap_or(unknown)))
}

/// Marks data directory `dir`, durably and for good.
pub fn write_mark(disk: &dyn Disk, dir: &Path, corrupt: &Corrupt) -> Result<(), OpenError> {
    replace_file(disk, dir, CORRUPT, text(corrupt).as_bytes())
}

fn text(Corrupt { id, own, majority }: &Corrupt) -> String {
    let LogId { term, index } = id;
    let lines =
        format!("quorate corrupt 1\nentry {term:016x} {index:016x}\nown {own}\nmajority {majority}\n");
    format!("{lines}crc32c {:08x}\n", crc32c::crc32c(lines.as_bytes()))
}

fn parse(bytes: &[u8]) -> Option<Corrupt> {
    let found = std::str::from_utf8(bytes).ok()?;
    let line = |name: &str| found.lines().find_map(|line| line.strip_prefix(name));
    let (term, index) = line("entry ")?.split_once(' ')?;
    let number = |digits| u64::from_str_radix(digits, 16).ok();
    let id = LogId { term: number(term)?, index: number(index)? };
    let hash = |name: &str| Hash::from_text(line(name)?);
    let corrupt = Corrupt { id, own: hash("own ")?, majority: hash("majority ")? };
    (text(&corrupt) == found).then_some(corrupt)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::disk::OsDisk;

    #[test]
    fn mark_stays_and_says_where() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read_mark(&OsDisk, dir.path()).unwrap(), None);
        let hash = |byte| Hash([byte; 32]);
        let corrupt = Corrupt { id: LogId { term: 5, index: 77 }, own: hash(1), majority: hash(0xf0) };
        write_mark(&OsDisk, dir.path(), &corrupt).unwrap();
        assert_eq!(read_mark(&OsDisk, dir.path()).unwrap(), Some(corrupt));
        // One that is damaged says less, and counts as much.
        std::fs::write(dir.path().join(CORRUPT), "quorate corrupt 1\nentry 5 77\n").unwrap();
        assert_eq!(read_mark(&OsDisk, dir.path()).unwrap().unwrap().id, LogId::default());
    }
}
