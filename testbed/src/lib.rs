//! Real servers and a bad network, for tests.
//!
//! A [`Server`] is a process of its own in a temporary directory, on a free port of 127.0.0.1. It
//! ends when it is dropped, and also when the test process is killed, since it asked the system to
//! be told. [`servers`] knows how to start those that engines are over. A [`Proxy`] stands between
//! a client and a server and does to their bytes what networks do: delay them, stop them without a
//! word, cut the line, lose an answer that was sent.

mod certificate;
mod port;
mod process;
mod proxy;
pub mod servers;

pub use certificate::Certificate;
pub use port::free_port;
pub use process::{Kind, Server, as_user, program, wait_until_stopped};
pub use proxy::Proxy;
