//! Checks a history, and says in words what is wrong with it.

use std::fmt;

use super::history::{History, Operation, Time};
use super::model::Model;
use super::partition::{Partition, split};
use super::search::{Outcome, search};

/// Steps of the search for each partition. A step takes some microseconds and at most a few hundred bytes.
pub const BUDGET: u64 = 1_000_000;

/// The search for the shortest wrong beginning takes a logarithmic number of searches: together about as long as the first.
const SHORTENING: u64 = 16;

/// The checker's answer.
pub enum Verdict<M: Model> {
    /// One copy of the data could have given these answers.
    Linearizable,
    /// None could.
    Violated(Violation<M>),
    /// The search for these keys ran out of its budget, and no other keys are known to be wrong.
    Undecided(Vec<M::Key>),
}

/// The shortest beginning of a partition's history that is not linearizable.
pub struct Violation<M: Model> {
    /// The keys of the partition.
    pub keys: Vec<M::Key>,
    /// The operations invoked before the end of that beginning. One that returned later is without an answer here.
    pub history: History<M::Input, M::Output>,
    /// The longest order that explains its own answers, as positions in `history`.
    pub longest: Vec<usize>,
}

/// Checks `history` against `model`, each partition with a budget of [`BUDGET`] steps.
pub fn check<M: Model>(model: &M, history: &History<M::Input, M::Output>) -> Verdict<M> {
    check_within(model, history, BUDGET)
}

/// Checks `history` against `model`, each partition with `budget` steps.
pub fn check_within<M: Model>(model: &M, history: &History<M::Input, M::Output>, budget: u64) -> Verdict<M> {
    let mut history = history.clone();
    history.sort_by_key(|operation| operation.invoked);
    let mut undecided = Vec::new();
    for partition in split(model, history) {
        match search(model, &partition.history, budget) {
            Outcome::Order(_) => {}
            Outcome::Impossible(longest) => {
                return Verdict::Violated(shorten(model, partition, longest, budget));
            }
            Outcome::OutOfBudget => match hopeless_prefix(model, &partition.history, budget) {
                Some((history, longest)) => {
                    return Verdict::Violated(Violation { keys: partition.keys, history, longest });
                }
                None => undecided.extend(partition.keys),
            },
        }
    }
    if undecided.is_empty() { Verdict::Linearizable } else { Verdict::Undecided(undecided) }
}

type Wrong<M> = (History<<M as Model>::Input, <M as Model>::Output>, Vec<usize>);

fn shorten<M: Model>(model: &M, partition: Partition<M>, longest: Vec<usize>, budget: u64) -> Violation<M> {
    let shortest = hopeless_prefix(model, &partition.history, budget);
    let (history, longest) = shortest.unwrap_or((partition.history, longest));
    Violation { keys: partition.keys, history, longest }
}

/// The shortest beginning that is known to be wrong. Every longer one is wrong too, so it is found by halving.
fn hopeless_prefix<M: Model>(
    model: &M,
    history: &[Operation<M::Input, M::Output>],
    budget: u64,
) -> Option<Wrong<M>> {
    let mut ends: Vec<Time> = history.iter().filter_map(|operation| operation.returned).collect();
    ends.sort_unstable();
    let mut shortest = None;
    let (mut low, mut high) = (0, ends.len());
    while low < high {
        let middle = usize::midpoint(low, high);
        let prefix = until(history, ends[middle]);
        if let Outcome::Impossible(longest) = search(model, &prefix, budget / SHORTENING) {
            shortest = Some((prefix, longest));
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    shortest
}

/// What was known of `history` at the time `end`.
fn until<I: Clone, O: Clone>(history: &[Operation<I, O>], end: Time) -> History<I, O> {
    let mut prefix: Vec<_> =
        history.iter().take_while(|operation| operation.invoked <= end).cloned().collect();
    for operation in prefix.iter_mut().filter(|operation| operation.returned > Some(end)) {
        operation.output = None;
        operation.returned = None;
    }
    prefix
}

impl<M: Model> Verdict<M> {
    /// Panics with the explanation unless the history is linearizable: for tests.
    #[track_caller]
    pub fn assert_linearizable(&self) {
        assert!(matches!(self, Self::Linearizable), "{self}");
    }
}

impl<M: Model> fmt::Display for Verdict<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Linearizable => f.write_str("the history is linearizable"),
            Self::Violated(violation) => violation.fmt(f),
            Self::Undecided(keys) => {
                write!(f, "undecided: the search ran out of its budget for the keys {}", list(keys))
            }
        }
    }
}

impl<M: Model> fmt::Debug for Verdict<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// How many operations before the last one are shown.
const SHOWN: usize = 16;

impl<M: Model> fmt::Display for Violation<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let answered = self.history.iter().filter(|operation| operation.returned.is_some()).count();
        writeln!(
            f,
            "not linearizable: keys {}; the first {answered} answers have no order",
            list(&self.keys)
        )?;
        // The last to return is the one whose answer cannot be explained.
        let last = self.history.iter().enumerate().max_by_key(|(_, operation)| operation.returned);
        let Some((last, culprit)) = last else { return Ok(()) };
        writeln!(f, "  this answer cannot be explained:\n    {culprit}")?;
        let unordered = |at: &usize| !self.longest.contains(at) && self.history[*at].returned.is_some();
        let left: Vec<_> = (0..self.history.len()).filter(unordered).filter(|at| *at != last).collect();
        if !left.is_empty() {
            writeln!(f, "  nor, in the longest order that explains the others, these:")?;
            left.iter().take(SHOWN).try_for_each(|&at| writeln!(f, "    {}", self.history[at]))?;
        }
        writeln!(f, "  the end of that order:")?;
        let tail = &self.longest[self.longest.len().saturating_sub(SHOWN)..];
        tail.iter().try_for_each(|&at| writeln!(f, "    {}", self.history[at]))?;
        let open: Vec<_> = self.history.iter().filter(|operation| operation.returned.is_none()).collect();
        if !open.is_empty() {
            writeln!(f, "  without an answer at that time ({}):", open.len())?;
            open.iter().rev().take(SHOWN).try_for_each(|operation| writeln!(f, "    {operation}"))?;
        }
        Ok(())
    }
}

fn list<K: fmt::Display>(keys: &[K]) -> String {
    keys.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
