//! What commands print: tables for people, JSON for programs, errors once.

use std::io::{self, Write};

use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

/// Prints a line to stdout, at once, also into a pipe.
pub(super) fn line(text: impl AsRef<str>) {
    let mut stdout = io::stdout().lock();
    // Whoever closed the pipe has read enough.
    let text = obeyed_by_none(text.as_ref());
    writeln!(stdout, "{text}")
        .and_then(|()| stdout.flush())
        .ok();
}

/// Lines without what a terminal would obey: names in them were chosen by others.
fn obeyed_by_none(text: &str) -> String {
    let is_command = |character: char| character.is_control() && !matches!(character, '\n' | '\t');
    text.replace(is_command, "\u{FFFD}")
}

/// Prints text that ends its own lines.
pub(super) fn text(text: &str) {
    let mut stdout = io::stdout().lock();
    write!(stdout, "{text}").and_then(|()| stdout.flush()).ok();
}

/// Basis points as people say them.
pub(super) fn percent(basis_points: u32) -> String {
    format!("{}.{:02} %", basis_points / 100, basis_points % 100)
}

/// Prints `value` as one JSON document.
pub(super) fn json(value: &impl Serialize) -> anyhow::Result<()> {
    line(serde_json::to_string_pretty(value)?);
    Ok(())
}

/// Prints rows under their titles; nothing but the titles when there are none.
pub(super) fn table<Row>(titles: &[&str], rows: impl IntoIterator<Item = Row>)
where
    Row: IntoIterator<Item = String>,
{
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(titles);
    for row in rows {
        table.add_row(row.into_iter().map(printable));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    line(table.trim_fmt());
}

/// Text that others have chosen, without what a terminal would obey or a line would break at.
fn printable(mut text: String) -> String {
    if text.contains(char::is_control) {
        text = text.replace(char::is_control, "\u{FFFD}");
    }
    text
}

/// Prints a warning to stderr.
pub(super) fn warning(text: impl AsRef<str>) {
    writeln!(io::stderr().lock(), "warning: {}", text.as_ref()).ok();
}

/// Prints an error with its causes to stderr.
pub(super) fn error(error: &anyhow::Error) {
    writeln!(io::stderr().lock(), "error: {}", chain(error)).ok();
}

/// The error and its causes; a cause that the error before it has already told is left out.
fn chain(error: &anyhow::Error) -> String {
    let mut told = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        if told.is_empty() {
            told = cause;
        } else if !told.ends_with(&cause) {
            told.push_str(": ");
            told.push_str(&cause);
        }
    }
    told
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[test]
    fn cells_command_no_terminal() {
        let name = "a\u{1b}[2J\x07\r\nb\u{9b}c".to_owned();
        assert_eq!(
            printable(name),
            "a\u{FFFD}[2J\u{FFFD}\u{FFFD}\u{FFFD}b\u{FFFD}c"
        );
        assert_eq!(printable("Ünïcode ✓".to_owned()), "Ünïcode ✓");
    }

    #[test]
    fn a_cause_is_told_once() {
        let cause = anyhow!("connection refused");
        let error = cause
            .context("talking: connection refused")
            .context("no database");
        assert_eq!(chain(&error), "no database: talking: connection refused");
        assert_eq!(chain(&anyhow!("alone")), "alone");
    }
}
