//! One process on a data directory.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Write};
use std::path::Path;

use super::{Context, OpenError};

/// The file.
pub(super) const NAME: &str = "lock";

/// Holds a data directory. The kernel lets go when the process ends, however it ends.
#[derive(Debug)]
pub struct DirLock {
    file: File,
}

impl Drop for DirLock {
    /// Closing the file would not do: a child process that is just being started has it as well, until it runs its program.
    fn drop(&mut self) {
        if let Err(error) = self.file.unlock() {
            tracing::debug!(%error, "the lock is let go at the end of the process");
        }
    }
}

/// Takes data directory `dir`, and makes it if it is not there.
pub fn lock(dir: &Path) -> Result<DirLock, OpenError> {
    make(dir)?;
    let path = dir.join(NAME);
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .on("open", &path)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            return Err(OpenError::Locked { dir: dir.to_owned(), holder: holder(&file) });
        }
        Err(TryLockError::Error(source)) => return Err(source).on("lock", &path),
    }
    // For whoever comes second: never read to decide anything, so a full disk may keep it from being written.
    let noted = file.set_len(0).and_then(|()| writeln!(file, "process {} on {}", std::process::id(), host()));
    if let Err(error) = noted {
        tracing::debug!(%error, "the lock names no holder");
    }
    Ok(DirLock { file })
}

/// Who runs on data directory `dir`, if somebody does: "by process 7 on n1". Looking takes the lock for a moment.
pub(super) fn held(dir: &Path) -> Result<Option<String>, OpenError> {
    let path = dir.join(NAME);
    let file = match File::open(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        opened => opened.on("open", &path)?,
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(None),
        Err(TryLockError::WouldBlock) => Ok(Some(holder(&file).trim_start().to_owned())),
        Err(TryLockError::Error(source)) => Err(source).on("lock", &path),
    }
}

/// Makes `dir` and what leads to it. Each name is durable before anything is promised from within.
fn make(dir: &Path) -> Result<(), OpenError> {
    if dir.as_os_str().is_empty() || dir.exists() {
        return Ok(());
    }
    let parent = dir.parent().unwrap_or(Path::new(""));
    make(parent)?;
    match fs::create_dir(dir) {
        // Another process was faster; which of the two goes on is for the lock to say.
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        made => made.on("create", dir)?,
    }
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    File::open(parent).and_then(|parent| parent.sync_all()).on("sync", parent)
}

/// " by process 7 on n1", or nothing.
fn holder(file: &File) -> String {
    let mut text = String::new();
    let read = file.take(200).read_to_string(&mut text);
    match text.lines().next() {
        Some(line) if read.is_ok() && !line.is_empty() => format!(" by {line}"),
        _ => String::new(),
    }
}

fn host() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    if name.is_empty() { "an unnamed host".to_owned() } else { name.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_a_copy_of_the_file_does_not_hold_the_directory() {
        let dir = tempfile::tempdir().expect("there is room");
        let held = lock(dir.path()).expect("nobody holds it");
        let inherited = held.file.try_clone().expect("a descriptor is free");
        drop(held);
        lock(dir.path()).expect("nobody holds it any more");
        drop(inherited);
    }
}
