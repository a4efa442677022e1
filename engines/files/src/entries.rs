//! Entries as files: one for each, named readably where that is possible.
//!
//! A file holds a line with the version, the time of the write, how long it means anything and the
//! whole name in hexadecimal, and then the value. It is written beside its place and renamed into
//! it, so nobody sees half of one.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use leasehold_api::Result;
use leasehold_contenders::{Entry, Key, Space};

use crate::error;

/// The longest readable file name; most file systems allow 255 bytes.
const READABLE: usize = 180;

/// An entry with its name, as a file has it.
#[derive(Debug, Clone)]
pub struct Written {
    /// Which.
    pub key: Key,
    /// What.
    pub entry: Entry,
    /// How long it means anything after it was written, microseconds; 0: always.
    pub lasts: u64,
}

/// The directory of a space.
pub fn space(directory: &Path, space: Space) -> PathBuf {
    directory.join(match space {
        Space::Lock => "locks",
        Space::Register => "registers",
    })
}

/// The name of an entry's file. Two names may share one only by a collision of 64 bits of FNV-1a
/// in their tails and equal beginnings; the whole name inside tells, and the second is refused.
pub fn file_name(name: &[u8]) -> String {
    let mut readable = String::with_capacity(name.len());
    for &byte in name {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => readable.push(byte.into()),
            b'.' if !readable.is_empty() => readable.push('.'),
            _ => readable.push_str(&format!("%{byte:02x}")),
        }
    }
    if readable.len() <= READABLE {
        return readable;
    }
    // Fowler, Noll, Vo: FNV-1a, 64 bits; http://www.isthe.com/chongo/tech/comp/fnv/
    let hash = name.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    readable.truncate(READABLE - 20);
    format!("{readable}~{hash:016x}")
}

/// Where an entry is.
pub fn path(directory: &Path, key: &Key) -> PathBuf {
    space(directory, key.space).join(file_name(&key.name))
}

/// Reads an entry; `None`: there is none.
pub fn read(directory: &Path, key: &Key) -> Result<Option<Written>> {
    let path = path(directory, key);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(gone) if gone.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(cause) => return Err(error::of("read", &path, cause)),
    };
    let written =
        decode(key.space, &bytes).ok_or_else(|| error::strange(&path, "its first line"))?;
    if written.key != *key {
        return Err(error::strange(&path, "it belongs to another name with the same hash"));
    }
    Ok(Some(written))
}

/// A file's content.
pub fn encode(written: &Written) -> Vec<u8> {
    let Written { key, entry, lasts } = written;
    let name: String = key.name.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut bytes = format!("{} {} {lasts} {name}\n", entry.version, entry.written).into_bytes();
    bytes.extend_from_slice(&entry.value);
    bytes
}

/// What a file says.
pub fn decode(space: Space, bytes: &[u8]) -> Option<Written> {
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    let line = std::str::from_utf8(&bytes[..end]).ok()?;
    let mut words = line.split(' ');
    let mut number = || words.next()?.parse::<u64>().ok();
    let (version, written, lasts) = (number()?, number()?, number()?);
    let name = words.next()?;
    let digits = name.as_bytes().chunks(2);
    let byte = |two: &[u8]| u8::from_str_radix(std::str::from_utf8(two).ok()?, 16).ok();
    let name = digits.map(byte).collect::<Option<Vec<u8>>>()?;
    let entry = Entry { version, written, value: bytes[end + 1..].to_vec() };
    Some(Written { key: Key { space, name }, entry, lasts })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_readable_or_short() {
        assert_eq!(file_name(b"nightly"), "nightly");
        assert_eq!(file_name(b"stock/42"), "stock%2f42");
        assert_eq!(file_name(b"."), "%2e");
        assert_eq!(file_name(b"..a"), "%2e.a");
        let (one, two) = (file_name(&[b'x'; 255]), file_name(&[b'x'; 254]));
        assert!(one.len() <= READABLE && one != two, "{one} {two}");
    }

    #[test]
    fn files_say_what_was_written() {
        let key = Key::register(&[0, 255, b' ', b'\n']);
        let entry = Entry { version: 7, written: 8, value: b"a\nb".to_vec() };
        let written = Written { key: key.clone(), entry: entry.clone(), lasts: 9 };
        let again = decode(Space::Register, &encode(&written)).expect("it is ours");
        assert_eq!((again.key, again.entry, again.lasts), (key, entry, 9));
        assert!(decode(Space::Lock, b"no line").is_none());
        assert!(decode(Space::Lock, b"1 2 x 00\n").is_none());
    }
}
