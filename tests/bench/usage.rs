//! What processes have used, from /proc.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The kernel counts CPU time for user space in hundredths of a second (`USER_HZ`, part of its ABI).
const TICK_MICROSECONDS: u64 = 10_000;

/// CPU time in microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Cpu {
    /// In the processes' own code.
    pub(crate) user: u64,
    /// In the kernel, for them.
    pub(crate) system: u64,
}

impl Cpu {
    /// Both.
    pub(crate) fn total(self) -> u64 {
        self.user + self.system
    }

    /// What was used after `before`.
    pub(crate) fn since(self, before: Self) -> Self {
        Self { user: self.user - before.user, system: self.system - before.system }
    }
}

/// CPU that these processes have used since they started.
pub(crate) fn cpu(processes: &[u32]) -> Result<Cpu, String> {
    let mut all = Cpu::default();
    for process in processes {
        let cpu = cpu_of(&read(*process, "stat")?).ok_or("cannot read /proc/PID/stat".to_owned())?;
        all = Cpu { user: all.user + cpu.user, system: all.system + cpu.system };
    }
    Ok(all)
}

/// Bytes that were written to the disk of `folder` since the machine started, whoever wrote them; none if it is no disk.
///
/// It counts what the file system writes for itself, too, and what others do; [`dirtied`] does not.
pub(crate) fn written(folder: &Path) -> Option<u64> {
    const SECTOR: u64 = 512;
    let device = fs::metadata(folder).ok()?.dev();
    let major = (device >> 8) & 0xfff;
    let minor = (device & 0xff) | ((device >> 12) & 0xfff_ff00);
    let stat = fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/stat")).ok()?;
    let sectors: u64 = stat.split_whitespace().nth(6)?.parse().ok()?;
    Some(sectors * SECTOR)
}

/// Bytes that these processes have caused to be written since they started.
///
/// The kernel counts the pages that they make dirty, each as a whole, and a page may be 2 MiB large: so this may be far more than
/// what reaches the disk, where little is written at a time.
pub(crate) fn dirtied(processes: &[u32]) -> Result<u64, String> {
    let dirtied = |process: &u32| {
        number(&read(*process, "io")?, "write_bytes:").ok_or("cannot read /proc/PID/io".to_owned())
    };
    processes.iter().map(dirtied).sum()
}

/// CPU that all processes of the machine have used since it started, in microseconds.
pub(crate) fn machine() -> Result<u64, String> {
    let stat =
        fs::read_to_string("/proc/stat").map_err(|error| format!("cannot read /proc/stat: {error}"))?;
    busy(&stat).ok_or_else(|| "cannot read /proc/stat".to_owned())
}

/// The first line's fields: user, nice, system, idle, iowait, irq, softirq; the rest is counted in these, or is not ours.
fn busy(stat: &str) -> Option<u64> {
    let fields = stat.lines().next()?.strip_prefix("cpu ")?.split_whitespace().take(7);
    let ticks: Vec<u64> = fields.map(|field| field.parse().ok()).collect::<Option<_>>()?;
    let [user, nice, system, _idle, _iowait, irq, softirq] = ticks[..] else { return None };
    Some((user + nice + system + irq + softirq) * TICK_MICROSECONDS)
}

/// Resident memory of a process in KiB.
pub(crate) fn resident(process: u32) -> Result<u64, String> {
    number(&read(process, "status")?, "VmRSS:").ok_or_else(|| "cannot read /proc/PID/status".to_owned())
}

fn read(process: u32, file: &str) -> Result<String, String> {
    let path = format!("/proc/{process}/{file}");
    fs::read_to_string(&path).map_err(|error| format!("cannot read {path}: {error}"))
}

/// utime and stime, the 14th and 15th field; the second is a name in brackets that may hold blanks.
fn cpu_of(stat: &str) -> Option<Cpu> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(Cpu { user: user * TICK_MICROSECONDS, system: system * TICK_MICROSECONDS })
}

fn number(text: &str, field: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(field))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_counted_after_the_name() {
        let stat = "71 (a (b) c) S 1 71 71 0 -1 4194560 9 0 0 0 120 30 0 0 20 0 1 0";
        let used = Cpu { user: 120 * TICK_MICROSECONDS, system: 30 * TICK_MICROSECONDS };
        assert_eq!(cpu_of(stat), Some(used));
        assert_eq!(used.total(), 150 * TICK_MICROSECONDS);
    }

    #[test]
    fn a_busy_machine_is_one_that_does_not_idle() {
        let stat = "cpu  5 1 10 900 40 2 3 9 0 0\ncpu0 5 1 10 900 40 2 3 9 0 0\n";
        assert_eq!(busy(stat), Some(21 * TICK_MICROSECONDS));
    }

    #[test]
    fn this_process_uses_memory() {
        assert!(resident(std::process::id()).expect("it is there") > 100);
    }
}
