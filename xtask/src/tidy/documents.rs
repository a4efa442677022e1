//! Documents name files; a file that moves must not leave a stale name behind.
//!
//! A reference is a path in backticks that begins with one of our directories. Fenced blocks are
//! pictures and transcripts, and are not read. The changelog is history: it may name what is gone.

use super::Finding;

/// Endings that make a word in backticks look like a file.
const ENDINGS: &[&str] = &["rs", "md", "toml", "lock", "txt", "sh", "json", "yml", "yaml", "html"];

/// Whether the file is a document of ours: Markdown at the root or below `docs/`.
pub fn is_document(path: &str) -> bool {
    path.ends_with(".md")
        && path != "CHANGELOG.md"
        && (path.starts_with("docs/") || !path.contains('/'))
}

/// Finds references to files that do not exist.
pub fn references(path: &str, text: &str, exists: &dyn Fn(&str) -> bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut fenced = false;
    for (index, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
            continue;
        }
        if fenced {
            continue;
        }
        for word in line.split('`').skip(1).step_by(2) {
            if let Some(reference) = reference(word, exists)
                && !exists(reference)
            {
                let message = format!("names `{reference}`, which does not exist");
                findings.push(Finding::new(path, index + 1, message));
            }
        }
    }
    findings
}

/// The path in a word that looks like one of ours, without a line number or a heading.
fn reference<'a>(word: &'a str, exists: &dyn Fn(&str) -> bool) -> Option<&'a str> {
    let word = word.split(['#', ':']).next()?;
    let plain = |c: char| c.is_alphanumeric() || matches!(c, '/' | '.' | '_' | '-');
    let (first, rest) = word.split_once('/')?;
    let (_, ending) = rest.rsplit_once('.').unwrap_or(("", ""));
    let is_file = ENDINGS.contains(&ending) || rest.is_empty() || rest.ends_with('/');
    let ours = first.starts_with(|c: char| c.is_alphanumeric() || c == '.') && exists(first);
    (word.chars().all(plain) && is_file && ours && !word.contains("..")).then_some(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(text: &str) -> usize {
        let exists = |path: &str| ["core", "core/src", "core/src/lease.rs"].contains(&path);
        references("docs/a.md", text, &exists).len()
    }

    #[test]
    fn stale_references_are_found() {
        assert_eq!(count("See `core/src/lease.rs` and `core/src/gone.rs`."), 1);
        assert_eq!(count("See `core/src/gone.rs:12`."), 1);
        assert_eq!(count("See `core/gone/`."), 1);
    }

    #[test]
    fn other_words_are_not_references() {
        assert_eq!(count("`core/src/*.rs` `a/b` `src/tidy.zig` `core/stream` `x.rs` core/x.rs"), 0);
        assert_eq!(count("```\n`core/src/gone.rs`\n```\n"), 0);
    }

    #[test]
    fn documents_are_markdown_of_ours() {
        assert!(is_document("ARCHITECTURE.md") && is_document("docs/design/journal.md"));
        assert!(!is_document("CHANGELOG.md") && !is_document("core/notes.md"));
    }
}
