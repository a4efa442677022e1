//! What commands print: tables for people, JSON for programs, and progress on a terminal.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use anyhow::{Context, Result};
use comfy_table::{ContentArrangement, Table, TableStyle};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;

/// What is said of a failed write to stdout; a closed pipe there is no failure.
pub const STDOUT: &str = "write to stdout";

/// Prints a line, or whatever there is, on stdout.
pub fn line(text: &str) -> Result<()> {
    raw(format!("{text}\n").as_bytes())
}

/// Writes bytes to stdout as they are.
pub fn raw(bytes: &[u8]) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).context(STDOUT)
}

/// Prints a value as JSON, or as text when JSON is not wanted.
pub fn either(json: bool, value: &Value, text: impl FnOnce() -> String) -> Result<()> {
    if json { line(&value.to_string()) } else { line(&text()) }
}

/// A table without lines between, as `ps` and `docker ps` have it.
pub fn table<const N: usize>(
    head: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
) -> String {
    let mut table = Table::new();
    table.load_style(TableStyle::new()).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(head);
    for row in rows {
        table.add_row(row);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

/// Names with values below each other.
pub fn facts(rows: &[(&str, String)]) -> String {
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let line = |(name, value): &(&str, String)| format!("{name:width$}  {value}");
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// A bar on stderr, hidden when that is no terminal. `None` as the length: a spinner.
pub fn progress(length: Option<u64>, what: &'static str) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = match length {
        Some(length) => ProgressBar::new(length).with_style(
            ProgressStyle::with_template("{msg} {wide_bar} {human_pos}/{human_len} {eta}")
                .expect("the template is right"),
        ),
        None => ProgressBar::new_spinner().with_style(
            ProgressStyle::with_template("{spinner} {msg} {human_pos}")
                .expect("the template is right"),
        ),
    };
    bar.enable_steady_tick(Duration::from_millis(100));
    bar.with_message(what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_and_facts_line_up() {
        let rows = [["a".to_owned(), "1".to_owned()], ["long".to_owned(), "22".to_owned()]];
        assert_eq!(table(["NAME", "N"], rows), "NAME  N\na     1\nlong  22");
        let rows = [("a", "1".to_owned()), ("long", "2".to_owned())];
        assert_eq!(facts(&rows), "a     1\nlong  2");
    }
}
