//! Seeded stand-ins for the outside world, and everything that can go wrong with it.

pub mod disk;
