//! What the examples share: the engine they run on.
//!
//! Each takes a URL as its argument, `cargo run -p leasehold-examples --bin stock -- http://…`, and
//! runs in memory without one.

/// Opens the engine named by the first argument.
///
/// # Errors
/// See [`leasehold::connect`].
pub async fn engine() -> leasehold::Result<leasehold::Leasehold> {
    let url = std::env::args().nth(1).unwrap_or_else(|| "mem:".to_owned());
    leasehold::connect(&url).await
}
