//! Later.
/// Later.
pub fn run(_: &std::path::Path, _: &mut crate::figures::Figures, _: u64) {}
