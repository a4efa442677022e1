//! Replies as bytes. RESP2 lacks half of the shapes; each has its older form there.

use super::{Version, double};
use crate::Reply;

/// Appends `reply` as a client of `version` reads it.
pub fn write(reply: &Reply, version: Version, out: &mut Vec<u8>) {
    let three = version == Version::Resp3;
    match reply {
        Reply::Status(text) if text == "OK" => out.extend_from_slice(b"+OK\r\n"),
        Reply::Status(text) => line(b'+', text, out),
        Reply::Error(text) => line(b'-', text, out),
        Reply::Int(number) => integer(*number, out),
        Reply::Bulk(bytes) => bulk(bytes, out),
        Reply::Nil if !three => out.extend_from_slice(b"$-1\r\n"),
        Reply::NilArray if !three => out.extend_from_slice(b"*-1\r\n"),
        Reply::Nil | Reply::NilArray => out.extend_from_slice(b"_\r\n"),
        Reply::Array(items) => list(b'*', items, version, out),
        Reply::Set(items) => list(if three { b'~' } else { b'*' }, items, version, out),
        Reply::Push(items) => list(if three { b'>' } else { b'*' }, items, version, out),
        Reply::Map(pairs) => {
            match three {
                true => header(b'%', pairs.len() as u64, out),
                false => header(b'*', 2 * pairs.len() as u64, out),
            }
            for (name, value) in pairs {
                write(name, version, out);
                write(value, version, out);
            }
        }
        Reply::Double(number) => match three {
            true => line(b',', &double(*number), out),
            false => bulk(double(*number).as_bytes(), out),
        },
        Reply::Bool(yes) => out.extend_from_slice(match (three, *yes) {
            (true, true) => b"#t\r\n",
            (true, false) => b"#f\r\n",
            (false, true) => b":1\r\n",
            (false, false) => b":0\r\n",
        }),
        Reply::Big(digits) => match three {
            true => line(b'(', digits, out),
            false => bulk(digits.as_bytes(), out),
        },
        Reply::Verbatim(kind, bytes) => verbatim(*kind, bytes, three, out),
    }
}

fn list(mark: u8, items: &[Reply], version: Version, out: &mut Vec<u8>) {
    header(mark, items.len() as u64, out);
    for item in items {
        write(item, version, out);
    }
}

fn bulk(bytes: &[u8], out: &mut Vec<u8>) {
    header(b'$', bytes.len() as u64, out);
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

fn verbatim(kind: [u8; 3], bytes: &[u8], three: bool, out: &mut Vec<u8>) {
    if !three {
        return bulk(bytes, out);
    }
    header(b'=', bytes.len() as u64 + 4, out);
    out.extend_from_slice(&kind);
    out.push(b':');
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

/// One line. An end of line within it would end the reply, so a space stands in its place.
fn line(mark: u8, text: &str, out: &mut Vec<u8>) {
    out.push(mark);
    let start = out.len();
    out.extend_from_slice(text.as_bytes());
    for byte in &mut out[start..] {
        if matches!(byte, b'\r' | b'\n') {
            *byte = b' ';
        }
    }
    out.extend_from_slice(b"\r\n");
}

fn integer(number: i64, out: &mut Vec<u8>) {
    if number >= 0 {
        return header(b':', number as u64, out);
    }
    out.extend_from_slice(b":-");
    digits(number.unsigned_abs(), out);
    out.extend_from_slice(b"\r\n");
}

/// A mark and a number on a line of its own.
fn header(mark: u8, number: u64, out: &mut Vec<u8>) {
    if number < 10 {
        return out.extend_from_slice(&[mark, b'0' + number as u8, b'\r', b'\n']);
    }
    out.push(mark);
    digits(number, out);
    out.extend_from_slice(b"\r\n");
}

fn digits(mut number: u64, out: &mut Vec<u8>) {
    // 2^64 has twenty digits.
    let mut text = [0; 20];
    let mut at = text.len();
    loop {
        at -= 1;
        text[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&text[at..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn both(reply: &Reply) -> (String, String) {
        let one = |version| {
            let mut out = Vec::new();
            write(reply, version, &mut out);
            String::from_utf8(out).expect("text")
        };
        (one(Version::Resp2), one(Version::Resp3))
    }

    fn check(reply: Reply, two: &str, three: &str) {
        assert_eq!(both(&reply), (two.to_owned(), three.to_owned()), "{reply:?}");
    }

    #[test]
    fn every_shape_in_both_versions() {
        check(Reply::OK, "+OK\r\n", "+OK\r\n");
        check(Reply::Status("PONG".into()), "+PONG\r\n", "+PONG\r\n");
        check(Reply::error("ERR a\r\nb"), "-ERR a  b\r\n", "-ERR a  b\r\n");
        for (number, text) in [
            (0, ":0\r\n"),
            (10, ":10\r\n"),
            (-1, ":-1\r\n"),
            (i64::MAX, ":9223372036854775807\r\n"),
            (i64::MIN, ":-9223372036854775808\r\n"),
        ] {
            check(Reply::Int(number), text, text);
        }
        check(Reply::bulk("hi"), "$2\r\nhi\r\n", "$2\r\nhi\r\n");
        check(Reply::Nil, "$-1\r\n", "_\r\n");
        check(Reply::NilArray, "*-1\r\n", "_\r\n");
        let items = vec![Reply::Int(1), Reply::Nil];
        check(Reply::Array(items.clone()), "*2\r\n:1\r\n$-1\r\n", "*2\r\n:1\r\n_\r\n");
        check(Reply::Set(items.clone()), "*2\r\n:1\r\n$-1\r\n", "~2\r\n:1\r\n_\r\n");
        check(Reply::Push(items), "*2\r\n:1\r\n$-1\r\n", ">2\r\n:1\r\n_\r\n");
        let pairs = vec![(Reply::bulk("a"), Reply::Bool(true))];
        check(Reply::Map(pairs), "*2\r\n$1\r\na\r\n:1\r\n", "%1\r\n$1\r\na\r\n#t\r\n");
        check(Reply::Bool(false), ":0\r\n", "#f\r\n");
        check(Reply::Double(3.5), "$3\r\n3.5\r\n", ",3.5\r\n");
        check(Reply::Double(f64::INFINITY), "$3\r\ninf\r\n", ",inf\r\n");
        check(Reply::Big("12345678901".into()), "$11\r\n12345678901\r\n", "(12345678901\r\n");
        let text = Reply::Verbatim(*b"txt", b"hey".as_slice().into());
        check(text, "$3\r\nhey\r\n", "=7\r\ntxt:hey\r\n");
    }
}
