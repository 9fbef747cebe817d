//! Golden scripts: each file in `testscripts/` tells one theme of the protocol, in commands and what they bring about.
//!
//! A script is a sequence of blocks, with a blank line between them: commands, one a line, then `----`, then all that they
//! put out. Lines that begin with `#` are for the reader. `world.rs` lists the commands. `UPDATE=1 cargo test --test scripts`
//! rewrites what is expected: read the difference before you keep it.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "scripts are files, and the protocol itself is not in here"
)]

#[allow(dead_code, reason = "each kind of test uses a part of it")]
#[path = "../harness/mod.rs"]
mod harness;
mod show;
mod world;

use std::fs;
use std::path::{Path, PathBuf};

use world::World;

#[test]
fn scripts() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("testscripts");
    let mut paths: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(!paths.is_empty());
    let wrong: Vec<String> = paths.iter().filter_map(|path| check(path)).collect();
    assert!(
        wrong.is_empty(),
        "{}\nIf this is meant: UPDATE=1 cargo test -p quorate-raft --test scripts",
        wrong.join("\n")
    );
}

/// Runs one script. Returns what differs.
fn check(path: &Path) -> Option<String> {
    let expected = fs::read_to_string(path).unwrap();
    let name = path.file_name().unwrap().to_string_lossy().into_owned();
    let actual = run(&name, &expected);
    if actual == expected {
        return None;
    }
    if std::env::var_os("UPDATE").is_some() {
        fs::write(path, actual).unwrap();
        return None;
    }
    let differing = expected.lines().zip(actual.lines()).position(|(e, a)| e != a);
    let line = differing.unwrap_or_else(|| expected.lines().count().min(actual.lines().count()));
    let show = |text: &str| text.lines().nth(line).unwrap_or("(the end)").to_owned();
    Some(format!("{name}:{}\n  expected: {}\n  actual:   {}", line + 1, show(&expected), show(&actual)))
}

/// The script, with the output that its commands have now.
fn run(name: &str, script: &str) -> String {
    let mut world = World::default();
    let mut result = String::new();
    let mut commands = Vec::new();
    let mut lines = script.lines();
    while let Some(line) = lines.next() {
        result += line;
        result += "\n";
        if line == "----" {
            for command in commands.drain(..) {
                result += &world.run(command);
            }
            // What was expected ends with the block.
            if lines.by_ref().any(str::is_empty) {
                result += "\n";
            }
        } else if !line.is_empty() && !line.starts_with('#') {
            commands.push(line);
        }
    }
    assert!(commands.is_empty(), "{name}: commands at the end are not followed by ----");
    result
}
