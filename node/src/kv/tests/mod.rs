//! What the store answers, by theme; and the store against a model that is too simple to be wrong.

mod check;
mod deletion;
mod model;
mod put;
mod range;
mod requests;
mod txn;
