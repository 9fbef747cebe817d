//! The store against a real etcd: the same random requests to both, and the same answers, field by field.
//!
//! Every sequence of requests comes from one seed and starts from an empty state, with revisions counted from there; so it
//! replays by itself: `QUORATE_SEED=n cargo test -p quorate-tests --test differential`. What differs is made as short as
//! possible before it is shown.
//!
//! `QUORATE_SEQUENCES` says how many sequences are run, if not the default.

mod etcd;
mod generate;
mod lease;
mod maintenance;
mod members;
mod ours;
mod quota;
mod range_stream;
mod request;
mod sequence;
mod watch;

use std::env;

use rand::RngExt;

use crate::etcd::Etcd;

/// Sequences in one run, each of up to [`generate::LONGEST`] requests.
const SEQUENCES: u64 = 400;

#[test]
fn the_store_answers_as_etcd_does() {
    let mut etcd = Etcd::start();
    let seeds = seeds(SEQUENCES);
    println!("{} sequences from seed {}", seeds.len(), seeds[0]);
    let mut requests = 0;
    for seed in seeds {
        let sequence = generate::sequence(seed);
        requests += sequence.len();
        if let Some(difference) = sequence::shortest_difference(&mut etcd, sequence) {
            panic!("QUORATE_SEED={seed} replays this:\n{difference}");
        }
    }
    println!("{requests} requests had equal answers: {:#?}", etcd.tally());
}

/// One seed to replay, or consecutive ones from a random start: so many, unless it is said how many.
fn seeds(sequences: u64) -> Vec<u64> {
    let number = |name| env::var(name).ok().map(|text| text.parse().expect("a number"));
    if let Some(seed) = number("QUORATE_SEED") {
        return vec![seed];
    }
    let first = u64::from(rand::rng().random::<u32>());
    (first..first + number("QUORATE_SEQUENCES").unwrap_or(sequences)).collect()
}
