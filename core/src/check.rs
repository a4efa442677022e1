//! Invariants.
use crate::Durable;
use crate::volatile::Volatile;
pub(crate) fn check(_d: &Durable, _v: &Volatile) {}
