//! What the URLs of all engines have in common. What is wrong with one is said by its engine, which
//! knows how it should look.

/// The host and the port of `HOST`, `HOST:PORT` or `[ADDRESS]:PORT`, as they stand there, perhaps
/// empty; `None`: a bracket is not closed.
///
/// ```
/// use leasehold_api::engine::host_and_port;
/// assert_eq!(host_and_port("[::1]:5672"), Some(("::1", Some("5672"))));
/// assert_eq!(host_and_port("broker"), Some(("broker", None)));
/// assert_eq!(host_and_port("[::1"), None);
/// ```
pub fn host_and_port(place: &str) -> Option<(&str, Option<&str>)> {
    match place.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']')?;
            Some((host, port.strip_prefix(':')))
        }
        None => Some(match place.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (place, None),
        }),
    }
}

/// Undoes `%XX`; `None`: a `%` is not followed by two hexadecimal digits.
///
/// ```
/// use leasehold_api::engine::unescaped;
/// assert_eq!(unescaped("a%2Fb").as_deref(), Some(&b"a/b"[..]));
/// assert_eq!(unescaped("100%"), None);
/// ```
pub fn unescaped(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digit = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16));
        bytes.push((digit(rest.next())? * 16 + digit(rest.next())?) as u8);
    }
    Some(bytes)
}
