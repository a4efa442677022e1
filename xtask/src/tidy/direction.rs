//! Who may depend on whom. The arrows point to the core, which depends on nothing.
//!
//! Only normal dependencies count: what a test needs does not reach a user.

use super::Finding;
use serde_json::Value;

/// A crate and the names of its normal dependencies.
pub struct Crate {
    pub name: String,
    pub dependencies: Vec<String>,
}

/// What a crate may depend on.
enum May {
    /// Nothing at all, not even crates of others.
    Nothing,
    /// Of our crates only these; of others any.
    Ours(&'static [&'static str]),
    /// Anything: it is at the end of the arrows.
    Anything,
}

/// What engines are made of whose locks are lines of contenders.
const LINES: &[&str] = &["leasehold-api", "leasehold-contenders"];

const DIRECTION: &[(&str, May)] = &[
    ("leasehold-core", May::Nothing),
    ("leasehold-env", May::Ours(&[])),
    ("leasehold-journal", May::Ours(&["leasehold-env"])),
    ("leasehold-node", May::Ours(&["leasehold-core", "leasehold-env", "leasehold-journal"])),
    ("leasehold-api", May::Ours(&[])),
    ("leasehold-native", May::Ours(&["leasehold-api", "leasehold-core", "leasehold-node"])),
    ("leasehold-http", May::Ours(&["leasehold-api", "leasehold-wire"])),
    ("leasehold-contenders", May::Ours(&["leasehold-api"])),
    ("leasehold-files", May::Ours(LINES)),
    ("leasehold-redis", May::Ours(LINES)),
    ("leasehold-postgres", May::Ours(LINES)),
    ("leasehold-mysql", May::Ours(LINES)),
    ("leasehold-etcd", May::Ours(LINES)),
    ("leasehold-zookeeper", May::Ours(LINES)),
    ("leasehold-amqp", May::Ours(&["leasehold-api"])),
    ("leasehold-kafka", May::Ours(&["leasehold-api"])),
    ("leasehold-testbed", May::Ours(&[])),
    ("leasehold-wire", May::Ours(&["leasehold-api"])),
    ("leasehold-users", May::Ours(&["leasehold-api"])),
    // It knows engines by their traits alone, so it can stand in front of any.
    ("leasehold-http-door", May::Ours(&["leasehold-api", "leasehold-users", "leasehold-wire"])),
    // It lives on the shard's thread and speaks to the rules directly.
    ("leasehold-resp-door", May::Ours(&["leasehold-core", "leasehold-node", "leasehold-users"])),
    (
        "leasehold",
        May::Ours(&[
            "leasehold-amqp",
            "leasehold-api",
            "leasehold-etcd",
            "leasehold-files",
            "leasehold-http",
            "leasehold-kafka",
            "leasehold-mysql",
            "leasehold-native",
            "leasehold-node",
            "leasehold-postgres",
            "leasehold-redis",
            "leasehold-zookeeper",
        ]),
    ),
    ("leasehold-server", May::Anything),
    // The testbed starts the systems over which histories are judged.
    (
        "leasehold-conformance",
        May::Ours(&["leasehold", "leasehold-api", "leasehold-core", "leasehold-testbed"]),
    ),
    ("leasehold-examples", May::Ours(&["leasehold"])),
    (
        "leasehold-simulator",
        May::Ours(&["leasehold-core", "leasehold-env", "leasehold-journal", "leasehold-node"]),
    ),
    ("leasehold-bench", May::Anything),
    ("xtask", May::Ours(&[])),
];

/// Reads the workspace's crates from `cargo metadata`.
pub fn crates(metadata: &Value) -> Result<Vec<Crate>, String> {
    let packages = metadata["packages"].as_array().ok_or("cargo metadata lists no packages")?;
    let text = |value: &Value| value.as_str().map(String::from);
    Ok(packages
        .iter()
        .filter_map(|package| {
            let dependencies = package["dependencies"].as_array()?.iter();
            let normal = dependencies.filter(|dependency| dependency["kind"].is_null());
            let dependencies = normal.filter_map(|dependency| text(&dependency["name"])).collect();
            Some(Crate { name: text(&package["name"])?, dependencies })
        })
        .collect())
}

/// Finds arrows that point the wrong way, and crates for which no direction was decided.
pub fn check(crates: &[Crate]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for Crate { name, dependencies } in crates {
        let Some((_, may)) = DIRECTION.iter().find(|(known, _)| known == name) else {
            let message = "has no direction; add a row to `xtask/src/tidy/direction.rs`";
            findings.push(Finding::new(name, 0, message));
            continue;
        };
        for dependency in dependencies {
            let ours = crates.iter().any(|known| known.name == *dependency)
                || dependency.starts_with("leasehold");
            let message = match may {
                May::Nothing => format!("depends on {dependency}, but may depend on nothing"),
                May::Ours(allowed) if ours && !allowed.contains(&dependency.as_str()) => {
                    let allowed = match allowed.is_empty() {
                        true => String::from("none of our crates"),
                        false => allowed.join(", "),
                    };
                    format!("depends on {dependency}, but of our crates it may use {allowed}")
                }
                May::Ours(_) | May::Anything => continue,
            };
            findings.push(Finding::new(name, 0, message));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn one(name: &str, dependencies: &[&str]) -> usize {
        let dependencies = dependencies.iter().map(|name| name.to_string()).collect();
        check(&[Crate { name: name.to_string(), dependencies }]).len()
    }

    #[test]
    fn the_core_may_depend_on_nothing() {
        assert_eq!(one("leasehold-core", &[]), 0);
        assert_eq!(one("leasehold-core", &["crc-fast"]), 1);
    }

    #[test]
    fn arrows_against_the_direction_are_found() {
        assert_eq!(one("leasehold-journal", &["leasehold-env", "crc-fast"]), 0);
        assert_eq!(one("leasehold-journal", &["leasehold-core"]), 1);
        assert_eq!(one("leasehold-env", &["leasehold-journal"]), 1);
        assert_eq!(one("leasehold-node", &["leasehold-simulator"]), 1);
        assert_eq!(one("leasehold-simulator", &["leasehold-bench"]), 1);
        assert_eq!(one("xtask", &["leasehold-core"]), 1);
        assert_eq!(one("leasehold-bench", &["leasehold-simulator"]), 0);
    }

    #[test]
    fn a_crate_without_a_direction_is_found() {
        assert_eq!(one("leasehold-surprise", &[]), 1);
    }

    #[test]
    fn only_normal_dependencies_count() {
        let metadata = json!({"packages": [{"name": "leasehold-core", "dependencies": [
            {"name": "proptest", "kind": "dev"}, {"name": "libc", "kind": null}]}]});
        let crates = crates(&metadata).expect("the metadata lists packages");
        assert_eq!(crates[0].dependencies, ["libc"]);
    }
}
