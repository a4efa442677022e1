//! The library in process and over HTTP, side by side. See `docs/benchmarks/http.md`.
//!
//! `http [--seconds N] [--server FILE] [--json FILE]`; the server is the binary `leasehold` beside
//! this one unless another is named.

fn main() {
    leasehold_bench::given::measure("http", leasehold_bench::product::run);
}
