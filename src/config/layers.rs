//! The file and the variables laid over each other: a tree in which every value knows where it is from.

use std::collections::{BTreeMap, btree_map::Entry};

use toml::de::{DeTable, DeValue};

use super::Environment;

/// Where a value is from, for messages.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Origin {
    /// A line of the file, from 1.
    Line(usize),
    /// An environment variable.
    Variable(String),
    /// Our own defaults.
    BuiltIn,
}

/// A value as it was written.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Raw {
    Text(String),
    Integer(i64),
    Boolean(bool),
    List(Vec<Raw>),
    Table(Table),
    /// Something no setting is: a float, a date.
    Other(&'static str),
}

/// A value and where it is from.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Node {
    pub(super) raw: Raw,
    pub(super) origin: Origin,
}

pub(super) type Table = BTreeMap<String, Node>;

/// A problem before the reader knows the file's name.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct LayerProblem {
    pub(super) origin: Origin,
    pub(super) key: String,
    pub(super) message: String,
}

const PREFIX: &str = "EASEL__";

/// Parses the file.
pub(super) fn read_file(text: &str) -> Result<Table, LayerProblem> {
    let document = DeTable::parse(text).map_err(|error| LayerProblem {
        origin: Origin::Line(error.span().map_or(1, |span| line_of(text, span.start))),
        key: String::new(),
        message: format!("not TOML: {}", error.message()),
    })?;
    Ok(table(text, document.get_ref()))
}

/// Lays `EASEL__SECTION__KEY` variables over the file's values. Names are taken in lower case; in a
/// provider's name `_` stands for a `-` too, which no variable can contain.
pub(super) fn override_with(table: &mut Table, environment: &Environment) -> Vec<LayerProblem> {
    let mut problems = Vec::new();
    for (variable, value) in environment.iter() {
        let Some(path) = variable.strip_prefix(PREFIX) else {
            continue;
        };
        let path = path.to_lowercase();
        let path: Vec<&str> = path.split("__").collect();
        if path.iter().any(|part| part.is_empty()) {
            problems.push(LayerProblem {
                origin: Origin::Variable(variable.to_owned()),
                key: String::new(),
                message: "names no key: write EASEL__SECTION__KEY or EASEL__KEY".to_owned(),
            });
            continue;
        }
        let node = Node {
            raw: Raw::Text(value.to_owned()),
            origin: Origin::Variable(variable.to_owned()),
        };
        insert(table, &path, node);
    }
    problems
}

/// The list in a variable's text: TOML when it begins like one, otherwise separated by commas.
pub(super) fn list_of(text: &str) -> Option<Vec<Raw>> {
    if text.trim_start().starts_with('[') {
        let parsed = DeValue::parse(text).ok()?;
        return match raw(text, parsed.get_ref()) {
            Raw::List(items) => Some(items),
            _ => None,
        };
    }
    let items = text.split(',').map(str::trim);
    let items = items.filter(|item| !item.is_empty());
    Some(items.map(|item| Raw::Text(item.to_owned())).collect())
}

fn insert(table: &mut Table, path: &[&str], node: Node) {
    let Some((first, rest)) = path.split_first() else {
        return;
    };
    let spelled = table
        .keys()
        .find(|key| key.replace('-', "_") == **first)
        .cloned();
    let key = spelled.unwrap_or_else(|| (*first).to_owned());
    if rest.is_empty() {
        table.insert(key, node);
        return;
    }
    let child = match table.entry(key) {
        Entry::Occupied(entry) => entry.into_mut(),
        Entry::Vacant(entry) => entry.insert(Node {
            raw: Raw::Table(Table::new()),
            origin: node.origin.clone(),
        }),
    };
    // A value where a section belongs is reported when the section is read.
    if let Raw::Table(table) = &mut child.raw {
        insert(table, rest, node);
    }
}

fn table(text: &str, parsed: &DeTable<'_>) -> Table {
    parsed
        .iter()
        .map(|(key, value)| {
            let node = Node {
                raw: raw(text, value.get_ref()),
                origin: Origin::Line(line_of(text, key.span().start)),
            };
            (key.get_ref().to_string(), node)
        })
        .collect()
}

fn raw(text: &str, value: &DeValue<'_>) -> Raw {
    match value {
        DeValue::String(value) => Raw::Text(value.to_string()),
        DeValue::Integer(value) => i64::from_str_radix(value.as_str(), value.radix())
            .map_or(Raw::Other("a number beyond all limits"), Raw::Integer),
        DeValue::Float(_) => Raw::Other("a number with a point"),
        DeValue::Boolean(value) => Raw::Boolean(*value),
        DeValue::Datetime(_) => Raw::Other("a date"),
        DeValue::Array(items) => {
            Raw::List(items.iter().map(|item| raw(text, item.get_ref())).collect())
        }
        DeValue::Table(parsed) => Raw::Table(table(text, parsed)),
    }
}

fn line_of(text: &str, offset: usize) -> usize {
    let before = text.as_bytes().iter().take(offset);
    before.filter(|byte| **byte == b'\n').count() + 1
}
