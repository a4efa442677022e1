//! `leasehold doctor`: an engine's promises, proved.

mod support;

use support::{done, refused};

fn directory() -> tempfile::TempDir {
    tempfile::tempdir().expect("a directory")
}

fn doctor(directory: &std::path::Path, url: &str) -> serde_json::Value {
    let text = done(directory, &["--json", "doctor", url]);
    serde_json::from_str(&text).expect("it prints JSON")
}

fn count(found: &serde_json::Value, verdict: &str) -> usize {
    let proofs = found["proofs"].as_array().expect("there are some");
    proofs.iter().filter(|proof| proof["verdict"] == verdict).count()
}

#[test]
fn an_embedded_engine_keeps_everything_and_is_left_clean() {
    let here = directory();
    let found = doctor(here.path(), "./data");
    assert_eq!((&found["failed"], &found["label"]), (&0.into(), &"fenced".into()), "{found}");
    assert_eq!(found["guarantees"]["queues"], "Leased");
    assert!(count(&found, "ok") > 30 && count(&found, "refused") == 0, "{found}");
    let queues = done(here.path(), &["--on", "./data", "--json", "queue", "ls"]);
    assert_eq!(queues.trim(), "[]");
}

#[test]
fn what_an_engine_has_not_is_refused() {
    let here = directory();
    let found = doctor(here.path(), &format!("file://{}/locks", here.path().display()));
    assert_eq!((&found["failed"], &found["has"]), (&0.into(), &"locks".into()), "{found}");
    assert!(count(&found, "refused") > 10, "{found}");
}

#[test]
fn people_get_tables() {
    let here = directory();
    let text = done(here.path(), &["doctor", "mem:"]);
    for part in ["PROOF", "one holder at a time", "GUARANTEE", "fenced", "nothing failed"] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn an_engine_that_is_not_there_is_told() {
    let text = refused(directory().path(), &["doctor", "http://127.0.0.1:1"], 1);
    assert!(text.contains("127.0.0.1:1"), "{text}");
}
