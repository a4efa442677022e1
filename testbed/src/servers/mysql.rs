//! MariaDB.

use std::path::Path;

use super::needed;
use crate::{Kind, Server, as_user, free_port};

/// The database that tests use.
pub const DATABASE: &str = "leasehold";

const MYSQL: Kind = Kind { url, is_ready: |_| true };

/// The URL of one on a port of this machine.
pub fn url(port: u16) -> String {
    format!("mysql://root:@127.0.0.1:{port}/{DATABASE}")
}

/// Starts a server with an empty database, with these options besides.
///
/// # Panics
/// When the package is not installed, or the server does not start.
pub fn start(options: &[&str]) -> Server {
    let also = ["/usr/sbin", "/usr/local/sbin", "/usr/local/bin"];
    let install = needed("mariadb-install-db", &also, "mariadb-server");
    let mariadbd = needed("mariadbd", &also, "mariadb-server");
    let (directory, port) = (Server::directory(), free_port());
    let data = directory.path().join("data");
    // Temporary tables of servers in one directory get in each other's way.
    let scratch = directory.path().join("tmp");
    for own in [&data, &scratch] {
        std::fs::create_dir(own).expect("the directory is ours");
    }
    let mut call = as_user("mysql", &install, directory.path());
    call.args(["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db"]);
    call.arg(under("--datadir", &data)).args(SMALL).env("TMPDIR", &scratch);
    let made = call.output().expect("setpriv is part of util-linux");
    let said = String::from_utf8_lossy(&made.stdout);
    assert!(made.status.success(), "{said}{}", String::from_utf8_lossy(&made.stderr));
    std::fs::create_dir(data.join(DATABASE)).expect("the directory is ours");
    let mut call = as_user("mysql", &mariadbd, directory.path());
    call.arg("--no-defaults").arg(under("--datadir", &data)).args(SMALL);
    call.env("TMPDIR", &scratch).arg(under("--socket", &directory.path().join("s")));
    call.arg(under("--pid-file", &directory.path().join("pid")));
    call.args(["--bind-address=127.0.0.1", "--skip-log-bin", "--skip-name-resolve"]);
    call.arg(format!("--port={port}")).args(options);
    Server::start_kind(&MYSQL, directory, port, call)
}

const SMALL: [&str; 4] = [
    "--innodb-buffer-pool-size=32M",
    "--innodb-log-file-size=16M",
    "--max-connections=500",
    // Its rings are counted against the memory that a user may lock, over all servers.
    "--innodb-use-native-aio=0",
];

fn under(option: &str, path: &Path) -> String {
    format!("{option}={}", path.display())
}
