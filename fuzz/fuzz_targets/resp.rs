//! Any bytes from a Redis client: they are requests or a protocol error, the same ones however the
//! bytes are cut into pieces, and the parser keeps no more memory than they take.
//!
//! The first byte of the input says how long the pieces are.
#![no_main]

use leasehold_resp_door::codec::{Parsed, Parser, ProtocolError, RequestLimits};
use leasehold_resp_door::table;
use libfuzzer_sys::fuzz_target;

const LIMITS: RequestLimits = RequestLimits {
    arguments_max: 64,
    argument_bytes: 1 << 10,
    request_bytes: 2 << 10,
    inline_bytes: 512,
};

type Outcome = (Vec<Vec<Vec<u8>>>, Option<ProtocolError>);

fn feed(bytes: &[u8], piece: usize) -> Outcome {
    let mut parser = Parser::new(LIMITS, false);
    let (mut buffer, mut found) = (Vec::new(), Vec::new());
    for piece in bytes.chunks(piece) {
        buffer.extend_from_slice(piece);
        loop {
            let (used, more) = match parser.next(&buffer) {
                Err(error) => return (found, Some(error)),
                Ok(Parsed::More { used, .. }) => (used, true),
                Ok(Parsed::Request(request)) => {
                    found.push(request.iter().map(<[u8]>::to_vec).collect());
                    if let Ok(entry) = table::resolve(&request) {
                        assert!(entry.keys(&request).all(|place| request.get(place).is_some()));
                    }
                    (request.used(), false)
                }
            };
            buffer.drain(..used);
            if more {
                break;
            }
        }
        assert!(buffer.len() <= 3 << 10, "a request within the limits is this long at most");
        assert!(parser.held() <= 16 << 10, "memory follows the limits");
    }
    (found, None)
}

fuzz_target!(|bytes: &[u8]| {
    let Some((piece, bytes)) = bytes.split_first() else { return };
    let whole = feed(bytes, 512);
    assert_eq!(feed(bytes, usize::from(*piece).max(1)), whole);
});
