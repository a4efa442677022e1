//! A RabbitMQ of its own for each test, without the management plugin.

use std::net::TcpListener;
use std::process::Command;
use std::time::Duration;

use leasehold_api::Leasehold;
use leasehold_testbed::{Server, free_port, program};

/// Erlang's name server and then the broker, in one group of processes and ended together.
const START: &str = r#"
setpriv --pdeathsig KILL -- epmd -address 127.0.0.1 -port "$ERL_EPMD_PORT" &
until epmd -port "$ERL_EPMD_PORT" -names > /dev/null 2>&1; do sleep 0.05; done
exec "$0"
"#;

/// A broker.
pub struct Rabbit {
    pub server: Server,
}

impl Rabbit {
    /// Starts one with settings of Erlang's, such as `-rabbit consumer_timeout 2000`.
    pub fn start(settings: &str) -> Self {
        let also_in = ["/usr/lib/rabbitmq/bin", "/usr/sbin"];
        let program = program("rabbitmq-server", &also_in[..1], "rabbitmq-server");
        let program = program.unwrap_or_else(|missing| panic!("{missing}"));
        let directory = Server::directory();
        let at = |name: &str| directory.path().join(name);
        std::fs::write(at("plugins"), "[].").expect("the directory is ours");
        let port = free_port();
        let (distribution, names) = two_ports();
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
        Self { server: Server::start(directory, port, call) }
    }

    pub fn url(&self) -> String {
        format!("amqp://127.0.0.1:{}", self.server.port)
    }
}

/// Two more ports, for Erlang itself.
fn two_ports() -> (u16, u16) {
    let bound = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").expect("a free port"));
    let [one, other] = bound.map(|bound| bound.local_addr().expect("it is bound").port());
    (one, other)
}

/// The script itself: the one on the path changes user and directory.
fn real(program: &std::path::Path) -> std::path::PathBuf {
    let direct = std::path::Path::new("/usr/lib/rabbitmq/bin/rabbitmq-server");
    if direct.is_file() { direct.to_owned() } else { program.to_owned() }
}

/// A handle with connections of its own.
#[allow(dead_code, reason = "not every test has handles")]
pub async fn handle(url: &str) -> Leasehold {
    Leasehold::new(leasehold_amqp::connect(url).await.expect("it answers"))
}

/// Longer than anything takes that must come: two to three heartbeats of 2 s, and a slow machine.
#[allow(dead_code, reason = "not every test waits")]
pub const LONG: Duration = Duration::from_secs(60);
