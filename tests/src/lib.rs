//! Tests of the whole: simulation, processes, Kubernetes, benchmarks. What they share is here.

pub mod binaries;
pub mod clients;
pub mod faulty_disk;
pub mod limits;
pub mod linearizability;
pub mod ports;
pub mod process;
pub mod requests;
pub mod seed;
