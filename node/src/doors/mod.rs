//! The doors between the replica's loop and everybody else: services, peers and the operator come through here, and through nothing else.
//!
//! | door | for |
//! |---|---|
//! | `gateway` | requests of clients, in batches: one for each runtime that serves them |
//! | `mailbox`, `event` | whatever else can happen to a node |
//! | `members` | changes of membership that clients ask for |
//! | `view` | what a node shows of itself |
//! | `watches` | who wants to hear of which changes: one for each runtime that serves clients |
//! | `health` | whether the process works, also before there is a view |

pub(crate) mod event;
pub mod gateway;
pub mod health;
pub(crate) mod mailbox;
pub mod members;
pub mod view;
pub mod watches;
