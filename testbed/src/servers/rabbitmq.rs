//! RabbitMQ, without the management plugin.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::needed;
use crate::{Kind, Server, free_port};

const RABBITMQ: Kind = Kind { url, is_ready: |_| true };

/// Erlang's name server and then the broker, in one group of processes and ended together.
const START: &str = r#"
setpriv --pdeathsig KILL -- epmd -address 127.0.0.1 -port "$ERL_EPMD_PORT" &
until epmd -port "$ERL_EPMD_PORT" -names > /dev/null 2>&1; do sleep 0.05; done
exec "$0"
"#;

/// The URL of one on a port of this machine.
pub fn url(port: u16) -> String {
    format!("amqp://127.0.0.1:{port}")
}

/// Starts one with settings of Erlang's, such as `-rabbit consumer_timeout 2000`.
///
/// # Panics
/// When the package is not installed, or the server does not start.
pub fn start(settings: &str) -> Server {
    let program = needed("rabbitmq-server", &["/usr/lib/rabbitmq/bin"], "rabbitmq-server");
    let directory = Server::directory();
    let at = |name: &str| directory.path().join(name);
    std::fs::write(at("plugins"), "[].").expect("the directory is ours");
    // Two more for Erlang itself.
    let [port, distribution, names] = [(); 3].map(|()| free_port());
    let mut call = Command::new("/bin/sh");
    call.arg("-c").arg(START).arg(real(&program));
    call.env("HOME", directory.path())
        .env("RABBITMQ_CONF_ENV_FILE", at("none"))
        .env("RABBITMQ_CONFIG_FILE", at("none"))
        .env("RABBITMQ_NODENAME", format!("lh{port}@localhost"))
        .env("RABBITMQ_MNESIA_BASE", at("data"))
        .env("RABBITMQ_LOG_BASE", at("log"))
        .env("RABBITMQ_LOGS", "-")
        .env("RABBITMQ_ENABLED_PLUGINS_FILE", at("plugins"))
        .env("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1")
        .env("RABBITMQ_NODE_PORT", port.to_string())
        .env("RABBITMQ_DIST_PORT", distribution.to_string())
        .env("ERL_EPMD_PORT", names.to_string())
        .env("ERL_EPMD_ADDRESS", "127.0.0.1")
        .env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", settings)
        // In the foreground, so that it is the process that we started.
        .env("RABBITMQ_ALLOW_INPUT", "true")
        .env("RABBITMQ_SERVER_START_ARGS", "-noinput");
    Server::start_kind(&RABBITMQ, directory, port, call)
}

/// The script itself: the one on the path changes user and directory.
fn real(program: &Path) -> PathBuf {
    let direct = Path::new("/usr/lib/rabbitmq/bin/rabbitmq-server");
    if direct.is_file() { direct.to_owned() } else { program.to_owned() }
}
