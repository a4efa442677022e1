//! From what the system says to what users read.

use std::io;
use std::path::Path;

use leasehold_api::{Error, ErrorKind, Retry};

/// Something could not be done with a file.
pub fn of(what: &str, path: &Path, error: io::Error) -> Error {
    let (kind, hint) = match error.kind() {
        io::ErrorKind::PermissionDenied => (ErrorKind::Forbidden, "; let this user write there"),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            (ErrorKind::DiskFull, "; make room")
        }
        io::ErrorKind::NotFound => (ErrorKind::Unavailable, "; was the directory removed?"),
        _ => (ErrorKind::Unavailable, ""),
    };
    let wrong = format!("{what} {}: {error}{hint}", path.display());
    Error::new(kind, wrong).with_retry(if kind == ErrorKind::Unavailable {
        Retry::Unknown
    } else {
        kind.retry()
    })
}

/// A file that is not one of ours.
pub fn strange(path: &Path, why: &str) -> Error {
    let wrong =
        format!("{} is not a file of this engine ({why}); who writes there?", path.display());
    Error::new(ErrorKind::Broken, wrong)
}
