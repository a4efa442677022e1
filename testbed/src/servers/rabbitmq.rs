//! RabbitMQ, without the management plugin.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::needed;
use crate::{Certificate, Kind, Server, free_port};

const RABBITMQ: Kind = Kind { url, is_ready: |_| true };

/// Erlang's name server and then the broker, in one group of processes and ended together.
const START: &str = r#"
setpriv --pdeathsig KILL -- epmd -address 127.0.0.1 -port "$ERL_EPMD_PORT" &
until epmd -port "$ERL_EPMD_PORT" -names > /dev/null 2>&1; do sleep 0.05; done
exec "$0"
"#;

/// The file with its settings in Erlang's words, which need not be there.
const CONFIG: &str = "rabbit.config";

/// The URL of one on a port of this machine.
pub fn url(port: u16) -> String {
    format!("amqp://127.0.0.1:{port}")
}

/// Starts one with settings of Erlang's, such as `-rabbit consumer_timeout 2000`.
///
/// # Panics
/// When the package is not installed, or the server does not start.
pub fn start(settings: &str) -> Server {
    launch(settings, Server::directory())
}

/// Starts one that speaks TLS at another port too, by the name of 127.0.0.1: the server, that port
/// and the certificate.
///
/// # Panics
/// When the package is not installed, or the server does not start.
pub fn start_with_tls() -> (Server, u16, Certificate) {
    let (directory, port) = (Server::directory(), free_port());
    let own = Certificate::new(directory.path(), "127.0.0.1");
    let text = format!(
        "[{{rabbit, [{{ssl_listeners, [{{\"127.0.0.1\", {port}}}]}},\
         {{ssl_options, [{{certfile, {:?}}}, {{keyfile, {:?}}}]}}]}}].",
        own.certificate, own.key
    );
    std::fs::write(directory.path().join(CONFIG), text).expect("the directory is ours");
    let mut server = launch("", directory);
    server.wait_for(port);
    (server, port, own)
}

fn launch(settings: &str, directory: TempDir) -> Server {
    let program = needed("rabbitmq-server", &["/usr/lib/rabbitmq/bin"], "rabbitmq-server");
    let at = |name: &str| directory.path().join(name);
    std::fs::write(at("plugins"), "[].").expect("the directory is ours");
    // Two more for Erlang itself.
    let [port, distribution, names] = [(); 3].map(|()| free_port());
    let mut call = Command::new("/bin/sh");
    call.arg("-c").arg(START).arg(real(&program));
    call.env("HOME", directory.path())
        .env("RABBITMQ_CONF_ENV_FILE", at("none"))
        .env("RABBITMQ_CONFIG_FILE", at(CONFIG))
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
