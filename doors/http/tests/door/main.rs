//! The door on real sockets, before the embedded engine.
//!
//! Nothing here sleeps to prove something: what has to become true is asked for until it is, with
//! a deadline.

mod commit;
mod connections;
mod figures;
mod harness;
mod locks;
mod queues;
mod refusals;
mod registers;
mod tls;
mod users;
