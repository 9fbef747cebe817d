//! What fuzzers have found (`tests/fuzz`) is replayed, and so is what they begin with.

use std::fs;
use std::path::Path;

#[allow(dead_code, unreachable_pub, missing_docs, reason = "each of its users needs a part of it")]
#[allow(clippy::pedantic, reason = "a fuzzer's code is compiled without these lints")]
#[path = "../fuzz/targets.rs"]
mod targets;

#[test]
fn nothing_panics_any_more() {
    let found = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/found");
    for targets::Target { name, run, seeds } in targets::targets() {
        for seed in &seeds {
            run(seed);
        }
        for file in fs::read_dir(found.join(name)).expect("each target has a folder") {
            let file = file.expect("it can be read").path();
            println!("{}", file.display());
            run(&fs::read(file).expect("it can be read"));
        }
    }
}

/// Some of what a fuzzer does, on any compiler: changes by chance.
#[test]
fn a_little_of_it() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    for round in 0..4000 {
        let changes: Vec<u8> = (0..=round % 4).flat_map(|_| next()).collect();
        targets::wal_recovery(&changes);
    }
    for targets::Target { run, seeds, .. } in targets::targets().into_iter().skip(1) {
        for seed in seeds.iter().cycle().take(2000) {
            let mut changed = seed.clone();
            let [place, _, value, ..] = next();
            if let Some(byte) = changed.get_mut(usize::from(place) % seed.len().max(1)) {
                *byte = value;
            }
            run(&changed);
        }
    }
}

/// What fuzzers begin with, written to `QUORATE_SEEDS`/TARGET/.
#[test]
#[ignore = "run by tests/fuzz"]
fn seeds() {
    let dir = std::env::var("QUORATE_SEEDS").expect("where to");
    for targets::Target { name, seeds, .. } in targets::targets() {
        let dir = Path::new(&dir).join(name);
        fs::create_dir_all(&dir).expect("a directory");
        for (number, seed) in seeds.iter().enumerate() {
            fs::write(dir.join(format!("seed-{number:02}")), seed).expect("it can be written");
        }
    }
}
