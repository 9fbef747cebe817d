//! Where the programs under test are.

use std::env;
use std::path::{Path, PathBuf};

/// A program of this workspace, as `cargo build` leaves it.
///
/// `variable` in the environment names another one. Otherwise it is looked for where the running test or benchmark itself was
/// built, so that both come from the same profile.
pub fn workspace(program: &str, variable: &str) -> Result<PathBuf, String> {
    if let Some(given) = env::var_os(variable) {
        return existing(PathBuf::from(given))
            .map_err(|path| format!("{variable} names {path}, which does not exist"));
    }
    let own = env::current_exe().map_err(|error| format!("cannot tell where this program is: {error}"))?;
    // target/PROFILE/deps/NAME-HASH for tests, target/PROFILE/NAME for programs.
    let folders = own.ancestors().skip(1).take(2);
    let found = folders.map(|folder| folder.join(program)).find(|path| path.is_file());
    found.ok_or_else(|| {
        let folder = own.parent().map(Path::display);
        let folder = folder.map_or_else(String::new, |folder| format!(" beside {folder}"));
        format!("{program} is not built{folder}: run `cargo build -p quorate-node` (with --release for a release build), or name it in {variable}")
    })
}

fn existing(path: PathBuf) -> Result<PathBuf, String> {
    if path.is_file() { Ok(path) } else { Err(path.display().to_string()) }
}
