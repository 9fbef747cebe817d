//! How much of its data directory a node has read that is starting.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, oneshot};

/// The parts of a data directory that a start reads: the log and the snapshots.
const READ: [&str; 2] = ["wal", "snapshot"];

/// How long an answer waits for the disk to say how large the files are.
const PATIENCE: Duration = Duration::from_millis(500);

/// Looks how far a node is that starts. A disk that hangs holds up nobody but the thread that looks. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Reading {
    data_dir: Arc<Path>,
    /// One looks at a time.
    looks: Arc<Mutex<()>>,
}

impl Reading {
    /// Of a node that keeps its log in `data_dir`.
    pub(crate) fn of(data_dir: PathBuf) -> Self {
        Reading { data_dir: data_dir.into(), looks: Arc::default() }
    }

    /// In one line. On a runtime.
    pub(super) async fn progress(&self) -> String {
        let unknown = || "starting: the disk does not say how much there is to read".to_owned();
        let looks = Arc::clone(&self.looks);
        let Ok(looking) = tokio::time::timeout(PATIENCE, looks.lock_owned()).await else { return unknown() };
        let data_dir = Arc::clone(&self.data_dir);
        let (tell, told) = oneshot::channel();
        // A thread that the system denies is no reason to end.
        let look = std::thread::Builder::new().name("reading".into()).spawn(move || {
            let _looking = looking;
            let _ = tell.send(progress(&data_dir));
        });
        if look.is_err() {
            return unknown();
        }
        tokio::time::timeout(PATIENCE, told).await.ok().and_then(Result::ok).unwrap_or_else(unknown)
    }
}

fn progress(data_dir: &Path) -> String {
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

    /// What hangs is a look that has not ended.
    #[tokio::test]
    async fn disk_that_hangs_holds_up_no_answer() {
        let reading = Reading::of("/nowhere".into());
        assert!(reading.progress().await.contains(" 0 MiB"));
        let hangs = Arc::clone(&reading.looks).lock_owned().await;
        assert!(reading.progress().await.contains("does not say"));
        drop(hangs);
        assert!(reading.progress().await.contains(" 0 MiB"));
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
