//! What the rest of a key-value history tells about the operations that got no answer.
//!
//! Operations that may take effect at any time later make the search grow exponentially. Most of them are not so free, because
//! every value is written by one operation, and every answer is a read (see [`super::kv`]):
//!
//! - A value that an answer shows was written, before that answer came. The write is bounded, if without an answer of its own.
//! - A value that no answer shows may be left out, unless a swap without an answer expects it: if an order with the write exists,
//!   one without it does. The operation on its keys that comes next in that order is not one that was answered, or the value would
//!   have been seen. So it is another without an answer: a put or a delete has the same effect either way; and a swap expects
//!   another value and does nothing, which it may do without the write as well, by being left out.
//! - A swap that may be left out itself expects nothing: so values are left out until none is left that could be.
//!
//! Deletes stay as they are: "nothing" does not say who deleted it.

use std::collections::{HashMap, HashSet};

use super::history::{History, Operation, Time};
use super::kv::{Input, Output, Value};

/// Bounds or drops operations without an answer. The result is linearizable exactly if `history` is.
pub fn tighten(history: &History<Input, Output>) -> History<Input, Output> {
    let shown = first_shown(history);
    let kept = kept(history, &shown);
    let mut tight = Vec::with_capacity(history.len());
    for operation in history {
        let mut operation = operation.clone();
        if operation.returned.is_none() {
            match operation.input.writes() {
                Some(value) => match shown.get(&value) {
                    Some(&at) => operation.returned = Some(at.max(operation.invoked)),
                    None if kept.contains(&value) => {}
                    None => continue,
                },
                // A read that was not answered says nothing.
                None if matches!(operation.input, Input::Get(_)) => continue,
                None => {}
            }
        }
        tight.push(operation);
    }
    tight
}

/// The values whose writes stay: those that an answer shows, and those that a swap without an answer expects that stays itself.
fn kept(history: &History<Input, Output>, shown: &HashMap<Value, Time>) -> HashSet<Value> {
    let expectations: HashMap<Value, Value> = history.iter().filter_map(expectation).collect();
    let mut kept: HashSet<Value> = shown.keys().copied().collect();
    let mut newest: Vec<Value> = kept.iter().copied().collect();
    while let Some(value) = newest.pop() {
        let needed = expectations.get(&value).filter(|expected| kept.insert(**expected));
        newest.extend(needed);
    }
    kept
}

/// What a swap without an answer writes, and the value that it expects.
fn expectation(operation: &Operation<Input, Output>) -> Option<(Value, Value)> {
    match operation.input {
        Input::Swap { expected: Some(expected), new, .. } if operation.returned.is_none() => {
            Some((new, expected))
        }
        _ => None,
    }
}

/// When the first answer came that shows each value.
fn first_shown(history: &History<Input, Output>) -> HashMap<Value, Time> {
    let mut shown = HashMap::new();
    for operation in history {
        if let (Some(output), Some(returned)) = (&operation.output, operation.returned) {
            for value in output.values().flatten() {
                let first = shown.entry(value).or_insert(returned);
                *first = returned.min(*first);
            }
        }
    }
    shown
}
