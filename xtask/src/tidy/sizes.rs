//! Lines, functions and files that have grown too long to read at once.
//!
//! Files and functions are measured without their tests: a rule with many cases should have many
//! tests, and must not be split for having them.

use super::Finding;
use super::source::{Kind, Source, close, is_word};

const LINE_COLUMNS_MAX: usize = 100;
const FUNCTION_LINES_MAX: usize = 70;
const CORE_FILE_LINES_MAX: usize = 450;
const FILE_LINES_MAX: usize = 900;
/// The comment that allows a longer function, followed by its reason.
const LONG: &str = "// long:";

/// Finds lines that are too wide, except where a string crosses the margin.
pub fn lines(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut start = 0;
    for (index, line) in source.text.split('\n').enumerate() {
        let columns = line.trim_end_matches('\r').chars().count();
        if columns > LINE_COLUMNS_MAX {
            // From the last allowed column on: `",` may stand beyond a string that just fits.
            let margin = start + LINE_COLUMNS_MAX - 1..start + columns;
            if !source.kinds[margin].contains(&Kind::Literal) {
                let message = format!("{columns} columns; at most {LINE_COLUMNS_MAX}");
                findings.push(Finding::new(&source.path, index + 1, message));
            }
        }
        start += line.chars().count() + 1;
    }
    findings
}

/// Finds production files with too many lines.
pub fn file(source: &Source) -> Option<Finding> {
    let max = match source.path.starts_with("core/src/") {
        true => CORE_FILE_LINES_MAX,
        false => FILE_LINES_MAX,
    };
    let lines = source.production_lines();
    let message = format!("{lines} lines without tests; at most {max}: split it by noun");
    (source.is_production() && lines > max).then(|| Finding::new(&source.path, 0, message))
}

/// Finds production functions with too many lines and no reason given above them.
pub fn functions(source: &Source) -> Vec<Finding> {
    if !source.is_production() {
        return Vec::new();
    }
    let text: Vec<&str> = source.text.lines().collect();
    let mut findings = Vec::new();
    let mut line = 0;
    for (place, &c) in source.code.iter().enumerate() {
        line += usize::from(c == '\n');
        let Some((name, open)) = function(&source.code, place) else { continue };
        let end = close(&source.code, open);
        let lines = 1 + source.code[place..end].iter().filter(|&&c| c == '\n').count();
        if lines > FUNCTION_LINES_MAX && !source.test[line] && !has_reason(&text[..line]) {
            let message = format!(
                "`{name}` has {lines} lines; at most {FUNCTION_LINES_MAX}: split it, or write \
                 `{LONG} <reason>` above it"
            );
            findings.push(Finding::new(&source.path, line + 1, message));
        }
    }
    findings
}

/// If a function with a body begins here: its name and the place of its opening brace.
fn function(code: &[char], place: usize) -> Option<(String, usize)> {
    if !code[place..].starts_with(&['f', 'n', ' ']) || (place > 0 && is_word(code[place - 1])) {
        return None;
    }
    let name: String = code[place + 3..].iter().copied().take_while(|&c| is_word(c)).collect();
    let mut at = place + 3;
    while at < code.len() && !name.is_empty() {
        match code[at] {
            '{' => return Some((name, at)),
            ';' => return None,
            '(' | '[' => at = close(code, at),
            _ => at += 1,
        }
    }
    None
}

/// Whether the comments and attributes directly above give a reason for the length.
fn has_reason(above: &[&str]) -> bool {
    let attached = above.iter().rev().map(|line| line.trim());
    attached
        .take_while(|line| line.starts_with("//") || line.starts_with("#["))
        .any(|line| line.strip_prefix(LONG).is_some_and(|reason| !reason.trim().is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn long_function(above: &str, lines: usize) -> String {
        format!("{above}\npub fn f(x: [u8; 2]) -> u8 {{{}}}\n", "\n".repeat(lines - 1))
    }

    fn count(path: &str, text: &str) -> usize {
        functions(&Source::new(path, text)).len()
    }

    #[test]
    fn wide_lines_are_found() {
        let fits = format!("// {}\n", "a".repeat(97));
        assert_eq!(lines(&Source::new("bench/src/a.rs", &fits)).len(), 0);
        let wide = format!("fn a() {{}}\n// {}\n", "ä".repeat(98));
        let findings = lines(&Source::new("bench/src/a.rs", &wide));
        assert_eq!(findings.iter().map(|finding| finding.line).collect::<Vec<_>>(), [2]);
    }

    #[test]
    fn string_tables_may_be_wide() {
        let table = format!("const A: &[&str] = &[\n    \"{}\",\n];\n", "a".repeat(120));
        assert_eq!(lines(&Source::new("bench/src/a.rs", &table)).len(), 0);
    }

    #[test]
    fn long_files_are_found() {
        let core = "fn a() {}\n".repeat(CORE_FILE_LINES_MAX);
        assert!(file(&Source::new("core/src/a.rs", &core)).is_none());
        let longer = format!("{core}fn b() {{}}\n");
        assert!(file(&Source::new("core/src/a.rs", &longer)).is_some());
        assert!(file(&Source::new("node/src/a.rs", &longer)).is_none());
        let longest = "fn a() {}\n".repeat(FILE_LINES_MAX + 1);
        assert!(file(&Source::new("node/src/a.rs", &longest)).is_some());
        assert!(file(&Source::new("node/tests/a.rs", &longest)).is_none());
    }

    #[test]
    fn tests_do_not_count_towards_a_files_length() {
        let tests = "\n".repeat(CORE_FILE_LINES_MAX);
        let text = format!("fn a() {{}}\n#[cfg(test)]\nmod tests {{{tests}}}\n");
        assert!(file(&Source::new("core/src/a.rs", &text)).is_none());
    }

    #[test]
    fn long_functions_are_found() {
        assert_eq!(count("node/src/a.rs", &long_function("", 70)), 0);
        assert_eq!(count("node/src/a.rs", &long_function("", 71)), 1);
        assert_eq!(count("node/src/a.rs", &long_function("#[cfg(test)]", 71)), 0);
        assert_eq!(count("node/tests/a.rs", &long_function("", 71)), 0);
    }

    #[test]
    fn a_long_function_needs_a_reason() {
        assert_eq!(count("node/src/a.rs", &long_function("// long: a codec table", 71)), 0);
        assert_eq!(count("node/src/a.rs", &long_function("// long:", 71)), 1);
        assert_eq!(count("node/src/a.rs", &long_function("// long: no\n\n", 71)), 1);
    }
}
