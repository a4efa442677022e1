//! PgBouncer in front of a PostgreSQL.

use super::{needed, postgres};
use crate::{Kind, Server, as_user, free_port};

/// Its URLs are those of what stands behind it.
const PGBOUNCER: Kind = Kind { url: postgres::url, is_ready: |_| true };

/// Starts one in front of a server, with a pool mode: `session`, `transaction` or `statement`.
///
/// # Panics
/// When the package is not installed, or it does not start.
pub fn start(before: &Server, pool_mode: &str) -> Server {
    let program = needed("pgbouncer", &["/usr/sbin"], "pgbouncer");
    let (directory, port) = (Server::directory(), free_port());
    let at = |name: &str| directory.path().join(name);
    let config = format!(
        "[databases]\n* = host=127.0.0.1 port={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
         listen_port = {port}\nunix_socket_dir =\nauth_type = trust\nauth_file = {}\n\
         pool_mode = {pool_mode}\nmax_client_conn = 200\ndefault_pool_size = 20\n",
        before.port,
        at("users").display(),
    );
    std::fs::write(at("config"), config).expect("the directory is ours");
    std::fs::write(at("users"), "\"leasehold\" \"\"\n").expect("the directory is ours");
    // It refuses to be root.
    let mut call = as_user("postgres", &program, directory.path());
    call.arg(at("config"));
    Server::start_kind(&PGBOUNCER, directory, port, call)
}
