//! The first line of a script when it says what runs it: `#!lua flags=no-writes`.

use crate::Reply;

use super::convert;

/// Flags that Redis 7.0 knows; all but the first speak of things that a server of locks has not.
const FLAGS: [&[u8]; 5] =
    [b"no-writes", b"allow-oom", b"allow-stale", b"no-cluster", b"allow-cross-slot-keys"];

/// Whether a script may write.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Writes {
    /// It does not say.
    Unsaid,
    Yes,
    No,
}

/// What the first line says of writing, and the script's text from the end of that line on.
pub(super) fn split(source: &[u8]) -> Result<(Writes, &[u8]), Reply> {
    if !source.starts_with(b"#!") {
        return Ok((Writes::Unsaid, source));
    }
    let Some(end) = source.iter().position(|byte| *byte == b'\n') else {
        return Err(Reply::error("ERR Invalid script shebang"));
    };
    let mut parts = source[..end].split(|byte| *byte == b' ');
    let engine = parts.next().unwrap_or_default();
    if engine != b"#!lua" {
        return Err(refused("Unexpected engine in script shebang", engine));
    }
    let mut writes = Writes::Yes;
    for part in parts {
        let Some(flags) = part.strip_prefix(b"flags=") else {
            return Err(refused("Unknown lua shebang option", part));
        };
        for flag in flags.split(|byte| *byte == b',') {
            if !FLAGS.contains(&flag) {
                return Err(refused("Unexpected flag in script shebang", flag));
            }
            if flag == FLAGS[0] {
                writes = Writes::No;
            }
        }
    }
    Ok((writes, &source[end..]))
}

fn refused(why: &str, what: &[u8]) -> Reply {
    let text = [b"ERR ", why.as_bytes(), b": ", what].concat();
    Reply::Error(convert::line(&text))
}
