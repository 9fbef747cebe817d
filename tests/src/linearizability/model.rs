//! What a single copy of the data would do.

use std::fmt;
use std::hash::Hash;

/// A sequential data type: the measure that a history is held against.
pub trait Model {
    /// The state of the data.
    type State: Clone + Eq + Hash;
    /// What clients ask. Equal inputs without an answer can stand in for each other.
    type Input: Clone + PartialEq + fmt::Display;
    /// What they are answered.
    type Output: Clone + fmt::Display;
    /// What operations are about. Operations without a common key must not affect each other.
    type Key: Clone + Ord + fmt::Display;

    /// The state before the first operation.
    fn initial(&self) -> Self::State;

    /// The keys that `input` reads or writes.
    fn keys(&self, input: &Self::Input) -> Vec<Self::Key>;

    /// The state after `input` in `state`, or `None` if it could not have answered `output` there. Without an output any answer
    /// will do, and there is always a state.
    fn step(
        &self,
        state: &Self::State,
        input: &Self::Input,
        output: Option<&Self::Output>,
    ) -> Option<Self::State>;
}
