//! kill -9 of a process that appends: nothing that it was told to be durable is missing.

use std::io::{BufRead, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use quorate_node::storage::{Wal, WalOptions};
use quorate_raft::{HardState, Write};

use crate::model::Model;
use crate::{MEMBER, command, write};

const DIR: &str = "QUORATE_TEST_KILL_DIR";
const FROM: &str = "QUORATE_TEST_KILL_FROM";

fn open(dir: &Path) -> (Wal, Model) {
    let options = WalOptions { segment_bytes: 256 * 1024, ..WalOptions::new(MEMBER) };
    let (wal, recovered) = Wal::open(dir, options).expect("nothing is damaged");
    let last = recovered.entries.last().map_or(0, |e| e.index);
    (wal, Model { hard_state: recovered.hard_state, base: recovered.base, last, entries: recovered.entries })
}

/// The `n`th group to be appended: now and then it replaces a part of the tail, in a new term.
fn group(n: u64, model: &Model) -> Write {
    let back = if n.is_multiple_of(7) { n % 5 } else { 0 };
    let first = (model.last + 1).saturating_sub(back).max(1);
    let term = model.hard_state.term.max(1) + u64::from(back > 0);
    let count = 1 + n % 4;
    let entries =
        (first..first + count).map(|index| command(term, index, (n * 131 % 3000) as usize)).collect();
    write(Some(HardState { term, vote: None, commit: 0 }), entries)
}

/// The process that is killed. It says the number of each group that is durable.
#[test]
#[ignore = "run by the test below, in a process of its own"]
fn appends_until_it_is_killed() {
    let dir = std::env::var(DIR).expect("the directory");
    let from: u64 = std::env::var(FROM).expect("the first group's number").parse().expect("a number");
    let (mut wal, mut model) = open(Path::new(&dir));
    let mut out = std::io::stdout().lock();
    for n in from.. {
        let group = group(n, &model);
        wal.append(std::slice::from_ref(&group)).expect("the disk is well");
        model.append(&[group]);
        writeln!(out, "durable {n}").and_then(|()| out.flush()).expect("the parent listens");
        wal.prepare().expect("the disk is well");
    }
}

#[test]
fn nothing_acknowledged_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    let mut model = Model::default();
    let mut next = 0;
    for round in 0..8 {
        let test = "kill::appends_until_it_is_killed";
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", test, "--nocapture"])
            .env(DIR, dir.path())
            .env(FROM, next.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let wanted = 5 + round * 13;
        let mut acknowledged = 0;
        // What stands in the pipe after the kill was acknowledged too.
        for line in lines {
            if line.unwrap().starts_with("durable") {
                acknowledged += 1;
            }
            if acknowledged == wanted {
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        assert!(acknowledged >= wanted, "the child ended by itself");

        for _ in 0..acknowledged {
            let group = group(next, &model);
            model.append(&[group]);
            next += 1;
        }
        let (_, recovered) = open(dir.path());
        let mut in_flight = model.clone();
        in_flight.append(&[group(next, &model)]);
        if recovered == in_flight {
            model = in_flight;
            next += 1;
        }
        assert!(recovered == model, "round {round}: {} entries of {}", recovered.last, model.last);
    }
}
