//! Fuzz targets live in `fuzz_targets/`, one file each; run them with `cargo xtask fuzz`.
//!
//! A target states a law in a few lines: what any bytes may do (be refused, with an error) and what
//! they may not (panic, loop, allocate without bound). This library is empty, so that the crate has
//! something to build before the first target.
