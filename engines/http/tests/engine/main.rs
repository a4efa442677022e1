//! The engine against the real door: answers that get lost, callers who go, servers that come back.

mod gone;
mod losses;
mod proxy;
mod reach;
mod restarts;
mod server;
