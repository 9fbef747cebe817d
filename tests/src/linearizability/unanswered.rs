//! What the rest of a key-value history tells about the operations that got no answer.
//!
//! Operations that may take effect at any time later make the search grow exponentially. Most of them are not so free, because
//! every value is written by one operation, and every answer is a read (see [`super::kv`]):
//!
//! - A value that an answer shows was written, before that answer came. The write is bounded, if without an answer of its own.
//! - A value that no answer shows and no swap expects may be left out: if an order with the write exists, one without it does. The
//!   operation on its keys that comes next in that order is not one that was answered, or the value would have been seen. So it is
//!   another without an answer: a put or a delete has the same effect either way; and a swap that did nothing because of the
//!   value can be left undone without it.
//!
//! Deletes stay as they are: "nothing" does not say who deleted it.

use std::collections::HashMap;

use super::history::{History, Time};
use super::kv::{Input, Output, Value};

/// Bounds or drops operations without an answer. The result is linearizable exactly if `history` is.
pub fn tighten(history: &History<Input, Output>) -> History<Input, Output> {
    let shown = first_shown(history);
    let expected = |value: Value| {
        history
            .iter()
            .any(|o| matches!(&o.input, Input::Swap { expected: Some(expected), .. } if *expected == value))
    };
    let mut tight = Vec::with_capacity(history.len());
    for operation in history {
        let mut operation = operation.clone();
        if operation.returned.is_none() {
            match operation.input.writes() {
                Some(value) => match shown.get(&value) {
                    Some(&at) => operation.returned = Some(at.max(operation.invoked)),
                    None if expected(value) => {}
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
