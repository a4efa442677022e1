//! Certificates for servers with TLS.

use std::path::{Path, PathBuf};

/// A certificate that vouches for itself, and its key, both in files.
#[derive(Debug)]
pub struct Certificate {
    /// What the server shows, and what a client trusts.
    pub certificate: PathBuf,
    /// Its key; readable by all, since some servers run as another user.
    pub key: PathBuf,
}

impl Certificate {
    /// Makes one for a server of this name or address, in a directory.
    ///
    /// # Panics
    /// When the directory takes no files.
    pub fn new(directory: &Path, name: &str) -> Self {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).expect("a certificate");
        let write = |name: &str, text: String| {
            let path = directory.join(name);
            std::fs::write(&path, text).expect("the directory is ours");
            path
        };
        Self {
            certificate: write("cert.pem", made.cert.pem()),
            key: write("key.pem", made.signing_key.serialize_pem()),
        }
    }
}
