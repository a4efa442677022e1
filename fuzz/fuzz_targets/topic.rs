//! Any pattern and key, of few letters: the matcher agrees with a recursive one.
#![no_main]

use leasehold_core::topology::topic_matches;
use libfuzzer_sys::fuzz_target;

fn words(text: &str) -> Vec<&str> {
    if text.is_empty() { Vec::new() } else { text.split('.').collect() }
}

fn naive(pattern: &[&str], key: &[&str]) -> bool {
    match (pattern.split_first(), key.split_first()) {
        (None, None) => true,
        (Some((&"#", rest)), _) => naive(rest, key) || !key.is_empty() && naive(pattern, &key[1..]),
        (Some((part, rest)), Some((word, others))) => {
            (*part == "*" || part == word) && naive(rest, others)
        }
        _ => false,
    }
}

fuzz_target!(|bytes: &[u8]| {
    // The naive matcher takes exponential time, so texts stay short.
    let letter = |byte: &u8| char::from(b"ab.*#"[usize::from(byte % 5)]);
    let text: String = bytes.iter().take(24).map(letter).collect();
    let (pattern, key) = text.split_at(text.len() / 2);
    let expected = naive(&words(pattern), &words(key));
    assert_eq!(topic_matches(pattern, key), expected, "{pattern} on {key}");
});
