//! How much of its data directory a node has read that is starting.

use std::fs;
use std::path::Path;

/// The parts of a data directory that a start reads: the log and the snapshots.
const READ: [&str; 2] = ["wal", "snapshot"];

/// In one line.
pub(super) fn progress(data_dir: &Path) -> String {
    let mib = |bytes: u64| bytes.div_ceil(1 << 20);
    let total = size(data_dir);
    match fs::read_to_string("/proc/self/io").ok().and_then(|io| bytes_read(&io)) {
        // What was read twice counts twice, and the program itself is among it.
        Some(read) => format!("starting: read {} of {} MiB", mib(read.min(total)), mib(total)),
        None => format!("starting: reading {} MiB", mib(total)),
    }
}

/// What the kernel has counted, from `/proc/self/io`.
fn bytes_read(io: &str) -> Option<u64> {
    io.lines().find_map(|line| line.strip_prefix("rchar: "))?.parse().ok()
}

/// Bytes of the files that a start reads. What cannot be looked at counts as nothing.
fn size(dir: &Path) -> u64 {
    let mut bytes = 0;
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let Ok(metadata) = entry.metadata() else { continue };
        let path = entry.path();
        let is_read = path.extension().is_some_and(|kind| READ.iter().any(|read| kind == *read));
        if metadata.is_dir() {
            bytes += size(&path);
        } else if is_read {
            bytes += metadata.len();
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_count_is_read() {
        assert_eq!(bytes_read("rchar: 17\nwchar: 4\n"), Some(17));
        assert_eq!(bytes_read(""), None);
    }

    #[test]
    fn only_what_is_read_counts() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("log")).unwrap();
        for (name, bytes) in [("log/1.wal", 100), ("2.snapshot", 10), ("identity", 1)] {
            fs::write(dir.path().join(name), vec![0; bytes]).unwrap();
        }
        assert_eq!(size(dir.path()), 110);
    }
}
