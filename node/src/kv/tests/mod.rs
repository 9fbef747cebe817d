//! What the store answers, by theme; and the store against a model that is too simple to be wrong.

mod check;
mod compaction;
mod deletion;
mod garbage;
mod leases;
mod model;
mod pieces;
mod put;
mod range;
mod requests;
mod snapshot;
mod steps;
mod txn;
