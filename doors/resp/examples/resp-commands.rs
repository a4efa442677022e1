//! Prints `docs/reference/resp-commands.md`.

fn main() {
    print!("{}", leasehold_resp_door::table::markdown());
}
