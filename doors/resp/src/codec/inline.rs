//! Requests that a person types: words on a line, with quotes and escapes.
//!
//! The rules are those of Redis, with their corners: a quote may begin within a word, but what
//! follows its end must be a space; only `"` knows `\n`, `\xHH` and so on.

/// Splits `line` into words, which go to `words` one behind the other; `ranges` says where each
/// is. `false` if quotes are not in balance.
pub(super) fn split(line: &[u8], words: &mut Vec<u8>, ranges: &mut Vec<(u32, u32)>) -> bool {
    let mut at = 0;
    loop {
        while line.get(at).is_some_and(|byte| space(*byte)) {
            at += 1;
        }
        if at >= line.len() {
            return true;
        }
        let start = words.len() as u32;
        match word(line, at, words) {
            Some(end) => at = end,
            None => return false,
        }
        ranges.push((start, words.len() as u32));
    }
}

/// Copies the word at `at` without its quotes, and says where it ends.
fn word(line: &[u8], mut at: usize, words: &mut Vec<u8>) -> Option<usize> {
    loop {
        match line.get(at) {
            None | Some(b' ' | b'\n' | b'\r' | b'\t') => return Some(at),
            Some(b'"') => return double_quoted(line, at + 1, words),
            Some(b'\'') => return single_quoted(line, at + 1, words),
            Some(byte) => words.push(*byte),
        }
        at += 1;
    }
}

fn double_quoted(line: &[u8], mut at: usize, words: &mut Vec<u8>) -> Option<usize> {
    loop {
        match line.get(at..)? {
            [b'\\', b'x', high, low, ..] if hex(*high).is_some() && hex(*low).is_some() => {
                words.push(hex(*high)? << 4 | hex(*low)?);
                at += 4;
            }
            [b'\\', escaped, ..] => {
                words.push(match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 8,
                    b'a' => 7,
                    other => *other,
                });
                at += 2;
            }
            [b'"', ..] => return closed(line, at + 1),
            [byte, ..] => {
                words.push(*byte);
                at += 1;
            }
            [] => return None,
        }
    }
}

fn single_quoted(line: &[u8], mut at: usize, words: &mut Vec<u8>) -> Option<usize> {
    loop {
        match line.get(at..)? {
            [b'\\', b'\'', ..] => {
                words.push(b'\'');
                at += 2;
            }
            [b'\'', ..] => return closed(line, at + 1),
            [byte, ..] => {
                words.push(*byte);
                at += 1;
            }
            [] => return None,
        }
    }
}

/// A closing quote ends the word: a space follows, or nothing.
fn closed(line: &[u8], at: usize) -> Option<usize> {
    line.get(at).is_none_or(|byte| space(*byte)).then_some(at)
}

/// C's `isspace`.
fn space(byte: u8) -> bool {
    matches!(byte, b' ' | 9..=13)
}

fn hex(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).map(|digit| digit as u8)
}

#[cfg(test)]
mod tests {
    use super::split;

    fn words(line: &[u8]) -> Option<Vec<Vec<u8>>> {
        let (mut bytes, mut ranges) = (Vec::new(), Vec::new());
        let ok = split(line, &mut bytes, &mut ranges);
        let part = |(start, end): (u32, u32)| bytes[start as usize..end as usize].to_vec();
        ok.then(|| ranges.into_iter().map(part).collect())
    }

    #[test]
    fn words_quotes_and_escapes() {
        let cases: &[(&[u8], &[&[u8]])] = &[
            (b"  set  a\tb  ", &[b"set", b"a", b"b"]),
            (b"\"a b\" 'c d'", &[b"a b", b"c d"]),
            (br#""\x41\n\q\"" '\'\n'"#, &[b"A\nq\"", b"'\\n"]),
            (b"foo\"bar\" x", &[b"foobar", b"x"]),
            (br#""\xg1""#, &[b"xg1"]),
            (b"\"\"", &[b""]),
            (b"a\x0bb", &[b"a\x0bb"]),
            (b"", &[]),
        ];
        for (line, expected) in cases {
            let expected: Vec<Vec<u8>> = expected.iter().map(|word| word.to_vec()).collect();
            assert_eq!(words(line), Some(expected), "{}", line.escape_ascii());
        }
    }

    #[test]
    fn quotes_out_of_balance() {
        for line in [&b"\"a"[..], b"'a", b"\"a\"b", b"'a'b", b"\"a\\", b"x 'y"] {
            assert_eq!(words(line), None, "{}", line.escape_ascii());
        }
    }
}
