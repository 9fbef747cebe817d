//! One process on a data directory.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::time::Duration;

use super::{Context, OpenError};

/// The file.
pub(super) const NAME: &str = "lock";

/// What only the owner of a data directory has: all values stand in it.
pub(super) const PRIVATE: u32 = 0o700;

/// For how long somebody who looks holds the lock at the most, and more.
const LOOK: Duration = Duration::from_millis(100);

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

/// Takes data directory `dir`, and makes it if it is not there. One that others can read is closed to them.
pub fn lock(dir: &Path) -> Result<DirLock, OpenError> {
    make(dir)?;
    narrow(dir);
    let path = dir.join(NAME);
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .on("open", &path)?;
    let locked = match file.try_lock() {
        // Somebody may only be looking ([`held`]).
        Err(TryLockError::WouldBlock) => {
            std::thread::sleep(LOOK);
            file.try_lock()
        }
        locked => locked,
    };
    match locked {
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
    match DirBuilder::new().mode(PRIVATE).create(dir) {
        // Another process was faster; which of the two goes on is for the lock to say.
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        made => made.on("create", dir)?,
    }
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    File::open(parent).and_then(|parent| parent.sync_all()).on("sync", parent)
}

/// Closes a directory to all but its owner. Who may not do that goes on: on Kubernetes a volume's root belongs to root, and nobody else is
/// in the pod. The files in it are closed anyway.
fn narrow(dir: &Path) {
    let Ok(mode) = fs::metadata(dir).map(|found| found.permissions().mode()) else { return };
    let wide = mode & 0o077;
    if wide == 0 {
        return;
    }
    match fs::set_permissions(dir, Permissions::from_mode(mode & 0o7700)) {
        Ok(()) => tracing::warn!(
            dir = %dir.display(),
            "others could read the data directory (mode {:o}): closed it to all but its owner",
            mode & 0o777
        ),
        Err(error) => tracing::info!(
            dir = %dir.display(), %error,
            "the data directory has mode {:o}, and stays so: 700 keeps others out",
            mode & 0o777
        ),
    }
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

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("it is there").permissions().mode() & 0o777
    }

    #[test]
    fn a_data_directory_is_its_owners_alone() {
        let root = tempfile::tempdir().expect("there is room");
        let (new, old) = (root.path().join("a/b"), root.path().join("old"));
        drop(lock(&new).expect("nobody holds it"));
        assert_eq!((mode(&new), mode(&new.join(NAME))), (0o700, 0o600));
        fs::create_dir(&old).expect("it can be made");
        fs::set_permissions(&old, Permissions::from_mode(0o755)).expect("it is ours");
        drop(lock(&old).expect("nobody holds it"));
        assert_eq!(mode(&old), 0o700);
    }

    #[test]
    fn who_only_looks_keeps_nobody_out() {
        let dir = tempfile::tempdir().expect("there is room");
        drop(lock(dir.path()).expect("nobody holds it"));
        let looks = File::open(dir.path().join(NAME)).expect("it is there");
        looks.try_lock_shared().expect("nobody holds it");
        std::thread::scope(|scope| {
            let starts = scope.spawn(|| lock(dir.path()).map(drop));
            // It is let go while the other one waits, or before it comes.
            looks.unlock().expect("it was held");
            starts.join().expect("no test panics within").expect("nobody holds it any more");
        });
    }

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
