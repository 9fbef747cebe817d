//! `raftctl check`: what it says of data directories, whole and not.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use quorate_node::storage::disk::OsDisk;
use quorate_node::storage::identity::Identity;
use quorate_node::storage::{Wal, WalOptions, lock};
use quorate_raft::{Configuration, Entry, Payload};
use tempfile::TempDir;

use crate::{MEMBER, SEGMENT, command, noise, term, write};

/// What it says on stdout and stderr, and its exit code.
fn check(dir: &Path, more: &[&str]) -> (String, String, i32) {
    let before = contents(dir);
    let mut raftctl = Command::new(env!("CARGO_BIN_EXE_raftctl"));
    let output = raftctl.env_clear().arg("check").arg(dir).args(more).output().unwrap();
    assert_eq!(contents(dir), before, "it changed something");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (text(output.stdout), text(output.stderr), output.status.code().unwrap())
}

/// All files under a directory.
fn contents(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(contents(&path));
        } else {
            files.push((path.clone(), fs::read(path).unwrap()));
        }
    }
    files.sort();
    files
}

/// A log of six entries after the configuration, each in a block of its own from the second on.
fn data_dir(voters: &[u64]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mut identity = Identity::open(&OsDisk, dir.path(), MEMBER).unwrap();
    let options = WalOptions { segment_bytes: SEGMENT, ..WalOptions::new(MEMBER) };
    let (mut wal, _) = Wal::open(dir.path(), options).unwrap();
    let voters = voters.iter().map(|id| quorate_raft::MemberId(*id)).collect();
    let configuration = Configuration { voters, ..Configuration::default() };
    let payload = Payload::Configuration(Box::new(configuration));
    wal.append(&[write(Some(term(1)), vec![Entry { term: 1, index: 1, payload }])]).unwrap();
    for index in 2..=7 {
        wal.append(&[write(None, vec![command(1, index, 600)])]).unwrap();
    }
    identity.join(&OsDisk, dir.path(), 5).unwrap();
    dir
}

fn segment(dir: &TempDir) -> PathBuf {
    dir.path().join("wal/0000000000000001.wal")
}

fn overwrite(path: &Path, at: u64, bytes: &[u8]) {
    OpenOptions::new().write(true).open(path).unwrap().write_all_at(bytes, at).unwrap();
}

fn says(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "no {part:?} in:\n{text}");
    }
}

#[test]
fn a_whole_directory() {
    let dir = data_dir(&[7, 8, 9]);
    fs::write(dir.path().join("identity.new"), "half").unwrap();
    let (text, error, code) = check(dir.path(), &[]);
    assert_eq!((error.as_str(), code), ("", 0), "{text}");
    let parts = [
        ": whole\n",
        "member 0000000000000007 of cluster 0000000000000005",
        "2 segments, the last one unused; 65536 bytes",
        "1 to 7, of terms 1 to 1\n",
        "term 1, vote for 0000000000000007, committed up to 0",
        "identity.new: not needed",
    ];
    says(&text, &parts);
    let (json, _, code) = check(dir.path(), &["--output", "json"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((code, &json["whole"], &json["log"]["last"]["index"]), (0, &true.into(), &7.into()));
}

#[test]
fn a_torn_tail_is_no_damage() {
    let dir = data_dir(&[7, 8, 9]);
    overwrite(&segment(&dir), 7 * 4096 + 512, &[0; 512]);
    let (text, _, code) = check(dir.path(), &[]);
    assert_eq!(code, 0, "{text}");
    says(&text, &["wal/0000000000000001.wal at byte 28672: 4096 bytes", "1 to 6,", "cuts what was not"]);
}

#[test]
fn damage() {
    for (voters, fate) in [(&[7, 8, 9][..], "takes no part in elections"), (&[7][..], "as the only voter")] {
        let dir = data_dir(voters);
        overwrite(&segment(&dir), 4 * 4096 + 200, &noise(1, 10));
        let (text, error, code) = check(dir.path(), &[]);
        assert_eq!(code, 1, "{text}");
        says(&error, &[" is damaged"]);
        let parts = [
            ": DAMAGED\n",
            "0000000000000001.wal is damaged at byte 16384: a frame does not match its checksum; it held entry 4",
            "entries 4 to 7 (term 1)",
            fate,
        ];
        says(&text, &parts);
        let json: serde_json::Value =
            serde_json::from_str(&check(dir.path(), &["--output", "json"]).0).unwrap();
        assert_eq!(json["log"]["damage"][0]["offset"], 16384);
        assert_eq!((&json["log"]["lost"]["index"], &json["log"]["last"]["index"]), (&7.into(), &3.into()));
    }
}

#[test]
fn damage_that_nobody_repairs() {
    let dir = data_dir(&[7, 8, 9]);
    overwrite(&segment(&dir), 7 * 4096, &noise(1, 10));
    let (text, _, code) = check(dir.path(), &[]);
    assert_eq!(code, 1, "{text}");
    says(&text, &["at byte 28672", "Restore the volume", "refuses to start"]);

    let dir = data_dir(&[7]);
    overwrite(&dir.path().join("identity"), 30, b"x");
    let (text, _, code) = check(dir.path(), &[]);
    assert_eq!(code, 1, "{text}");
    says(&text, &["the identity does not match its checksum", "not looked at"]);

    let dir = data_dir(&[7]);
    fs::remove_dir_all(dir.path().join("wal")).unwrap();
    let (text, _, code) = check(dir.path(), &[]);
    assert_eq!(code, 1, "{text}");
    says(&text, &["the log of 0000000000000007 is gone"]);
}

#[test]
fn directories_without_data() {
    let dir = tempfile::tempdir().unwrap();
    let (text, _, code) = check(dir.path(), &[]);
    assert_eq!(code, 0);
    says(&text, &["a node that starts here is a new member"]);

    fs::write(dir.path().join("letter.txt"), "dear").unwrap();
    let (text, error, code) = check(dir.path(), &[]);
    assert_eq!((text.as_str(), code), ("", 2));
    says(&error, &["is no data directory"]);

    let (_, error, code) = check(&dir.path().join("nowhere"), &[]);
    assert_eq!(code, 2);
    says(&error, &["cannot list", "nowhere"]);
}

#[test]
fn a_directory_in_use() {
    let dir = data_dir(&[7]);
    let held = lock(dir.path()).unwrap();
    let (_, error, code) = check(dir.path(), &[]);
    assert_eq!(code, 0);
    says(&error, &["warning: the directory is in use by process "]);
    drop(held);
    assert_eq!(check(dir.path(), &[]).1, "");
}
