//! Any bytes: decoding an event never panics, and what decodes encodes to an equal event.
#![no_main]

use leasehold_core::Event;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(event) = Event::decode(bytes) else { return };
    let mut again = Vec::new();
    event.encode(&mut again);
    assert_eq!(Event::decode(&again).as_ref(), Ok(&event));
    let _ = leasehold_core::message_of(bytes);
});
