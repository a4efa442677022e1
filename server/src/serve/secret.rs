//! The door's secret, which seals sessions and receipts, in `door-secret` of the data directory or
//! in a file of its own.
//!
//! In the data directory it is made after the engine has opened that: an empty directory with one
//! foreign file in it would be refused. It stays the same over restarts, or clients would lose
//! their sessions.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use anyhow::{Context, Result};

/// Name of the file.
pub const NAME: &str = "door-secret";

/// Bytes of the secret.
pub type Secret = [u8; 32];

/// Makes one up.
pub fn random() -> Result<Secret> {
    let mut secret = Secret::default();
    getrandom::fill(&mut secret).context("make the door's secret: no randomness")?;
    Ok(secret)
}

/// Reads the secret, or makes it.
pub fn load(path: &Path) -> Result<Secret> {
    let asked = || format!("read {}", path.display());
    match fs::read(path) {
        Ok(bytes) => Secret::try_from(bytes.as_slice()).map_err(|_| {
            let wrong = "it is not 32 bytes long; delete it, and clients open new sessions";
            anyhow::anyhow!(wrong).context(asked())
        }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let secret = random()?;
            write_private(path, &secret)?;
            Ok(secret)
        }
        Err(error) => Err(error).with_context(asked),
    }
}

/// Writes a file that only its owner may read, all or nothing: beside the old one, then renamed.
pub fn write_private(path: &Path, bytes: &[u8]) -> Result<()> {
    let asked = || format!("write {}", path.display());
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let write = || -> std::io::Result<()> {
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
        file.set_permissions(Permissions::from_mode(0o600))?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&beside, path)?;
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
    };
    write().with_context(asked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_secret_stays_and_is_private() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join(NAME);
        let secret = load(&path).expect("it is made");
        assert_eq!(load(&path).expect("it is read"), secret);
        assert_ne!(secret, Secret::default());
        let mode = fs::metadata(&path).expect("it is there").permissions();
        assert_eq!(mode.mode() & 0o777, 0o600);
        fs::write(&path, "short").expect("it is writable");
        assert!(load(&path).is_err());
    }
}
