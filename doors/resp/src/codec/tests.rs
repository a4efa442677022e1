//! The parser against its laws: how the bytes are cut into pieces changes nothing, whatever they
//! are; memory follows what has come, not what is claimed.

use proptest::prelude::*;

use super::{Arguments, Parsed, Parser, ProtocolError, RequestLimits};

type Words = Vec<Vec<u8>>;

const SMALL: RequestLimits =
    RequestLimits { arguments_max: 20, argument_bytes: 300, request_bytes: 900, inline_bytes: 200 };

/// Feeds `bytes` in the pieces of `cuts`, as a connection does.
fn feed(
    limits: RequestLimits,
    stranger: bool,
    bytes: &[u8],
    cuts: &[usize],
) -> (Vec<Words>, Option<ProtocolError>) {
    let mut parser = Parser::new(limits, stranger);
    let (mut buffer, mut found) = (Vec::new(), Vec::new());
    let mut rest = bytes;
    let cuts = cuts.iter().copied().chain(std::iter::once(usize::MAX));
    for cut in cuts {
        let (piece, after) = rest.split_at(cut.min(rest.len()));
        rest = after;
        buffer.extend_from_slice(piece);
        loop {
            let used = match parser.next(&buffer) {
                Err(error) => return (found, Some(error)),
                Ok(Parsed::Request(request)) => {
                    assert!(request.count() > 0);
                    found.push(request.iter().map(<[u8]>::to_vec).collect());
                    for (index, word) in request.iter().enumerate() {
                        assert_eq!(request.argument(index), word);
                        assert!(request.range(index).is_none_or(|place| buffer[place] == *word));
                    }
                    request.used()
                }
                Ok(Parsed::More { used, wanted }) => {
                    assert!(wanted > 0);
                    buffer.drain(..used);
                    break;
                }
            };
            buffer.drain(..used);
        }
        // What is kept: eight bytes of place for an argument of at least six, a line of words.
        assert!(parser.held() <= 64 + (8 << 10) + 4 * (buffer.len() + piece.len()));
        if cut == usize::MAX {
            break;
        }
    }
    (found, None)
}

fn whole(limits: RequestLimits, bytes: &[u8]) -> (Vec<Words>, Option<ProtocolError>) {
    feed(limits, false, bytes, &[])
}

fn array(words: &Words) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        bytes.extend_from_slice(word);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

fn line(words: &Words) -> Vec<u8> {
    let quoted = |word: &Vec<u8>| {
        let letters: String = word.iter().map(|byte| format!("\\x{byte:02x}")).collect();
        format!("\"{letters}\"")
    };
    let words: Vec<String> = words.iter().map(quoted).collect();
    format!("{}\r\n", words.join(" ")).into_bytes()
}

fn requests() -> impl Strategy<Value = Vec<(u8, Words)>> {
    let word = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..20),
        proptest::collection::vec(any::<u8>(), 0..300),
    ];
    let words = proptest::collection::vec(word, 1..14);
    proptest::collection::vec((0..6u8, words), 0..6)
}

fn cuts() -> impl Strategy<Value = Vec<usize>> {
    proptest::collection::vec(prop_oneof![0..4usize, 0..60usize, 0..900usize], 0..60)
}

/// Bytes that look like requests for a while.
fn garbage() -> impl Strategy<Value = Vec<u8>> {
    let part = prop_oneof![
        Just(b"*".to_vec()),
        Just(b"*2\r\n".to_vec()),
        Just(b"*-1\r\n".to_vec()),
        Just(b"$3\r\nabc\r\n".to_vec()),
        Just(b"$".to_vec()),
        Just(b"$0\r\n\r\n".to_vec()),
        Just(b"$299\r\n".to_vec()),
        Just(b"12".to_vec()),
        Just(b"\r\n".to_vec()),
        Just(b"\r".to_vec()),
        Just(b"GET a \"b\\x".to_vec()),
        Just(b"'".to_vec()),
        proptest::collection::vec(any::<u8>(), 0..12),
        proptest::collection::vec(Just(b'7'), 0..250),
    ];
    proptest::collection::vec(part, 0..24).prop_map(|parts| parts.concat())
}

proptest! {
    #[test]
    fn requests_come_out_as_they_went_in(requests in requests(), cuts in cuts()) {
        let limits = RequestLimits::default();
        let mut bytes = Vec::new();
        for (form, words) in &requests {
            match form {
                0 => bytes.extend_from_slice(&line(words)),
                1 => bytes.extend_from_slice(b"\r\n  \n*0\r\n*-1\r\n"),
                _ => {}
            }
            bytes.extend_from_slice(&array(words));
        }
        let twice = |(form, words): (u8, Words)| match form {
            0 => vec![words.clone(), words],
            _ => vec![words],
        };
        let expected: Vec<Words> = requests.into_iter().flat_map(twice).collect();
        prop_assert_eq!(feed(limits, false, &bytes, &cuts), (expected, None));
    }

    #[test]
    fn pieces_change_nothing(bytes in garbage(), cuts in cuts(), stranger: bool) {
        let one = feed(SMALL, stranger, &bytes, &[]);
        prop_assert_eq!(feed(SMALL, stranger, &bytes, &cuts), one.clone());
        let single = vec![1; bytes.len()];
        prop_assert_eq!(feed(SMALL, stranger, &bytes, &single), one);
    }
}

/// Each with what redis-server 7.0.15 answers.
#[test]
fn errors_in_the_words_of_redis() {
    let cases: &[(&[u8], &str)] = &[
        (b"*x\r\n", "invalid multibulk length"),
        (b"*\r\n", "invalid multibulk length"),
        (b"*01\r\n", "invalid multibulk length"),
        (b"*+1\r\n", "invalid multibulk length"),
        (b"*99999999999999999999\r\n", "invalid multibulk length"),
        (b"*1048577\r\n", "invalid multibulk length"),
        (b"*1\r\nx4\r\n", "expected '$', got 'x'"),
        (b"*1\r\n*1\r\n", "expected '$', got '*'"),
        (b"*1\r\n$-1\r\n", "invalid bulk length"),
        (b"*1\r\n$a\r\n", "invalid bulk length"),
        (b"*1\r\n$16777217\r\n", "invalid bulk length"),
        (b"\"a\r\n", "unbalanced quotes in request"),
    ];
    for (bytes, why) in cases {
        let (found, error) = whole(RequestLimits::default(), bytes);
        let text = error.map(ProtocolError::text);
        assert_eq!(text, Some(format!("ERR Protocol error: {why}")), "{}", bytes.escape_ascii());
        assert!(found.is_empty());
    }
    let endless: &[(&[u8], ProtocolError)] = &[
        (b"*", ProtocolError::BigMultibulkCount),
        (b"*1\r\n$", ProtocolError::BigBulkCount),
        (b"a", ProtocolError::BigInline),
    ];
    for (start, error) in endless {
        let bytes = [start, [b'1'; 70 << 10].as_slice()].concat();
        assert_eq!(whole(RequestLimits::default(), &bytes).1, Some(*error));
    }
}

#[test]
fn a_stranger_may_send_little() {
    let limits = RequestLimits::default();
    let error = |bytes: &[u8]| feed(limits, true, bytes, &[]).1;
    assert_eq!(error(b"*10\r\n"), None);
    assert_eq!(error(b"*11\r\n"), Some(ProtocolError::UnauthenticatedMultibulk));
    assert_eq!(error(b"*1\r\n$16384\r\n"), None);
    assert_eq!(error(b"*1\r\n$16385\r\n"), Some(ProtocolError::UnauthenticatedBulk));
}

#[test]
fn all_arguments_together_are_bounded() {
    let words: Words = vec![vec![b'a'; 290]; 4];
    assert_eq!(whole(SMALL, &array(&words)).1, Some(ProtocolError::BigRequest));
    assert_eq!(whole(SMALL, &array(&words[..2].to_vec())).1, None);
}

#[test]
fn a_claim_takes_no_memory() {
    let mut parser = Parser::new(RequestLimits::default(), false);
    let claim = b"*1048576\r\n$16777216\r\nabc";
    let found = parser.next(claim).expect("within the limits");
    assert!(matches!(found, Parsed::More { used: 0, wanted } if wanted == (16 << 20) + 2 - 3));
    assert!(parser.held() <= 8 << 10);
}

#[test]
fn room_for_a_big_request_is_given_back() {
    let mut parser = Parser::new(RequestLimits::default(), false);
    let many = array(&vec![Vec::new(); 100_000]);
    assert!(matches!(parser.next(&many), Ok(Parsed::Request(_))));
    assert!(parser.held() > 100_000);
    assert!(matches!(parser.next(b"PING\r\n"), Ok(Parsed::Request(_))));
    assert!(parser.held() <= 16 << 10);
}
