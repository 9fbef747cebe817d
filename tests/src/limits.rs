//! Limits under which a child runs: as a container's runtime sets them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Set where control groups cannot be made, to leave out what needs them.
const SKIP: &str = "QUORATE_SKIP_CONTROL_GROUPS";

/// Where control groups of memory are: of the second version, or of the first.
const ROOTS: [(&str, &str); 2] =
    [("/sys/fs/cgroup", "memory.max"), ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")];

/// The most that a child may use.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Open files, sockets included: the soft limit and the hard one.
    pub descriptors: u64,
    /// The control group that its memory is counted in.
    pub memory: Option<PathBuf>,
}

impl Limits {
    /// `command`, to be run under these limits.
    pub fn on(&self, command: &Command) -> Command {
        // The shell takes the limits on itself, and then becomes the program: nothing runs outside of them.
        let joins = self.memory.as_ref().map(|group| format!("echo $$ > '{}/cgroup.procs'", group.display()));
        let script = format!(
            "ulimit -n {} && {} || exit 125; exec \"$0\" \"$@\"",
            self.descriptors,
            joins.as_deref().unwrap_or("true")
        );
        let mut limited = Command::new("sh");
        limited.arg("-c").arg(script).arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => limited.env(name, value),
                None => limited.env_remove(name),
            };
        }
        limited
    }
}

/// A control group that limits memory. It goes when this is dropped, which must be after the processes in it have ended.
#[derive(Debug)]
pub struct MemoryGroup {
    path: PathBuf,
}

impl MemoryGroup {
    /// A group `name` whose processes may use `bytes` together; none where no group can be made and the environment says that it need
    /// not be.
    pub fn new_unless_excused(name: &str, bytes: u64) -> Result<Option<Self>, String> {
        match Self::new(name, bytes) {
            Ok(group) => Ok(Some(group)),
            Err(error) if std::env::var_os(SKIP).is_some() => {
                eprintln!(
                    "without a limit of memory, as {SKIP} is set: no control group can be made here: {error}"
                );
                Ok(None)
            }
            Err(error) => Err(format!(
                "cannot make a control group of memory: {error}. It takes root and a writable /sys/fs/cgroup; set {SKIP} to do without"
            )),
        }
    }

    fn new(name: &str, bytes: u64) -> io::Result<Self> {
        let (root, limit) = ROOTS
            .iter()
            .find(|(root, _)| has_memory(Path::new(root)))
            .ok_or_else(|| io::Error::other("the system has no control groups of memory"))?;
        let path = Path::new(root).join(format!("quorate-{}-{name}", std::process::id()));
        fs::create_dir(&path)?;
        let group = Self { path };
        fs::write(group.path.join(limit), bytes.to_string())?;
        Ok(group)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Whether groups below `root` count memory.
fn has_memory(root: &Path) -> bool {
    let second = fs::read_to_string(root.join("cgroup.subtree_control"))
        .is_ok_and(|kinds| kinds.split_whitespace().any(|kind| kind == "memory"));
    second || root.join("memory.limit_in_bytes").exists()
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        // The kernel may still be at the last process's end.
        for _ in 0..100 {
            match fs::remove_dir(&self.path) {
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                    std::thread::sleep(std::time::Duration::from_millis(10));
                }
                _ => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(command: &Command, limits: &Limits) -> String {
        let output = limits.on(command).output().expect("a shell runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    #[test]
    fn a_child_has_the_limits_and_keeps_its_arguments() {
        let mut command = Command::new("sh");
        command.arg("-c").arg("echo \"$(ulimit -n) $VARIABLE $1\"").arg("name").arg("two words");
        command.env("VARIABLE", "set");
        let limits = Limits { descriptors: 77, memory: None };
        assert_eq!(output(&command, &limits), "77 set two words");
    }

    #[test]
    fn a_child_is_in_the_group_of_memory_and_the_group_goes_after_it() {
        let group = MemoryGroup::new_unless_excused("unit-test", 64 << 20)
            .unwrap_or_else(|reason| panic!("{reason}"));
        let Some(group) = group else { return };
        let path = group.path().to_owned();
        let mut command = Command::new("cat");
        command.arg("/proc/self/cgroup");
        let shown = output(&command, &Limits { descriptors: 64, memory: Some(path.clone()) });
        let name = path.file_name().expect("it has a name").to_string_lossy().into_owned();
        assert!(shown.contains(&name), "{shown}");
        drop(group);
        assert!(!path.exists());
    }
}
