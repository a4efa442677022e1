//! Engines over the systems that people run: each against the real server.
//!
//! The servers come from the system's packages, or from Maven's repository, and are started by the
//! tests themselves, on free ports and in temporary directories. One that cannot be had makes what
//! needs it *not run*, which fails the run.
//!
//! Those tests mostly wait: for a server to start, for a lease to end. So several programs of them
//! run at one time, and what each says is kept until it is done, in a file and then on the screen.

use crate::run::{self, Counts, Step, Verdict, step};
use crate::{browser, test};
use serde_json::Value;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Mutex;
use std::time::Instant;

/// Programs of tests that run at one time, and tests of one program.
const AT_ONE_TIME: usize = 3;
const THREADS: &str = "2";

/// An engine and what its server is.
struct Engine {
    name: &'static str,
    /// Programs, by name or by path, and the packages that they come with.
    programs: &'static [&'static str],
    packages: &'static [&'static str],
    /// A list of what Maven is to fetch, and where to under the target directory.
    jars: Option<(&'static str, &'static str)>,
    /// Features of the workspace without which its tests are not there: they build a C library.
    features: &'static [&'static str],
    /// Whether its locks and registers are those that histories are judged by.
    has_history: bool,
}

/// What most engines are.
const PACKAGED: Engine =
    Engine { name: "", programs: &[], packages: &[], jars: None, features: &[], has_history: true };

/// Those whose tests take longest come first, so that nobody waits for one that began last.
const ENGINES: &[Engine] = &[
    Engine {
        name: "amqp",
        programs: &["/usr/lib/rabbitmq/bin/rabbitmq-server"],
        packages: &["rabbitmq-server"],
        has_history: false,
        ..PACKAGED
    },
    Engine {
        name: "kafka",
        programs: &["java", "mvn"],
        packages: &["default-jre-headless", "maven"],
        jars: Some(("engines/kafka/tests/broker/pom.xml", "kafka-jars")),
        features: &["leasehold-kafka/tls", "leasehold-examples/kafka"],
        has_history: false,
    },
    Engine {
        name: "etcd",
        programs: &["etcd", "etcdctl"],
        packages: &["etcd-server", "etcd-client"],
        ..PACKAGED
    },
    Engine {
        name: "zookeeper",
        programs: &["java", "/usr/share/zookeeper/bin/zkServer.sh"],
        packages: &["default-jre-headless", "zookeeper"],
        ..PACKAGED
    },
    Engine {
        name: "mysql",
        programs: &["mariadb-install-db"],
        packages: &["mariadb-server"],
        ..PACKAGED
    },
    Engine {
        name: "postgres",
        programs: &["pg_ctlcluster", "pgbouncer"],
        packages: &["postgresql", "pgbouncer"],
        ..PACKAGED
    },
    Engine {
        name: "redis",
        programs: &["redis-server", "redis-cli"],
        packages: &["redis-server", "redis-tools"],
        ..PACKAGED
    },
];

/// What building with those features needs: programs, by name or by path, and packages.
const LIBRARIES: (&[&str], &[&str]) =
    (&["make", "pkg-config", "/usr/include/openssl/ssl.h"], &["make", "pkg-config", "libssl-dev"]);

/// Tests of other packages that need those servers; a module of each is called after its engine.
const BESIDE: &[(&str, &str, &[&str])] = &[
    (
        "leasehold-examples",
        "real_servers",
        &["amqp", "etcd", "kafka", "mysql", "postgres", "redis", "zookeeper"],
    ),
    ("leasehold-server", "real_servers", &["postgres", "redis"]),
];

/// The benchmark's feature that builds a C library.
pub const BENCHMARKED: &str = "leasehold-bench/kafka";

/// How often the system is paused and killed in a history of each engine.
const KILLS_SHORT: u64 = 2;

/// `cargo xtask engines [NAME…]`.
pub fn command(arguments: &[String]) -> Result<ExitCode, String> {
    let known = |name: &String| ENGINES.iter().any(|engine| engine.name == name);
    if let Some(wrong) = arguments.iter().find(|name| !known(name)) {
        let names: Vec<&str> = ENGINES.iter().map(|engine| engine.name).collect();
        return Err(format!("there is no engine {wrong}; there are {}", names.join(", ")));
    }
    let asked = arguments.to_vec();
    let asked = move |name: &str| asked.is_empty() || asked.iter().any(|known| known == name);
    Ok(run::run_all(vec![step("engines", move || check(|engine| asked(engine.name)))]))
}

/// Runs the tests of all engines.
pub fn check_all() -> Result<Verdict, String> {
    check(|_| true)
}

fn check(wanted: impl Fn(&Engine) -> bool) -> Result<Verdict, String> {
    let (here, mut missing) = installed(wanted);
    let mut programs = programs(&here)?;
    programs.extend(histories(&here, KILLS_SHORT)?);
    Ok(sum(run_programs(programs)?, &mut missing))
}

/// The engines whose servers are there, installed if need be; and what could not be had.
fn installed(wanted: impl Fn(&Engine) -> bool) -> (Vec<&'static Engine>, Vec<String>) {
    let (mut here, mut missing) = (Vec::new(), Vec::new());
    for engine in ENGINES.iter().filter(|engine| wanted(engine)) {
        let libraries = if engine.features.is_empty() { Ok(()) } else { ensure_libraries() };
        let packages = libraries.and_then(|()| browser::ensure(engine.programs, engine.packages));
        let jars = |()| engine.jars.map_or(Ok(()), |(list, directory)| fetch(list, directory));
        match packages.and_then(jars) {
            Ok(()) => here.push(engine),
            Err(why) => missing.push(format!("{}: {why}", engine.name)),
        }
    }
    (here, missing)
}

/// Installs what building with the engines' features needs, unless it is there.
pub fn ensure_libraries() -> Result<(), String> {
    browser::ensure(LIBRARIES.0, LIBRARIES.1)
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
            fs::remove_dir_all(old).map_err(failed)?;
        }
    }
    let mut call = Command::new("mvn");
    call.args(["-q", "-B", "-f"]).arg(&list).arg("dependency:copy-dependencies");
    run::succeed(call.arg(format!("-DoutputDirectory={}", part.display())))?;
    fs::rename(&part, &directory).map_err(failed)
}

/// What all of it comes to.
fn sum(verdicts: Vec<(String, Verdict)>, missing: &mut Vec<String>) -> Verdict {
    let (mut counts, mut failed) = (Counts::default(), Vec::new());
    for (name, verdict) in verdicts {
        match verdict {
            Verdict::Passed(of) => counts.add(of),
            Verdict::Failed(of, why) => {
                counts.add(of);
                failed.push(format!("{name}: {why}"));
            }
            Verdict::NotRun(_, why) => missing.push(format!("{name}: {why}")),
        }
    }
    match (failed.is_empty(), missing.is_empty()) {
        (true, true) => Verdict::Passed(counts),
        (true, false) => Verdict::NotRun(counts, missing.join("; ")),
        (false, _) => {
            failed.append(missing);
            Verdict::Failed(counts, failed.join("; "))
        }
    }
}

/// A program of tests.
struct Program {
    name: String,
    executable: PathBuf,
    arguments: Vec<String>,
    /// Where cargo would run it.
    directory: PathBuf,
    /// Whether it counts its tests; one that does not is a test itself.
    counts: bool,
}

/// Builds the tests of engines.
///
/// They are chosen from the whole workspace: what they are made of has then the same features as
/// in the other tests, and is not built twice.
fn programs(engines: &[&Engine]) -> Result<Vec<Program>, String> {
    let metadata = run::metadata(&[])?;
    // Each is a package, a test and, where only some of it is meant, whose.
    let mut tests: Vec<(String, String, Option<&str>)> = Vec::new();
    for engine in engines {
        let own = tests_of(&metadata, &format!("leasehold-{}", engine.name));
        tests.extend(own.into_iter().map(|(package, test)| (package, test, None)));
        let beside = BESIDE.iter().filter(|(_, _, engines)| engines.contains(&engine.name));
        tests.extend(beside.map(|(package, test, _)| {
            (String::from(*package), String::from(*test), Some(engine.name))
        }));
    }
    if tests.is_empty() {
        return Ok(Vec::new());
    }
    let mut build = run::cargo();
    build.args(["test", "--no-run", "--workspace", "--message-format=json-render-diagnostics"]);
    for (_, test, _) in &tests {
        build.args(["--test", test]);
    }
    for feature in engines.iter().flat_map(|engine| engine.features) {
        build.args(["--features", feature]);
    }
    let mut built = Vec::new();
    let success = run::stream(&mut build, run::Output::Stdout, |line| {
        built.extend(serde_json::from_str(line).ok().and_then(|message| executable(&message)));
    })?;
    if !success {
        return Err(String::from("the tests of the engines cannot be built"));
    }
    let of = |(package, test, engine): &(String, String, Option<&str>)| {
        let found = built.iter().find(|(id, name, _)| name == test && is_package(id, package));
        let (id, _, executable) =
            found.ok_or_else(|| format!("{package}: cargo built no {test}"))?;
        let short = package.trim_start_matches("leasehold-");
        // What a suite counts is worth reading also when it passes.
        let mut arguments =
            vec!["--show-output".to_owned(), "--test-threads".to_owned(), THREADS.to_owned()];
        arguments.extend(engine.map(|engine| format!("{engine}::")));
        Ok(Program {
            name: match engine {
                None => format!("{short} {test}"),
                Some(engine) => format!("{engine} {short}"),
            },
            executable: executable.clone(),
            arguments,
            directory: directory(&metadata, id),
            counts: true,
        })
    };
    tests.iter().map(of).collect()
}

/// Builds what plays histories of clients of each engine and judges them.
fn histories(engines: &[&Engine], kills: u64) -> Result<Vec<Program>, String> {
    let known = engines.iter().copied().filter(|engine| engine.has_history);
    let engines: Vec<&Engine> = known.collect();
    if engines.is_empty() {
        return Ok(Vec::new());
    }
    let outage = test::built_outage()?;
    let of = |engine: &&Engine| Program {
        name: format!("{} history", engine.name),
        executable: outage.clone(),
        arguments: ["--engine", engine.name, "--kills", &kills.to_string()]
            .map(String::from)
            .into(),
        directory: run::root(),
        counts: false,
    };
    Ok(engines.iter().map(of).collect())
}

/// The tests of a package.
fn tests_of(metadata: &Value, package: &str) -> Vec<(String, String)> {
    let all = metadata["packages"].as_array().into_iter().flatten();
    let found = all.filter(|found| found["name"] == *package);
    let targets = found.flat_map(|found| found["targets"].as_array().into_iter().flatten());
    let tests = targets.filter(|target| target["kind"][0] == "test");
    let name = |test: &Value| Some((package.to_owned(), test["name"].as_str()?.to_owned()));
    tests.filter_map(name).collect()
}

/// The package's id, the name and the path of a test program that cargo says it has built.
fn executable(message: &Value) -> Option<(String, String, PathBuf)> {
    let is_test = message["target"]["kind"][0] == "test";
    let text = |value: &Value| value.as_str().map(String::from);
    let path = text(&message["executable"]).filter(|_| is_test)?;
    Some((text(&message["package_id"])?, text(&message["target"]["name"])?, path.into()))
}

/// Whether an id is that of a package: `path+file:///…/engines/redis#leasehold-redis@0.1.0`.
fn is_package(id: &str, name: &str) -> bool {
    let rest = id.split('#').nth(1).unwrap_or_default();
    rest.split('@').next() == Some(name)
}

fn directory(metadata: &Value, id: &str) -> PathBuf {
    let packages = metadata["packages"].as_array().into_iter().flatten();
    let found = packages.filter(|package| package["id"] == id);
    let manifest = found.filter_map(|package| package["manifest_path"].as_str()).next();
    let directory = manifest.and_then(|path| Path::new(path).parent());
    directory.map_or_else(run::root, PathBuf::from)
}

/// Runs programs, some at a time, and prints what each said when it is done.
fn run_programs(programs: Vec<Program>) -> Result<Vec<(String, Verdict)>, String> {
    let logs = run::target().join("engines");
    fs::create_dir_all(&logs).map_err(|error| format!("{}: {error}", logs.display()))?;
    let waiting = Mutex::new(programs.into_iter());
    let done = Mutex::new(Vec::new());
    let work = || {
        loop {
            // The lock is free again before the program starts.
            let next = waiting.lock().expect("nobody panics while holding it").next();
            let Some(program) = next else { return };
            let began = Instant::now();
            let (text, verdict) = run_program(&program, &logs);
            let took = began.elapsed().as_secs_f64();
            let mut done = done.lock().expect("nobody panics while holding it");
            // Under the lock: what two of them say must not be mixed.
            run::pass_on(&format!("─── {}, {took:.1} s\n{}", program.name, text.trim_end()));
            done.push((program.name, verdict));
        }
    };
    std::thread::scope(|scope| (0..AT_ONE_TIME).for_each(|_| drop(scope.spawn(work))));
    Ok(done.into_inner().expect("nobody panics while holding it"))
}

fn run_program(program: &Program, logs: &Path) -> (String, Verdict) {
    let log = logs.join(format!("{}.log", program.name.replace(' ', "-")));
    let run = || -> std::io::Result<(String, bool)> {
        let file = File::create(&log)?;
        let mut call = Command::new(&program.executable);
        call.args(&program.arguments).current_dir(&program.directory);
        let success = call.stdout(file.try_clone()?).stderr(file).status()?.success();
        Ok((String::from_utf8_lossy(&fs::read(&log)?).into_owned(), success))
    };
    match run() {
        Ok((text, success)) => {
            let mut heard = test::Heard::default();
            text.lines().for_each(|line| heard.line(line));
            if !program.counts && success {
                heard.counts.passed = 1;
            }
            (text, heard.judge(success))
        }
        Err(error) => {
            let why = format!("{}: {error}", program.executable.display());
            (why.clone(), Verdict::Failed(Counts::default(), why))
        }
    }
}

/// What those tests are among the workspace's targets, for the lints.
pub fn tests() -> impl Iterator<Item = String> {
    let engines = ENGINES.iter().map(|engine| format!("leasehold-{}", engine.name));
    let beside = BESIDE.iter().map(|(package, _, _)| String::from(*package));
    engines.chain(beside).flat_map(|package| ["-p".to_owned(), package])
}

/// The features without which some of them are not there.
pub fn features() -> impl Iterator<Item = String> {
    let features = ENGINES.iter().flat_map(|engine| engine.features);
    features.flat_map(|feature| ["--features".to_owned(), (*feature).to_owned()])
}

/// What the benchmark of engines has to be built with to have Kafka in it, once its server is
/// there; nothing when its arguments ask for another engine only.
pub fn benchmarked_kafka(arguments: &[String]) -> Result<Option<&'static str>, String> {
    let is_other = |name: &str| ENGINES.iter().any(|engine| engine.name == name && name != "kafka");
    let mut pairs = arguments.windows(2);
    if pairs.any(|pair| pair[0] == "--only" && is_other(&pair[1].to_lowercase())) {
        return Ok(None);
    }
    let (_, missing) = installed(|engine| engine.name == "kafka");
    if missing.is_empty() { Ok(Some(BENCHMARKED)) } else { Err(missing.join("; ")) }
}

/// `crash` and `soak`: long histories of every engine.
pub fn histories_step(kills: u64) -> Step {
    let work = move || {
        let (here, mut missing) = installed(|engine| engine.has_history);
        let programs = histories(&here, kills)?;
        Ok(sum(run_programs(programs)?, &mut missing))
    };
    step(format!("histories over engines, {kills} kills of each system"), work)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn test_programs_are_found_in_what_cargo_says() {
        let id = "path+file:///home/me/leasehold/engines/redis#leasehold-redis@0.1.0";
        let message = json!({
            "reason": "compiler-artifact",
            "package_id": id,
            "target": { "kind": ["test"], "name": "suite" },
            "executable": "/target/debug/deps/suite-1",
        });
        let (found, name, path) = executable(&message).expect("it is one");
        assert!(is_package(&found, "leasehold-redis") && !is_package(&found, "leasehold-red"));
        assert_eq!((name.as_str(), path), ("suite", PathBuf::from("/target/debug/deps/suite-1")));
        let mut library = message.clone();
        library["target"]["kind"] = json!(["lib"]);
        assert!(executable(&library).is_none());
    }

    #[test]
    fn every_engine_has_tests() {
        let metadata = run::metadata(&[]).expect("cargo answers");
        for engine in ENGINES {
            let package = format!("leasehold-{}", engine.name);
            let tests = tests_of(&metadata, &package);
            assert!(tests.iter().any(|(_, test)| test == "suite"), "{} has no suite", engine.name);
        }
    }
}
