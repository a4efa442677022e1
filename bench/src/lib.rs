//! Benchmarks of the foundation, and the real kill -9 run.
//!
//! `cargo xtask bench core` measures; the machine's own limits are measured in the same run and
//! every figure is also given as a ratio to them. `cargo xtask crash` kills a real process.

pub mod durable;
pub mod engines;
pub mod figures;
pub mod given;
pub mod load;
pub mod machine;
pub mod many;
pub mod product;
pub mod resp;
pub mod servers;
pub mod speed;
pub mod waiting;
