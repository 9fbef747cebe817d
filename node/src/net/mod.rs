//! Connections that come in: how many there may be, what becomes of those that are idle, silent or stuck, and how each is served.
//!
//! A port accepts on the `ports` runtime, never on the thread of the protocol. Every accepted socket takes a [`Slot`] of its port's
//! [`Connections`] before anything is read from it: the table knows what each connection does, and tells one to go when a limit is
//! reached, a deadline has passed or the node is stopping. TLS, HTTP/2 and the services come behind that.

pub(crate) mod accept;
pub(crate) mod allowed;
pub(crate) mod caller;
pub(crate) mod connection;
pub(crate) mod descriptors;
mod gathered;
pub(crate) mod handshake;
pub(crate) mod http2;
pub(crate) mod listen;
pub(crate) mod table;

pub(crate) use accept::{Accepted, accept, lane};
pub(crate) use allowed::AllowedNames;
pub(crate) use caller::Caller;
pub(crate) use connection::Connection;
pub(crate) use listen::{Bound, Listeners};
pub(crate) use table::{Connections, Limits, Slot};
