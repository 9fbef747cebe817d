//! Child processes: their logs in files, their ends certain.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// A running child. It is killed when this is dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    paused: bool,
}

impl Process {
    /// Starts `command`; what it writes to stdout and stderr is appended to `log`.
    pub fn start(name: &str, mut command: Command, log: &Path) -> io::Result<Self> {
        let output = File::options().create(true).append(true).open(log)?;
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let child = command.spawn().map_err(|error| {
            io::Error::new(error.kind(), format!("cannot start {}: {error}", command.get_program().display()))
        })?;
        Ok(Self { name: name.to_owned(), child, log: log.to_owned(), paused: false })
    }

    /// What it is called in messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its process ID.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it runs (or is stopped), and otherwise how it ended.
    pub fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// SIGKILL: it gets no chance to write anything more.
    pub fn kill(&mut self) -> io::Result<ExitStatus> {
        self.child.kill()?;
        self.child.wait()
    }

    /// SIGSTOP: it stands still, with its connections open.
    pub fn pause(&mut self) -> io::Result<()> {
        self.paused = true;
        self.hold()
    }

    /// Stops it again if it is to stand still. To be called now and then: when the shell that the tests were started from goes away, the
    /// kernel sends SIGHUP and SIGCONT to a process group that it leaves behind with somebody in it that stands still: under nohup that goes on.
    pub fn hold(&self) -> io::Result<()> {
        if self.paused { self.signal(Signal::STOP) } else { Ok(()) }
    }

    /// SIGCONT.
    pub fn resume(&mut self) -> io::Result<()> {
        self.paused = false;
        self.signal(Signal::CONT)
    }

    /// SIGTERM: it is asked to stop.
    pub fn terminate(&self) -> io::Result<()> {
        self.signal(Signal::TERM)
    }

    fn signal(&self, signal: Signal) -> io::Result<()> {
        Ok(kill_process(Pid::from_child(&self.child), signal)?)
    }

    /// Waits for its end, for at most `deadline`. What it may still need of this process, as a link that passes through it, goes on.
    pub async fn wait(&mut self, deadline: Duration) -> io::Result<ExitStatus> {
        let end = Instant::now() + deadline;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() > end {
                let text = format!("{} has not ended after {deadline:?}", self.name);
                return Err(io::Error::new(io::ErrorKind::TimedOut, text));
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// What it has written so far.
    pub fn output(&self) -> String {
        fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// The last `lines` lines that it has written.
    pub fn last_output(&self, lines: usize) -> String {
        let output = self.output();
        let all: Vec<_> = output.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already; then there is nothing to do.
        let _ = self.kill();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The state that the kernel shows of it: `T` while it stands still.
    fn wait_for(process: &Process, wanted: char) {
        let path = format!("/proc/{}/stat", process.id());
        let state = || fs::read_to_string(&path).ok()?.rsplit_once(") ")?.1.chars().next();
        let end = Instant::now() + Duration::from_mins(1);
        while state().is_none_or(|state| (state == 'T') != (wanted == 'T')) {
            assert!(Instant::now() < end, "{:?} for {wanted}", state());
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn a_pause_that_others_end_is_taken_up_again() {
        let folder = tempfile::tempdir().expect("there is a place for temporary files");
        let mut command = Command::new("sleep");
        command.arg("600");
        let mut process = Process::start("sleep", command, &folder.path().join("log")).expect("it starts");
        process.pause().expect("a child can be stopped");
        wait_for(&process, 'T');
        process.signal(Signal::CONT).expect("a child can go on");
        wait_for(&process, 'S');
        process.hold().expect("a child can be stopped");
        wait_for(&process, 'T');
        process.resume().expect("a child can go on");
        process.hold().expect("there is nothing to do");
        wait_for(&process, 'S');
    }
}
