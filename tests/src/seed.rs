//! Random tests print their seed, and replay from it.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// The seed for `test`: `QUORATE_SEED` if it is set, otherwise a new one. It is printed, and shown when the test fails.
pub fn seed(test: &str) -> u64 {
    let given = std::env::var("QUORATE_SEED").ok();
    let given = given.map(|text| text.parse().expect("QUORATE_SEED is a number"));
    let seed = given.unwrap_or_else(|| rand::rng().next_u64());
    eprintln!("seed {seed}: replay with QUORATE_SEED={seed} cargo test -p quorate-tests {test}");
    seed
}

/// A random generator for `test`; see [`seed`].
pub fn random(test: &str) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(seed(test))
}
