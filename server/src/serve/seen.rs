//! What a file looks like from outside, to notice that it changed.
//!
//! Looking is slower than being told by the kernel and always right: it sees through symbolic links
//! that are switched, network file systems and editors that rename.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// What a file looks like; `None`: there is none.
#[derive(Debug, PartialEq, Eq)]
pub struct Seen(Option<[i64; 6]>);

impl Seen {
    /// Now.
    pub fn at(path: &Path) -> Self {
        let look = |file: std::fs::Metadata| {
            let (inode, length) = (file.ino().cast_signed(), file.size().cast_signed());
            let (changed, written) = (file.ctime(), file.mtime());
            [inode, length, changed, file.ctime_nsec(), written, file.mtime_nsec()]
        };
        Self(std::fs::metadata(path).ok().map(look))
    }
}
