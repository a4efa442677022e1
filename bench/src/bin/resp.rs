//! The RESP door beside redis-server. See `docs/benchmarks/resp.md`.
//!
//! `resp [--seconds N] [--server FILE] [--only TEXT] [--json FILE]`; the server is the binary
//! `leasehold` beside this one unless another is named. Cases are measured whose titles contain the
//! text. `redis-server` and `taskset` have to be installed.

fn main() {
    leasehold_bench::given::measure("resp", leasehold_bench::resp::run);
}
