//! Any bytes: decoding an event never panics, and what decodes encodes to an equal event. The same
//! for the items of an index page and for headers, which events carry encoded.
#![no_main]

use leasehold_core::Event;
use leasehold_core::index::{Delayed, Entry, decode_items};
use leasehold_core::wire::Reader;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = decode_items::<Entry>(&mut Reader::new(bytes));
    let _ = decode_items::<Delayed>(&mut Reader::new(bytes));
    let Ok(event) = Event::decode(bytes) else { return };
    let mut again = Vec::new();
    event.encode(&mut again);
    assert_eq!(Event::decode(&again).as_ref(), Ok(&event));
    if let Ok(message) = leasehold_core::message_of(bytes) {
        let _ = message.headers();
    }
});
