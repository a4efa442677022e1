//! Names that say nothing. What is put under one of them belongs to whoever uses it most.

use super::Finding;
use serde_json::Value;

const EMPTY: &[&str] = &["common", "util", "utils", "helper", "helpers", "shared", "types"];

/// Finds an empty name among a file's directories and its own.
pub fn file(path: &str) -> Option<Finding> {
    let mut parts = path.split('/').map(|part| part.split('.').next().unwrap_or(part));
    parts.find(|part| EMPTY.contains(part)).map(|part| finding(path, part))
}

/// Finds crates with an empty name, alone or behind our prefix.
pub fn crates(metadata: &Value) -> Vec<Finding> {
    let packages = metadata["packages"].as_array().map_or(&[][..], Vec::as_slice);
    let names = packages.iter().filter_map(|package| package["name"].as_str());
    names
        .filter_map(|name| {
            let mut parts = name.split(['-', '_']);
            parts.find(|part| EMPTY.contains(part)).map(|part| finding(name, part))
        })
        .collect()
}

fn finding(place: &str, part: &str) -> Finding {
    Finding::new(place, 0, format!("`{part}` says nothing; name it after its main noun"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn empty_file_names_are_found() {
        assert!(file("core/src/utils.rs").is_some());
        assert!(file("core/src/common/lease.rs").is_some());
        assert!(file("core/src/lease.rs").is_none());
        assert!(file("core/src/prototypes.rs").is_none());
    }

    #[test]
    fn empty_crate_names_are_found() {
        let metadata = json!({"packages": [{"name": "leasehold-types"}, {"name": "xtask"}]});
        assert_eq!(crates(&metadata).len(), 1);
    }
}
