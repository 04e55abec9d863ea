//! `${NAME}` and `${file:PATH}` inside a value.

use std::path::PathBuf;

use super::Environment;

/// A value after expansion.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Expanded {
    pub(super) text: String,
    /// What was put in: `OPENAI_API_KEY`, `the file /run/secrets/key`.
    pub(super) sources: Vec<String>,
}

/// Why a value could not be expanded. None of these repeats what was read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ExpandError {
    #[error("{0} is not set")]
    Unset(String),
    #[error("the file {path} cannot be read: {reason}")]
    Unreadable { path: String, reason: String },
    #[error(
        "'${{' without a name and '}}': write ${{NAME}}, ${{file:PATH}}, or $${{ for a plain ${{"
    )]
    Malformed,
}

/// Replaces `${NAME}` by a variable, `${file:PATH}` by the text of a file without the line end at its
/// end, and `$${` by `${`.
pub(super) fn expand(text: &str, environment: &Environment) -> Result<Expanded, ExpandError> {
    let mut expanded = String::with_capacity(text.len());
    let mut sources = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let (before, after) = rest.split_at(at);
        let after = &after["${".len()..];
        if let Some(before) = before.strip_suffix('$') {
            expanded.push_str(before);
            expanded.push_str("${");
            rest = after;
            continue;
        }
        let (name, after) = after.split_once('}').ok_or(ExpandError::Malformed)?;
        let (source, value) = look_up(name, environment)?;
        expanded.push_str(before);
        expanded.push_str(&value);
        sources.push(source);
        rest = after;
    }
    expanded.push_str(rest);
    Ok(Expanded {
        text: expanded,
        sources,
    })
}

/// The files that a value names, whether or not they are there.
pub(super) fn files_in(text: &str) -> impl Iterator<Item = PathBuf> {
    let mut rest = text;
    std::iter::from_fn(move || {
        loop {
            let at = rest.find("${")?;
            let (before, after) = rest.split_at(at);
            rest = &after["${".len()..];
            if before.ends_with('$') {
                continue;
            }
            let (name, after) = rest.split_once('}')?;
            rest = after;
            if let Some(path) = name.strip_prefix("file:") {
                return Some(PathBuf::from(path));
            }
        }
    })
}

fn look_up(name: &str, environment: &Environment) -> Result<(String, String), ExpandError> {
    if let Some(path) = name.strip_prefix("file:") {
        let text = std::fs::read_to_string(path).map_err(|error| ExpandError::Unreadable {
            path: path.to_owned(),
            reason: error.to_string(),
        })?;
        let text = text.strip_suffix('\n').unwrap_or(&text);
        let text = text.strip_suffix('\r').unwrap_or(text);
        return Ok((format!("the file {path}"), text.to_owned()));
    }
    let is_name = !name.is_empty()
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if !is_name {
        return Err(ExpandError::Malformed);
    }
    match environment.get(name) {
        Some(value) => Ok((name.to_owned(), value.to_owned())),
        None => Err(ExpandError::Unset(name.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_found_without_being_read() {
        for (text, expected) in [
            ("plain ${A} $${file:/no} ${file:", &[][..]),
            ("${file:/a}", &["/a"]),
            ("x${file:/a b}${A}${file:c}y", &["/a b", "c"]),
        ] {
            let found: Vec<_> = files_in(text).collect();
            let expected: Vec<_> = expected.iter().map(PathBuf::from).collect();
            assert_eq!(found, expected, "{text}");
        }
    }

    #[test]
    fn puts_in_variables_and_files() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("secret");
        std::fs::write(&file, "from a file\r\n").unwrap();
        let environment: Environment = [("A", "1"), ("B_2", "two"), ("EMPTY", "")]
            .into_iter()
            .collect();
        for (text, expected) in [
            ("plain $A {A} $", "plain $A {A} $"),
            ("${A}", "1"),
            ("<${A}-${B_2}>", "<1-two>"),
            ("[${EMPTY}]", "[]"),
            ("$${A}", "${A}"),
            ("$${A}${A}", "${A}1"),
            (&format!("${{file:{}}}!", file.display()), "from a file!"),
        ] {
            let expanded = expand(text, &environment).unwrap();
            assert_eq!(expanded.text, expected, "{text}");
        }
        for (text, expected) in [
            ("${C}", ExpandError::Unset("C".to_owned())),
            ("${}", ExpandError::Malformed),
            ("${A", ExpandError::Malformed),
            ("${A-B}", ExpandError::Malformed),
            (
                "${file:/nowhere/at all}",
                ExpandError::Unreadable {
                    path: "/nowhere/at all".to_owned(),
                    reason: "No such file or directory (os error 2)".to_owned(),
                },
            ),
        ] {
            assert_eq!(expand(text, &environment), Err(expected), "{text}");
        }
    }
}
