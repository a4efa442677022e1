//! Every engine over another system beside that system's own best way. See
//! `docs/benchmarks/engines.md`.
//!
//! `engines [--seconds N] [--only TEXT] [--json FILE]`. Cases are measured whose titles contain the
//! text; they begin with the engine's name. The systems' servers have to be installed.

fn main() {
    if leasehold_bench::engines::recovery::is_holder() {
        return;
    }
    leasehold_bench::given::measure_alone("engines", leasehold_bench::engines::run);
}
