//! Seeded stand-ins for the outside world, everything that can go wrong with it, and the verdict.
//!
//! ```text
//! workload ── commands ──► Shard<SimDisk> ── notices ──► verdict (what clients were told)
//!    ▲ seed                   │ crash, fault                │
//!    └── clock, disk ─────────┘ reopen ──► audit ───────────┘ does what is there agree with it?
//! ```
//! The rules under test are never asked what is right: [`verdict`] keeps the clients' own books,
//! and [`audit`] empties a copy of the store through the front door to see what is in it.

pub mod audit;
pub mod clock;
pub mod disk;
pub mod verdict;
pub mod workload;
