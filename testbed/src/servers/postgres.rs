//! PostgreSQL: a user `leasehold`, who may do everything, and the database `postgres`.

use std::path::PathBuf;
use std::process::Command;

use super::needed;
use crate::{Kind, Server, as_user, free_port};

/// Its port is open before it takes requests.
const POSTGRES: Kind = Kind { url, is_ready };

/// The URL of one on a port of this machine.
pub fn url(port: u16) -> String {
    format!("postgres://leasehold@127.0.0.1:{port}/postgres")
}

/// Starts one with more settings, `name=value`.
///
/// # Panics
/// When the package is not installed, or the server does not start.
pub fn start(settings: &[&str]) -> Server {
    start_with(settings, &[])
}

/// Starts one with files beside its data, which only it may read.
///
/// # Panics
/// When the package is not installed, or the server does not start.
pub fn start_with(settings: &[&str], files: &[(&str, &str)]) -> Server {
    let (directory, port) = (Server::directory(), free_port());
    for (name, text) in files {
        let path = directory.path().join(name);
        std::fs::write(&path, text).expect("the directory is ours");
        let own = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(&path, own).expect("it is ours");
    }
    let data = directory.path().join("data");
    std::fs::create_dir(&data).expect("the directory is ours");
    let mut init = as_user("postgres", &tool("initdb"), directory.path());
    init.args(["-U", "leasehold", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"]);
    let made = init.arg("-D").arg(&data).output().expect("initdb runs");
    assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
    let mut call = as_user("postgres", &tool("postgres"), directory.path());
    call.arg("-D").arg(&data).args(["-p", &port.to_string(), "-h", "127.0.0.1"]);
    call.arg("-k").arg(directory.path()).args(["-c", "max_connections=300"]);
    for setting in settings {
        call.args(["-c", setting]);
    }
    call.current_dir(directory.path());
    Server::start_kind(&POSTGRES, directory, port, call)
}

fn is_ready(port: u16) -> bool {
    let mut call = Command::new(tool("pg_isready"));
    call.args(["-q", "-h", "127.0.0.1", "-p", &port.to_string(), "-d", "postgres"]);
    call.status().is_ok_and(|status| status.success())
}

/// Where Debian puts the programs, the newest release first.
fn bins() -> Vec<String> {
    let found = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut releases: Vec<PathBuf> = found.map(|entry| entry.path()).collect();
    let number = |path: &PathBuf| {
        path.file_name().and_then(|name| name.to_str()?.parse::<u32>().ok()).unwrap_or(0)
    };
    releases.sort_by_key(|path| std::cmp::Reverse(number(path)));
    releases.iter().map(|path| path.join("bin").display().to_string()).collect()
}

/// A program of PostgreSQL's.
fn tool(name: &str) -> PathBuf {
    let bins = bins();
    let also: Vec<&str> = bins.iter().map(String::as_str).collect();
    needed(name, &also, "postgresql")
}
