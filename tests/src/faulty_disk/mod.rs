//! A disk that fails when a test wants it to: a file system of our own over a folder.
//!
//! What is written goes to files of the folder as it is. Between a process and them stand [`Faults`], which a test switches on and off
//! while the process runs. One thing is kept of what a real disk does: what was not synced when a sync failed is gone.

mod faults;
mod files;
mod operations;
#[cfg(test)]
mod tests;
mod unsynced;

use std::fs;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fuser::{BackgroundSession, Config, MountOption, Session};
use rustix::fs::{Mode, OFlags};
use rustix::mount::UnmountFlags;

pub use faults::{Faults, Times};
use files::Files;
use operations::Operations;

/// Requests that are served side by side. Those that a fault holds up are not among them: each has a thread of its own.
const THREADS: usize = 4;

/// Says that where no such disk can be mounted its tests may be left out.
const SKIP: &str = "QUORATE_NO_FUSE";

/// A mounted disk. It is gone when this is dropped and nobody has a file of it open any more.
///
/// The mount has no place in the tree of directories: it is reached through this process, and ends with it, however that ends. So a
/// test that is killed leaves nothing behind.
#[derive(Debug)]
pub struct FaultyDisk {
    files: Arc<Files>,
    faults: Arc<Faults>,
    path: PathBuf,
    // Dropped in this order: nobody can come in any more, then the session ends with the last open file.
    _root: OwnedFd,
    _session: BackgroundSession,
}

impl FaultyDisk {
    /// A disk whose files are in `folder`, which must exist.
    pub fn mount(folder: &Path) -> io::Result<Self> {
        let files = Arc::new(Files::new(folder.canonicalize()?));
        let faults = Arc::new(Faults::default());
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("faulty-disk".to_owned()), MountOption::NoAtime];
        config.n_threads = Some(THREADS);
        let place = tempfile::tempdir_in(folder.parent().unwrap_or(folder))?;
        let operations = Operations::new(Arc::clone(&files), Arc::clone(&faults));
        let session = Session::new(operations, place.path(), &config)?;
        let root = detach(place.path());
        let session = session.spawn()?;
        let root = root?;
        fs::remove_dir(place.path())?;
        let path = PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), root.as_raw_fd()));
        Ok(Self { files, faults, path, _root: root, _session: session })
    }

    /// The same; none where no disk can be mounted and the environment says that it need not be.
    pub fn mount_unless_excused(folder: &Path) -> Result<Option<Self>, String> {
        match Self::mount(folder) {
            Ok(disk) => Ok(Some(disk)),
            Err(error) if std::env::var_os(SKIP).is_some() => {
                eprintln!("SKIPPED, as {SKIP} is set: no file system can be mounted here: {error}");
                Ok(None)
            }
            Err(error) => Err(format!(
                "cannot mount a file system: {error}. It takes /dev/fuse and the right to mount (root); set {SKIP} to leave out what needs one"
            )),
        }
    }

    /// Its root directory, for any process that this one's user may run.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What goes wrong with it.
    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    /// The power fails: what was not synced is gone. Whoever used the disk must have ended before, and it must not stand still.
    pub fn lose_power(&self) -> io::Result<()> {
        self.files.lose_unsynced()
    }
}

impl Drop for FaultyDisk {
    /// Whoever waits for it gets an answer: otherwise it could not end.
    fn drop(&mut self) {
        self.faults.heal();
    }
}

/// Takes the mount out of the tree, and holds on to its root.
fn detach(place: &Path) -> io::Result<OwnedFd> {
    let root = rustix::fs::open(place, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    rustix::mount::unmount(place, UnmountFlags::DETACH)?;
    Ok(root?)
}
