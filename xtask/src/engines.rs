//! Engines over the systems that people run: each against the real server.
//!
//! The servers come from the system's packages, or from Maven's repository, and are started by the
//! tests themselves, on free ports and in temporary directories. One that cannot be had makes its
//! engine *not run*, which fails the run.
//!
//! They are a command of their own, beside `test`: all of them together take as long as it does.

use crate::run::{self, Step, Verdict, step};
use crate::{browser, test};
use std::path::Path;
use std::process::{Command, ExitCode};

/// An engine and what its server is.
struct Engine {
    name: &'static str,
    /// Programs, by name or by path, and the packages that they come with.
    programs: &'static [&'static str],
    packages: &'static [&'static str],
    /// A list of what Maven is to fetch, and where to under the target directory.
    jars: Option<(&'static str, &'static str)>,
    /// A feature without which its tests are not there. It builds a C library, so such an engine
    /// is linted here and not with the others.
    feature: Option<&'static str>,
}

/// An engine whose server comes with packages.
const fn packaged(
    name: &'static str,
    programs: &'static [&'static str],
    packages: &'static [&'static str],
) -> Engine {
    Engine { name, programs, packages, jars: None, feature: None }
}

const ENGINES: &[Engine] = &[
    packaged("redis", &["redis-server"], &["redis-server"]),
    packaged("postgres", &["pg_ctlcluster"], &["postgresql"]),
    packaged("mysql", &["mariadb-install-db"], &["mariadb-server"]),
    packaged("etcd", &["etcd"], &["etcd-server"]),
    packaged(
        "zookeeper",
        &["java", "/usr/share/zookeeper/bin/zkServer.sh"],
        &["default-jre-headless", "zookeeper"],
    ),
    packaged("amqp", &["/usr/lib/rabbitmq/bin/rabbitmq-server"], &["rabbitmq-server"]),
    Engine {
        name: "kafka",
        programs: &["java", "mvn", "make"],
        packages: &["default-jre-headless", "maven", "make"],
        jars: Some(("engines/kafka/tests/broker/pom.xml", "kafka-jars")),
        feature: Some("librdkafka"),
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
    if let Some((list, directory)) = engine.jars
        && let Err(why) = fetch(list, directory)
    {
        return Ok(Verdict::NotRun(why));
    }
    let package = format!("leasehold-{}", engine.name);
    let mut arguments = vec!["-p", package.as_str()];
    if let Some(feature) = engine.feature {
        arguments.extend(["--features", feature]);
        let mut lints = run::cargo();
        lints.arg("clippy").args(&arguments).args(["--all-targets", "--test", "*"]);
        run::succeed(lints.args(["--", "-D", "warnings"]))?;
    }
    // They stand apart from the tests that need no server. Each starts one, so few at a time.
    arguments.extend(["--test", "*", "--", "--test-threads", "2"]);
    test::cargo_test(&arguments, &[])
}

/// Copies the jars of a server that no package brings, unless they are there.
fn fetch(list: &str, directory: &str) -> Result<(), String> {
    let list = run::root().join(list);
    let directory = run::target().join(directory);
    let of = |path: &Path| path.metadata().and_then(|found| found.modified()).ok();
    if of(&directory).is_some_and(|fetched| Some(fetched) >= of(&list)) {
        return Ok(());
    }
    let failed = |error: std::io::Error| format!("{}: {error}", directory.display());
    let part = directory.with_extension("part");
    // Another version's jars beside these would be loaded too.
    for old in [&directory, &part] {
        if old.is_dir() {
            std::fs::remove_dir_all(old).map_err(failed)?;
        }
    }
    let mut call = Command::new("mvn");
    call.args(["-q", "-B", "-f"]).arg(&list).arg("dependency:copy-dependencies");
    run::succeed(call.arg(format!("-DoutputDirectory={}", part.display())))?;
    std::fs::rename(&part, &directory).map_err(failed)
}

/// What those tests are among the workspace's targets, for the lints.
pub fn tests() -> impl Iterator<Item = String> {
    let plain = ENGINES.iter().filter(|engine| engine.feature.is_none());
    plain.flat_map(|engine| ["-p".to_owned(), format!("leasehold-{}", engine.name)])
}
