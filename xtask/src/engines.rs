//! Engines over the systems that people run: each against the real server.
//!
//! The servers come from the system's packages and are started by the tests themselves, on free
//! ports and in temporary directories. One that cannot be had makes its engine *not run*, which
//! fails the run.
//!
//! They are a command of their own, beside `test`: all of them together take as long as it does.

use crate::run::{self, Step, Verdict, step};
use crate::{browser, test};
use std::process::ExitCode;

/// An engine and what its server is.
struct Engine {
    name: &'static str,
    /// Programs, by name or by path, and the packages that they come with.
    programs: &'static [&'static str],
    packages: &'static [&'static str],
}

const ENGINES: &[Engine] = &[
    Engine { name: "redis", programs: &["redis-server"], packages: &["redis-server"] },
    Engine { name: "postgres", programs: &["pg_ctlcluster"], packages: &["postgresql"] },
    Engine { name: "mysql", programs: &["mariadb-install-db"], packages: &["mariadb-server"] },
    Engine { name: "etcd", programs: &["etcd"], packages: &["etcd-server"] },
    Engine {
        name: "zookeeper",
        programs: &["java", "/usr/share/zookeeper/bin/zkServer.sh"],
        packages: &["default-jre-headless", "zookeeper"],
    },
    Engine {
        name: "amqp",
        programs: &["/usr/lib/rabbitmq/bin/rabbitmq-server"],
        packages: &["rabbitmq-server"],
    },
];

/// `cargo xtask engines [NAME…]`.
pub fn command(arguments: &[String]) -> Result<ExitCode, String> {
    let known = |name: &String| ENGINES.iter().any(|engine| engine.name == name);
    if let Some(wrong) = arguments.iter().find(|name| !known(name)) {
        let names: Vec<&str> = ENGINES.iter().map(|engine| engine.name).collect();
        return Err(format!("there is no engine {wrong}; there are {}", names.join(", ")));
    }
    let asked =
        |engine: &&Engine| arguments.is_empty() || arguments.iter().any(|name| name == engine.name);
    Ok(run::run_all(ENGINES.iter().filter(asked).map(one).collect()))
}

fn one(engine: &'static Engine) -> Step {
    step(format!("engine {}", engine.name), move || check(engine))
}

fn check(engine: &Engine) -> Result<Verdict, String> {
    if let Err(why) = browser::ensure(engine.programs, engine.packages) {
        return Ok(Verdict::NotRun(why));
    }
    let package = format!("leasehold-{}", engine.name);
    // They stand apart from the tests that need no server. Each starts one, so few at a time.
    test::cargo_test(&["-p", &package, "--test", "*", "--", "--test-threads", "2"], &[])
}

/// What those tests are among the workspace's targets, for the lints.
pub fn tests() -> impl Iterator<Item = String> {
    ENGINES.iter().flat_map(|engine| ["-p".to_owned(), format!("leasehold-{}", engine.name)])
}
