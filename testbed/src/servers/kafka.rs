//! An Apache Kafka of one broker that is its own controller (KRaft).

use std::fmt::Write;
use std::path::PathBuf;
use std::process::Command;

use super::needed;
use crate::{Certificate, Kind, Server, free_port};

/// Where the build keeps the jars, which Maven brings and no package.
const JARS: &str = "kafka-jars";

const KAFKA: Kind = Kind { url: |port| format!("kafka://127.0.0.1:{port}"), is_ready: |_| true };

/// Makes the directory ready unless it is, then becomes the broker.
const START: &str = r#"
export CLASSPATH="$1/*"
java="$0 -Xmx512m -XX:+UseSerialGC -XX:TieredStopAtLevel=1"
java="$java -Dorg.slf4j.simpleLogger.defaultLogLevel=warn"
$java kafka.tools.StorageTool format --ignore-formatted -t bGVhc2Vob2xkLXRlc3RzLQ -c "$2" \
    --add-scram 'SCRAM-SHA-256=[name=owner,password=secret]' > /dev/null || exit 1
exec $java kafka.Kafka "$2"
"#;

/// What a broker is started with besides what it needs.
#[derive(Debug, Default, Clone)]
pub struct Wishes {
    /// Lines of its settings.
    pub settings: &'static str,
    /// The port that it tells those who come through [`Broker::proxied`].
    pub proxy: Option<u16>,
}

/// A broker.
#[derive(Debug)]
pub struct Broker {
    /// The process; its port is for everybody.
    pub server: Server,
    /// Behind a proxy.
    pub proxied: u16,
    /// For users with a password.
    pub guarded: u16,
    /// For users with a password (SCRAM-SHA-256) over TLS.
    pub encrypted: u16,
    /// What it shows there.
    pub certificate: Certificate,
}

impl Broker {
    /// Starts one.
    ///
    /// # Panics
    /// When java or the jars are missing, or it does not start.
    pub fn start() -> Self {
        let at = Ports::find();
        Self::started(at, &Wishes::default())
    }

    /// Starts one at these ports.
    ///
    /// # Panics
    /// When java or the jars are missing, or it does not start.
    pub fn started(at: Ports, wishes: &Wishes) -> Self {
        let java = needed("java", &[], "default-jre-headless");
        let directory = Server::directory();
        let settings = directory.path().join("settings");
        let Ports { port, controller, proxied, guarded, encrypted } = at;
        let certificate = Certificate::new(directory.path(), "127.0.0.1");
        let keys = directory.path().join("keys.pem");
        let both = [&certificate.key, &certificate.certificate];
        let both = both.map(|path| std::fs::read_to_string(path).expect("it was written"));
        std::fs::write(&keys, both.concat()).expect("the directory is ours");
        let proxy = wishes.proxy.unwrap_or(proxied);
        let mut lines = String::new();
        write!(
            lines,
            "process.roles=broker,controller\n\
             node.id=1\n\
             controller.quorum.voters=1@127.0.0.1:{controller}\n\
             controller.listener.names=CONTROLLER\n\
             inter.broker.listener.name=OPEN\n\
             listeners=OPEN://127.0.0.1:{port},PROXIED://127.0.0.1:{proxied},\
             GUARDED://127.0.0.1:{guarded},ENCRYPTED://127.0.0.1:{encrypted},\
             CONTROLLER://127.0.0.1:{controller}\n\
             advertised.listeners=OPEN://127.0.0.1:{port},PROXIED://127.0.0.1:{proxy},\
             GUARDED://127.0.0.1:{guarded},ENCRYPTED://127.0.0.1:{encrypted}\n\
             listener.security.protocol.map=OPEN:PLAINTEXT,PROXIED:PLAINTEXT,\
             GUARDED:SASL_PLAINTEXT,ENCRYPTED:SASL_SSL,CONTROLLER:PLAINTEXT\n\
             listener.name.guarded.sasl.enabled.mechanisms=PLAIN\n\
             listener.name.guarded.plain.sasl.jaas.config=\
             org.apache.kafka.common.security.plain.PlainLoginModule required \
             user_owner=\"secret\" user_guest=\"secret\";\n\
             listener.name.encrypted.sasl.enabled.mechanisms=SCRAM-SHA-256\n\
             listener.name.encrypted.scram-sha-256.sasl.jaas.config=\
             org.apache.kafka.common.security.scram.ScramLoginModule required;\n\
             listener.name.encrypted.ssl.keystore.type=PEM\n\
             listener.name.encrypted.ssl.keystore.location={}\n\
             authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer\n\
             super.users=User:ANONYMOUS;User:owner\n\
             log.dirs={}\n\
             auto.create.topics.enable=false\n\
             offsets.topic.replication.factor=1\n\
             offsets.topic.num.partitions=3\n\
             transaction.state.log.replication.factor=1\n\
             transaction.state.log.min.isr=1\n\
             group.initial.rebalance.delay.ms=0\n\
             {}\n",
            keys.display(),
            directory.path().join("data").display(),
            wishes.settings,
        )
        .expect("a String takes everything");
        std::fs::write(&settings, lines).expect("the directory is ours");
        let mut call = Command::new("/bin/sh");
        call.arg("-c").arg(START).arg(java).arg(jars()).arg(settings);
        call.env("LC_ALL", "C");
        let mut server = Server::start_kind(&KAFKA, directory, port, call);
        // It begins to listen at one after the other.
        for port in [proxied, guarded, encrypted] {
            server.wait_for(port);
        }
        Self { server, proxied, guarded, encrypted, certificate }
    }

    /// The URL of an engine over it.
    pub fn url(&self) -> String {
        self.server.url()
    }
}

/// The ports of a broker.
#[derive(Debug)]
pub struct Ports {
    /// For everybody.
    pub port: u16,
    /// For itself.
    pub controller: u16,
    /// Behind a proxy.
    pub proxied: u16,
    /// For users with a password.
    pub guarded: u16,
    /// For users with a password, over TLS.
    pub encrypted: u16,
}

impl Ports {
    /// Free ones.
    pub fn find() -> Self {
        let [port, controller, proxied, guarded, encrypted] = [(); 5].map(|()| free_port());
        Self { port, controller, proxied, guarded, encrypted }
    }
}

/// Where the jars are: in the target directory that this program was built in.
fn jars() -> PathBuf {
    let program = std::env::current_exe().unwrap_or_default();
    let found = program.ancestors().map(|above| above.join(JARS)).find(|jars| jars.is_dir());
    found.unwrap_or_else(|| panic!("Kafka is not there: run cargo xtask engines kafka"))
}
