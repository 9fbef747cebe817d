//! A checker of linearizability (Herlihy and Wing, 1990) for recorded histories.
//!
//! A history is linearizable when every operation can be given one moment between its invocation and its return at which it took
//! effect, such that a single copy of the data, doing one operation after another, would have given the same answers. The search is
//! Wing and Gong's (1993): choose which operation came first, remove it, go on, go back when nothing fits. Lowe's addition (2017)
//! makes it bearable: which operations are done, and in which state that left the data, is remembered, and no such pair is searched
//! twice. Operations are tried just in time: the one that returns first is tried first, and one without an answer last.
//!
//! - [`history`]: what is recorded, and the recorder.
//! - [`model`]: what a single copy of the data would do; [`kv`] is the model of a key-value store.
//! - [`partition`]: histories over separate keys are checked separately. Linearizability is local: a history is linearizable if each
//!   object's part is. An operation on several keys makes one object of them.
//! - [`search`]: the search itself, within a budget: it answers yes, no, or "not within the budget".
//! - [`check`](mod@check): all of it together, and for a wrong history the shortest part of it that is wrong, in words.
//! - [`unanswered`]: what the rest of a key-value history tells about operations that got no answer.
//! - [`revisions`]: what else etcd's revisions promise; cheap, and sees what values alone do not show.

pub mod check;
pub mod history;
pub mod kv;
pub mod model;
pub mod partition;
pub mod revisions;
pub mod search;
pub mod unanswered;

pub use check::{Verdict, Violation, check};
pub use history::{History, Operation, Recorder, Time};
pub use model::Model;
