//! A Rust file as the rules see it: its code with comments and literals blanked, and which of its
//! lines are tests.
//!
//! The masking keeps every character's place, so a finding in the code has the line of the text.

/// What a character of a file belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Code,
    Comment,
    /// A string or character literal, with its quotes.
    Literal,
}

/// One file, ready for the rules.
pub struct Source {
    /// From the repository's root, with `/`.
    pub path: String,
    pub text: String,
    /// The text with comments and literals replaced by spaces; line breaks stay.
    pub code: Vec<char>,
    /// What each character of the text is.
    pub kinds: Vec<Kind>,
    /// For each line, whether it is part of a test.
    pub test: Vec<bool>,
}

impl Source {
    pub fn new(path: &str, text: &str) -> Source {
        let characters: Vec<char> = text.chars().collect();
        let kinds = classify(&characters);
        let code: Vec<char> = characters
            .iter()
            .zip(&kinds)
            .map(|(&c, &kind)| if kind == Kind::Code || c == '\n' { c } else { ' ' })
            .collect();
        let test = test_lines(&code, text.lines().count(), is_test_path(path));
        Source { path: path.to_string(), text: text.to_string(), code, kinds, test }
    }

    /// The lines of masked code, each with its number from 1 and whether it is part of a test.
    pub fn code_lines(&self) -> impl Iterator<Item = (usize, String, bool)> + '_ {
        let lines = self.code.split(|&c| c == '\n').zip(&self.test).enumerate();
        lines.map(|(index, (line, &test))| (index + 1, line.iter().collect(), test))
    }

    /// Lines of the file that are not part of a test.
    pub fn production_lines(&self) -> usize {
        self.test.iter().filter(|&&test| !test).count()
    }

    /// Whether this is shipped or shared code: below a crate's `src/`.
    pub fn is_production(&self) -> bool {
        self.path.split('/').nth(1) == Some("src")
    }

    /// Names of modules that are declared for tests only and live in their own file.
    fn test_modules(&self) -> Vec<String> {
        let mut names = Vec::new();
        for (_, line, test) in self.code_lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            if let [.., "mod", name] = words[..]
                && test
                && let Some(name) = name.strip_suffix(';')
            {
                names.push(name.to_string());
            }
        }
        names
    }
}

/// Marks as tests the files behind `#[cfg(test)] mod name;`, with everything below them.
pub fn mark_test_files(sources: &mut [Source]) {
    let mut modules = Vec::new();
    for source in sources.iter() {
        let stem = source.path.strip_suffix(".rs").unwrap_or(&source.path);
        let (above, name) = stem.rsplit_once('/').unwrap_or(("", stem));
        let place = if matches!(name, "lib" | "main" | "mod") { above } else { stem };
        modules.extend(source.test_modules().iter().map(|name| format!("{place}/{name}")));
    }
    for source in sources {
        let inside = |module: &String| {
            let rest = source.path.strip_prefix(module.as_str());
            rest.is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
        };
        if modules.iter().any(inside) {
            source.test.fill(true);
        }
    }
}

fn is_test_path(path: &str) -> bool {
    path.split('/').nth(1) == Some("tests") || path.ends_with("/tests.rs")
}

/// Whether the character can be part of a name.
pub fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn classify(text: &[char]) -> Vec<Kind> {
    let mut kinds = vec![Kind::Code; text.len()];
    let mut at = 0;
    while at < text.len() {
        let (end, kind) = token(text, at);
        kinds[at..end].fill(kind);
        at = end;
    }
    kinds
}

/// The end of the piece that begins here, and what it is. Code comes in pieces of one character.
fn token(text: &[char], at: usize) -> (usize, Kind) {
    let next = text.get(at + 1).copied();
    match text[at] {
        '/' if next == Some('/') => (find(text, at, '\n'), Kind::Comment),
        '/' if next == Some('*') => (block_comment(text, at), Kind::Comment),
        '"' => (quoted(text, at + 1, '"'), Kind::Literal),
        'r' if !in_word(text, at) => match raw_string(text, at) {
            Some(end) => (end, Kind::Literal),
            None => (at + 1, Kind::Code),
        },
        '\'' if next == Some('\\') => (quoted(text, at + 1, '\''), Kind::Literal),
        // Otherwise a lifetime: it has no closing quote two characters on.
        '\'' if text.get(at + 2) == Some(&'\'') => (at + 3, Kind::Literal),
        _ => (at + 1, Kind::Code),
    }
}

/// Whether the `r` at this place ends or continues a name. `br` and `cr` begin literals, too.
fn in_word(text: &[char], at: usize) -> bool {
    let before = |back: usize| at.checked_sub(back).and_then(|place| text.get(place)).copied();
    match before(1) {
        Some('b' | 'c') => before(2).is_some_and(is_word),
        Some(c) => is_word(c),
        None => false,
    }
}

fn find(text: &[char], from: usize, wanted: char) -> usize {
    text[from..].iter().position(|&c| c == wanted).map_or(text.len(), |found| from + found)
}

fn block_comment(text: &[char], start: usize) -> usize {
    let mut depth = 0_usize;
    let mut at = start;
    while at < text.len() {
        match (text[at], text.get(at + 1)) {
            ('/', Some('*')) => (depth, at) = (depth + 1, at + 2),
            ('*', Some('/')) => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    text.len()
}

fn quoted(text: &[char], mut at: usize, quote: char) -> usize {
    while at < text.len() {
        match text[at] {
            '\\' => at += 2,
            c if c == quote => return at + 1,
            _ => at += 1,
        }
    }
    text.len()
}

fn raw_string(text: &[char], start: usize) -> Option<usize> {
    let hashes = text[start + 1..].iter().take_while(|&&c| c == '#').count();
    let mut at = start + 1 + hashes;
    if text.get(at) != Some(&'"') {
        return None;
    }
    loop {
        at = find(text, at + 1, '"');
        let after = text.get(at + 1..).unwrap_or(&[]);
        if at >= text.len() || after.iter().take(hashes).filter(|&&c| c == '#').count() == hashes {
            return Some((at + 1 + hashes).min(text.len()));
        }
    }
}

fn test_lines(code: &[char], lines: usize, whole: bool) -> Vec<bool> {
    let mut test = vec![whole; lines];
    let mut at = 0;
    let mut line = 0;
    while at < code.len() {
        if code[at] == '#'
            && let Some((end, content, inner)) = attribute(code, at)
            && is_test_attribute(&content)
        {
            if inner {
                test.fill(true);
                return test;
            }
            let end = item_end(code, end);
            let last = line + newlines(&code[at..end]);
            let last = last.min(lines.saturating_sub(1));
            test[line..=last].fill(true);
            line += newlines(&code[at..end]);
            at = end;
        } else {
            line += usize::from(code[at] == '\n');
            at += 1;
        }
    }
    test
}

fn newlines(code: &[char]) -> usize {
    code.iter().filter(|&&c| c == '\n').count()
}

/// Reads `#[…]` or `#![…]`: its end, its content without spaces, whether it is an inner one.
fn attribute(code: &[char], start: usize) -> Option<(usize, String, bool)> {
    let inner = code.get(start + 1) == Some(&'!');
    let open = start + 1 + usize::from(inner);
    if code.get(open) != Some(&'[') {
        return None;
    }
    let end = close(code, open);
    let content = code[open + 1..end.saturating_sub(1)].iter();
    Some((end, content.filter(|c| !c.is_whitespace()).collect(), inner))
}

fn is_test_attribute(content: &str) -> bool {
    matches!(content, "test" | "cfg(test)" | "cfg(all(test))")
        || content.starts_with("cfg(all(test,")
}

/// The place behind the bracket that closes the one at `open`.
pub fn close(code: &[char], open: usize) -> usize {
    let mut depth = 0_usize;
    for (offset, c) in code[open..].iter().enumerate() {
        match c {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 {
            return open + offset + 1;
        }
    }
    code.len()
}

/// The end of the item that begins here: its `;`, or the brace that closes its body.
pub fn item_end(code: &[char], start: usize) -> usize {
    let mut at = start;
    while at < code.len() {
        match code[at] {
            ';' => return at + 1,
            '{' => return close(code, at),
            // The end of what surrounds it: a field or a variant.
            '}' => return at,
            '(' | '[' => at = close(code, at),
            _ => at += 1,
        }
    }
    code.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(text: &str) -> String {
        Source::new("core/src/a.rs", text).code.iter().collect()
    }

    #[test]
    fn comments_are_blanked() {
        assert_eq!(code("a // b\nc"), "a     \nc");
        assert_eq!(code("a /* b /* c */ d */ e"), "a                   e");
    }

    #[test]
    fn literals_are_blanked() {
        assert_eq!(code(r#"f("a\"b", c)"#), "f(      , c)");
        assert_eq!(code("f(r#\"a\"b\"#, c)"), "f(        , c)");
        assert_eq!(code("f(br\"\\\", c)"), "f(b    , c)");
        assert_eq!(code(r"f('\'', '{', b'}')"), "f(    ,    , b   )");
    }

    #[test]
    fn lifetimes_and_raw_names_are_code() {
        assert_eq!(code("fn f<'a>(x: &'a r#type)"), "fn f<'a>(x: &'a r#type)");
        assert_eq!(code("bar\"x\""), "bar   ");
    }

    #[test]
    fn test_items_are_marked() {
        let text = "fn a() {}\n#[cfg(test)]\nmod tests {\n  fn b() {}\n}\nfn c() {}\n";
        let expected = vec![false, true, true, true, true, false];
        assert_eq!(Source::new("core/src/a.rs", text).test, expected);
    }

    #[test]
    fn a_test_attribute_marks_its_own_item_only() {
        let text = "#[cfg(test)]\nuse a::{b, c};\nfn d() {}\n#[test]\nfn e() {\n}\nfn f() {}";
        let expected = vec![true, true, false, true, true, true, false];
        assert_eq!(Source::new("core/src/a.rs", text).test, expected);
    }

    #[test]
    fn code_for_tests_or_something_else_is_production() {
        let text = "#[cfg(any(test, fuzzing))]\nfn a() {}\n#[cfg(not(test))]\nfn b() {}";
        assert_eq!(Source::new("core/src/a.rs", text).test, vec![false; 4]);
    }

    #[test]
    fn files_of_test_modules_are_tests() {
        let mut sources = vec![
            Source::new("core/src/lib.rs", "#[cfg(test)]\nmod laws;\nmod lock;\n"),
            Source::new("core/src/laws.rs", "fn a() {}\n"),
            Source::new("core/src/laws/deep.rs", "fn a() {}\n"),
            Source::new("core/src/lock.rs", "fn a() {}\n"),
        ];
        mark_test_files(&mut sources);
        let whole: Vec<bool> = sources.iter().map(|source| !source.test.contains(&false)).collect();
        assert_eq!(whole, [false, true, true, false]);
    }
}
