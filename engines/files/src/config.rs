//! From a URL to a directory.

use std::path::PathBuf;

use leasehold_api::{Error, ErrorKind, Result};

/// The directory that a URL names.
///
/// # Errors
/// `Invalid`, with what a URL looks like.
pub fn directory(url: &str) -> Result<PathBuf> {
    let invalid = |wrong: &str| {
        let wrong = format!("{wrong}; it is file:///absolute/path");
        Error::new(ErrorKind::Invalid, wrong).asking(format!("open {url}"))
    };
    let path = url.strip_prefix("file://").ok_or_else(|| invalid("the URL has another scheme"))?;
    if path.contains(['?', '#']) {
        return Err(invalid("this engine has no options"));
    }
    if !path.starts_with('/') {
        return Err(invalid("a host stands where the path should begin"));
    }
    Ok(PathBuf::from(decoded(path).ok_or_else(|| invalid("a % is not followed by two digits"))?))
}

/// A path with its `%20` and the like put back.
fn decoded(path: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = path.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
                let (high, low) = (digit(rest.next())?, digit(rest.next())?);
                u8::try_from(high * 16 + low).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::directory;

    #[test]
    fn urls_name_directories() {
        let path = |url| directory(url).map(|path| path.display().to_string());
        assert_eq!(path("file:///run/lock/shop").as_deref(), Ok("/run/lock/shop"));
        assert_eq!(path("file:///a%20b").as_deref(), Ok("/a b"));
        for bad in ["file://host/a", "file:///a?x=1", "file:///a%2", "ftp:///a"] {
            let error = path(bad).expect_err(bad);
            assert!(error.to_string().contains("file:///absolute/path"), "{error}");
        }
    }
}
