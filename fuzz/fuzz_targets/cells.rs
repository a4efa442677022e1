//! Any checkpoint: restoring cells never panics, and what is restored can be written again.
//!
//! The input is a row of cells: a length and a key, a length and a value. In a real checkpoint a
//! checksum protects the slots; here it does not, so under fuzzing `restore` refuses large ones.
#![no_main]

use leasehold_core::Durable;
use leasehold_core::wire::Reader;
use libfuzzer_sys::fuzz_target;

/// Globals of a small shard, so that the fuzzer need not find them first.
const GLOBALS: [u8; 13] = [4, 128, 128, 4, 16, 100, 16, 1, 1, 1, 1, 1, 1];

fuzz_target!(|bytes: &[u8]| {
    let mut cells: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    let mut from = Reader::new(bytes);
    if bytes.first().is_some_and(|byte| byte % 4 != 0) {
        let mut globals = GLOBALS.to_vec();
        globals.extend([0, 0]);
        cells.push((vec![0], globals));
        let _ = from.u8("mode");
    }
    while let (Ok(key), Ok(value)) = (from.bytes("key"), from.bytes("value")) {
        cells.push((key.to_vec(), value.to_vec()));
    }
    let pairs = cells.iter().map(|(key, value)| (&key[..], &value[..]));
    if let Ok(Some(state)) = Durable::restore(pairs, 1) {
        let again = state.all_cells();
        assert!(!again.is_empty());
    }
});
