//! Words that code may not contain, each with what to write instead.

use super::Finding;
use super::source::{Source, is_word};

/// A word, the crates in whose production code it is banned, and its replacement.
struct Ban {
    word: &'static str,
    /// Directories of crates; empty means every Rust file, tests included.
    crates: &'static [&'static str],
    instead: &'static str,
}

const CORE: &[&str] = &["core"];
const MACHINE: &[&str] = &["journal", "node"];
const CORE_AND_MACHINE: &[&str] = &["core", "journal", "node"];
const LIBRARIES: &[&str] = &["core", "env", "journal", "node"];
const EVERYWHERE: &[&str] = &[];

#[rustfmt::skip]
const BANS: &[Ban] = &[
    Ban { word: "std::", crates: CORE, instead: "use core:: or alloc::; the core has no std" },
    Ban { word: "extern crate std", crates: CORE, instead: "use core:: or alloc::" },
    Ban { word: "HashMap", crates: CORE, instead: "use an ordered map: iteration must replay" },
    Ban { word: "SystemTime", crates: CORE, instead: "take the time as an argument" },
    Ban { word: "Instant::now", crates: CORE, instead: "take the time as an argument" },
    Ban { word: "SystemTime::now", crates: MACHINE, instead: "ask the Clock of leasehold-env" },
    Ban { word: "Instant::now", crates: MACHINE, instead: "ask the Clock of leasehold-env" },
    Ban { word: "std::fs", crates: MACHINE, instead: "go through the Disk of leasehold-env" },
    Ban { word: "thread::sleep", crates: MACHINE, instead: "wait on the inbox with a deadline" },
    Ban { word: "println!", crates: CORE_AND_MACHINE, instead: "return it as an outcome, an effect or a metric" },
    Ban { word: "unsafe", crates: CORE_AND_MACHINE, instead: "write it safely, or use a crate that proves it" },
    Ban { word: ".unwrap()", crates: LIBRARIES, instead: "handle it, or expect(\"the reason it cannot happen\")" },
    Ban { word: "todo!(", crates: EVERYWHERE, instead: "return a typed error, or leave it out" },
    Ban { word: "unimplemented!(", crates: EVERYWHERE, instead: "return a typed error, or leave it out" },
    Ban { word: "dbg!(", crates: EVERYWHERE, instead: "remove it before you hand the change in" },
];

/// Marks of unfinished work, in pieces so that this file does not contain them.
const UNFINISHED: &[&str] = &[concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];

/// Finds banned words in code; comments and literals may name them.
pub fn check(source: &Source) -> Vec<Finding> {
    let home = source.path.split('/').next().unwrap_or_default();
    let applies = |ban: &&Ban| {
        ban.crates.is_empty() || (ban.crates.contains(&home) && source.is_production())
    };
    let bans: Vec<&Ban> = BANS.iter().filter(applies).collect();
    let mut findings = Vec::new();
    for (line, code, test) in source.code_lines() {
        for ban in &bans {
            if (ban.crates.is_empty() || !test) && contains(&code, ban.word) {
                let message = format!("`{}` is banned here: {}", ban.word, ban.instead);
                findings.push(Finding::new(&source.path, line, message));
            }
        }
    }
    for ban in bans.iter().filter(|ban| ban.word == "std::fs") {
        for line in grouped_fs(source) {
            let message = format!("`std::{{fs}}` is banned here: {}", ban.instead);
            findings.push(Finding::new(&source.path, line, message));
        }
    }
    findings
}

/// Finds marks of unfinished work anywhere in a Rust file, comments and literals included.
pub fn unfinished(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (index, line) in source.text.lines().enumerate() {
        for word in UNFINISHED.iter().filter(|word| contains(line, word)) {
            let message = format!("`{word}` is not kept in the source: do it, or open an issue");
            findings.push(Finding::new(&source.path, index + 1, message));
        }
    }
    findings
}

/// The core's first file must switch std off; otherwise the ban on its name means little.
pub fn no_std(source: &Source) -> Vec<Finding> {
    let code: String = source.code.iter().filter(|c| !c.is_whitespace()).collect();
    if source.path != "core/src/lib.rs" || code.contains("#![no_std]") {
        return Vec::new();
    }
    vec![Finding::new(&source.path, 0, "must say `#![no_std]`")]
}

/// Lines on which `use std::{…}` brings in `fs`, which the plain word would miss.
fn grouped_fs(source: &Source) -> Vec<usize> {
    let code: String = source.code.iter().collect();
    let mut lines = Vec::new();
    for (start, opening) in code.match_indices("std::{") {
        let group = &code[start + opening.len()..];
        let mut depth = 0_usize;
        let mut first = true;
        for (place, c) in group.char_indices() {
            let begins = first && depth == 0 && is_word(c);
            let rest = &group[place..];
            if begins && rest.starts_with("fs") && !rest[2..].starts_with(is_word) {
                let line = code[..start].matches('\n').count();
                if !source.test[line] {
                    lines.push(line + 1);
                }
            }
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                _ => {}
            }
            first = c == ',' || (first && c.is_whitespace());
        }
    }
    lines
}

/// Whether the word stands in the line on its own, not as a part of a longer name.
fn contains(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(start, _)| {
        let before = line[..start].chars().next_back();
        let after = line[start + word.len()..].chars().next();
        let open = |outside: Option<char>, edge: Option<char>| {
            !(outside.is_some_and(is_word) && edge.is_some_and(is_word))
        };
        open(before, word.chars().next()) && open(after, word.chars().next_back())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(path: &str, text: &str) -> usize {
        check(&Source::new(path, text)).len()
    }

    #[test]
    fn each_ban_can_fail_and_names_its_replacement() {
        for ban in BANS {
            let home = ban.crates.first().unwrap_or(&"simulator");
            let text = format!("fn f() {{ {} }}", ban.word);
            let findings = check(&Source::new(&format!("{home}/src/a.rs"), &text));
            let named = findings.iter().any(|finding| finding.message.contains(ban.instead));
            assert!(named, "{} passes", ban.word);
        }
    }

    #[test]
    fn comments_literals_and_tests_may_name_banned_words() {
        assert_eq!(count("core/src/a.rs", "// std::fs is banned\nfn f() { g(\"unsafe\") }"), 0);
        assert_eq!(count("core/src/a.rs", "#[cfg(test)]\nmod tests { use std::fs; }"), 0);
        assert_eq!(count("core/tests/a.rs", "fn f() { a.unwrap() }"), 0);
    }

    #[test]
    fn longer_names_are_other_names() {
        assert_eq!(count("core/src/a.rs", "#![forbid(unsafe_code)] struct MyHashMapped;"), 0);
        assert_eq!(count("node/src/a.rs", "fn f() { eprintln!() }"), 0);
        assert_eq!(count("node/src/a.rs", "fn f() { a.unwrap_or(b) }"), 0);
    }

    #[test]
    fn bans_hold_only_where_they_are_meant() {
        assert_eq!(count("env/src/os.rs", "use std::fs; fn f() { Instant::now() }"), 0);
        assert_eq!(count("bench/src/lib.rs", "fn f() { a.unwrap() }"), 0);
        assert_eq!(count("bench/tests/a.rs", "#[test]\nfn f() { todo!() }"), 1);
    }

    #[test]
    fn std_fs_in_a_group_is_found() {
        assert_eq!(count("journal/src/a.rs", "use std::{\n    fs,\n    io,\n};"), 1);
        assert_eq!(count("journal/src/a.rs", "use std::{io::{self, Read}, fs::File};"), 1);
        assert_eq!(count("journal/src/a.rs", "use std::{io, fsync, fmt};"), 0);
    }

    #[test]
    fn unfinished_work_is_found_even_in_comments() {
        for word in UNFINISHED {
            let text = format!("// {word}: later\n");
            assert_eq!(unfinished(&Source::new("bench/tests/a.rs", &text)).len(), 1);
            let text = format!("// A{word}B is another word\n");
            assert_eq!(unfinished(&Source::new("bench/tests/a.rs", &text)).len(), 0);
        }
    }

    #[test]
    fn a_core_with_std_is_found() {
        let path = "core/src/lib.rs";
        assert_eq!(no_std(&Source::new(path, "//! #![no_std]\n")).len(), 1);
        assert_eq!(no_std(&Source::new(path, "//! Rules.\n#![no_std]\n")).len(), 0);
        assert_eq!(no_std(&Source::new("node/src/lib.rs", "")).len(), 0);
    }
}
