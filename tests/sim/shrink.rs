//! Cuts a run that fails to the fewest faults that still make it fail (delta debugging; Zeller and Hildebrandt, 2002).

use std::collections::BTreeSet;

use crate::diary::Diary;
use crate::schedule::Plan;
use crate::simulation::run;

/// The most runs that are tried.
const TRIES: usize = 300;

/// The faults of `seed` that are needed. A run with fewer may fail in another way: that will do.
pub(crate) fn shrink(seed: u64, kept: Option<&BTreeSet<usize>>) -> BTreeSet<usize> {
    let all = Plan::draw(seed).faults.iter().map(|fault| fault.number).collect();
    let mut needed: Vec<usize> = kept.unwrap_or(&all).iter().copied().collect();
    let mut pieces = 2;
    let mut tries = 0;
    while needed.len() > 1 && pieces <= needed.len() && tries < TRIES {
        let size = needed.len().div_ceil(pieces);
        let without = (0..needed.len()).step_by(size).find_map(|start| {
            let rest: BTreeSet<usize> = needed
                .iter()
                .enumerate()
                .filter(|(at, _)| !(start..start + size).contains(at))
                .map(|(_, n)| *n)
                .collect();
            tries += 1;
            run(seed, Some(&rest), &Diary::default()).is_err().then_some(rest)
        });
        match without {
            Some(rest) => {
                needed = rest.into_iter().collect();
                pieces = (pieces - 1).max(2);
            }
            None if size == 1 => break,
            None => pieces = (pieces * 2).min(needed.len()),
        }
    }
    if tries < TRIES && run(seed, Some(&BTreeSet::new()), &Diary::default()).is_err() {
        needed.clear();
    }
    needed.into_iter().collect()
}
