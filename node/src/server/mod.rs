//! The one loop over a closed enum of events, and the threads that work for it.
//!
//! | thread | does |
//! |---|---|
//! | `node` | the loop (the protocol, and what waits for it) and the connections to other members |
//! | `ports` | accepts connections and agrees on TLS; admin, HTTP |
//! | the first | takes the signals, and waits |
//! | `apply` | applies committed entries to the state, answers the clients that wait for them, removes what was compacted |
//! | `wal` | writes and syncs the log |
//! | `log` | writes to stderr what there is to say, for as long as that is read |
//! | `snapshots` | writes and reads snapshots, at a pace that leaves the disk to the log |
//! | `copy` | where one is asked for: writes the copy of the state, behind everything else |
//! | `clients-N` | a runtime each: the client port's connections, dealt out among them |
//!
//! They meet in queues. The loop waits for none of the others. How a process is put together of them, and of the clients' threads, is in
//! [`crate::process`]; what services see of them, in [`crate::doors`].

pub(crate) mod apply_thread;
pub(crate) mod auto_compaction;
mod conflict;
pub(crate) mod copy_thread;
pub(crate) mod data_dir;
mod disk_space;
pub(crate) mod driver;
pub(crate) mod lease_clock;
pub(crate) mod log_thread;
pub(crate) mod snapshot_thread;
pub mod start;
pub(crate) mod status_view;
pub(crate) mod timing;
pub mod write_queue;
