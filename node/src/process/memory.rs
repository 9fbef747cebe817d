//! How much memory a process may have: what its control group, and all above it, allow, and what the machine has.

use std::fs;
use std::path::{Path, PathBuf};

/// Where the kernel says so.
#[derive(Debug, Clone)]
pub(super) struct Kernel {
    proc: PathBuf,
    cgroups: PathBuf,
}

impl Default for Kernel {
    fn default() -> Self {
        Kernel { proc: "/proc".into(), cgroups: "/sys/fs/cgroup".into() }
    }
}

impl Kernel {
    /// In bytes. None if nothing says so.
    pub(super) fn memory(&self) -> Option<u64> {
        self.machine().into_iter().chain(self.limits()).min()
    }

    fn machine(&self) -> Option<u64> {
        let text = fs::read_to_string(self.proc.join("meminfo")).ok()?;
        let kib = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?.trim().strip_suffix("kB")?;
        Some(kib.trim().parse::<u64>().ok()? << 10)
    }

    /// The limits of the process's control groups: where there are both versions, of both. One that is none, or too large to be one, is
    /// larger than the machine.
    fn limits(&self) -> Vec<u64> {
        let groups = fs::read_to_string(self.proc.join("self/cgroup")).unwrap_or_default();
        let mut limits = Vec::new();
        for line in groups.lines() {
            // A number, controllers, and a path from the root of the hierarchy.
            let mut parts = line.splitn(3, ':').skip(1);
            let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
            if controllers.is_empty() {
                for root in [self.cgroups.clone(), self.cgroups.join("unified")] {
                    limits.extend(up(&root, path, "memory.max"));
                }
            } else if controllers.split(',').any(|controller| controller == "memory") {
                limits.extend(up(&self.cgroups.join("memory"), path, "memory.limit_in_bytes"));
            }
        }
        limits
    }
}

/// The numbers in `file` of the group at `path` and of all above it, up to `root`: inside a container that may be all that can be seen.
fn up(root: &Path, path: &str, file: &str) -> Vec<u64> {
    let path = Path::new(path.trim_start_matches('/'));
    // A group that is not below what can be seen here.
    let path = if path.components().any(|part| part.as_os_str() == "..") { Path::new("") } else { path };
    let read = |group: &Path| fs::read_to_string(root.join(group).join(file)).ok()?.trim().parse().ok();
    path.ancestors().filter_map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    /// A kernel that says so in these files, on a machine of 8 GiB.
    fn memory(files: &[(&str, &str)]) -> Option<u64> {
        let dir = tempfile::tempdir().expect("a directory");
        let machine = ("proc/meminfo", "MemTotal:        8388608 kB\nMemFree:  1 kB\n");
        for (path, text) in files.iter().chain([&machine]) {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().expect("it is in a directory")).expect("directories");
            fs::write(path, text).expect("a file");
        }
        Kernel { proc: dir.path().join("proc"), cgroups: dir.path().join("cgroup") }.memory()
    }

    #[test]
    fn without_a_limit_it_is_the_machines() {
        assert_eq!(memory(&[]), Some(8 * GIB));
        assert_eq!(memory(&[("proc/self/cgroup", "nonsense\n1:\n")]), Some(8 * GIB));
        let max = [("proc/self/cgroup", "0::/\n"), ("cgroup/memory.max", "max\n")];
        assert_eq!(memory(&max), Some(8 * GIB));
        let absurd = [
            ("proc/self/cgroup", "5:memory:/\n"),
            ("cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
        ];
        assert_eq!(memory(&absurd), Some(8 * GIB));
        let nothing = Kernel { proc: "/nowhere".into(), cgroups: "/nowhere".into() };
        assert_eq!(nothing.memory(), None);
    }

    #[test]
    fn the_smallest_limit_of_version_2_counts_wherever_it_is() {
        let group = ("proc/self/cgroup", "0::/pods/pod7/node\n");
        let own = ("cgroup/pods/pod7/node/memory.max", "2147483648\n");
        let above = ("cgroup/pods/memory.max", "1073741824\n");
        assert_eq!(memory(&[group, own]), Some(2 * GIB));
        assert_eq!(memory(&[group, own, above]), Some(GIB));
        assert_eq!(memory(&[group, ("cgroup/pods/pod7/node/memory.max", "max"), above]), Some(GIB));
        let in_a_container = [("proc/self/cgroup", "0::/../host\n"), ("cgroup/memory.max", "1073741824\n")];
        assert_eq!(memory(&in_a_container), Some(GIB));
    }

    #[test]
    fn limits_of_version_1_and_of_both_count() {
        let groups = "9:name=systemd:/a\n4:cpu,memory:/a/b\n0::/a\n";
        let group = ("proc/self/cgroup", groups);
        let first = ("cgroup/memory/a/memory.limit_in_bytes", "3221225472\n");
        assert_eq!(memory(&[group, first]), Some(3 * GIB));
        let second = ("cgroup/unified/a/memory.max", "2147483648\n");
        assert_eq!(memory(&[group, first, second]), Some(2 * GIB));
        let unseen = ("cgroup/memory/memory.limit_in_bytes", "1073741824\n");
        assert_eq!(memory(&[group, unseen]), Some(GIB), "the group's own folder cannot be seen");
    }
}
