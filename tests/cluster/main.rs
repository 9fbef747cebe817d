//! Real processes on loopback: nodes that are killed, paused and cut off, and whose disks fail, while clients write and read.
//!
//! Every scenario ends the same way: all faults are healed, the cluster makes progress again, every node shows the same data, and
//! what the clients saw all the while is linearizable. The faults come from a seed that is printed (see [`quorate_tests::seed`]).
//! `QUORATE_ROUNDS` sets how many faults a scenario makes.

#![allow(clippy::panic, reason = "a test that fails panics, in its helpers too")]

mod admin;
mod bad_input;
mod certificates;
mod cluster;
mod connections;
mod digests;
mod disk;
mod disks;
mod etcd_files;
mod filler;
mod hello;
mod http;
mod identities;
mod leases;
mod log;
mod members;
mod network;
mod node;
mod quota;
mod scenario;
mod scenarios;
mod snapshots;
mod soak;
mod strangers;
mod tls;
mod versions;
mod watches;
