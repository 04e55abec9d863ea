//! Takes typed values out of the layers, collects what is wrong, and knows at the end which keys exist.

use std::{
    cell::RefCell,
    path::{Path, PathBuf},
};

use secrecy::SecretString;

use super::{
    ConfigError, Environment, Problem,
    expand::{ExpandError, Expanded, expand, files_in},
    layers::{LayerProblem, Node, Origin, Raw, Table, list_of},
    setting::Setting,
};

/// The state of one reading.
pub(super) struct Reader<'e> {
    file: Option<PathBuf>,
    environment: &'e Environment,
    problems: RefCell<Vec<LayerProblem>>,
    /// Keys nobody asked for: their place, their section, their name.
    unknown: RefCell<Vec<(Origin, String, String)>>,
    known: RefCell<Vec<String>>,
    /// What values name as `${file:PATH}`.
    files: RefCell<Vec<PathBuf>>,
}

/// One table of the configuration, emptied key by key.
pub(super) struct Section<'r> {
    reader: &'r Reader<'r>,
    path: String,
    table: Table,
}

/// How alike two names must be for one to be proposed for the other (Jaro-Winkler, 1 is equal).
const ALIKE: f64 = 0.8;

impl<'e> Reader<'e> {
    pub(super) fn new(file: Option<&Path>, environment: &'e Environment) -> Self {
        Self {
            file: file.map(Path::to_owned),
            environment,
            problems: RefCell::default(),
            unknown: RefCell::default(),
            known: RefCell::default(),
            files: RefCell::default(),
        }
    }

    /// Reads the whole tree; what `read` did not ask for is unknown.
    pub(super) fn root<T>(&self, table: Table, read: impl FnOnce(&mut Section<'_>) -> T) -> T {
        let mut root = Section {
            reader: self,
            path: String::new(),
            table,
        };
        let value = read(&mut root);
        root.finish();
        value
    }

    pub(super) fn report(&self, problem: LayerProblem) {
        self.problems.borrow_mut().push(problem);
    }

    /// One problem as the end of the reading.
    pub(super) fn error(&self, problem: LayerProblem) -> ConfigError {
        ConfigError::Invalid(vec![self.placed(problem)])
    }

    /// Every key that was asked for, in full.
    #[cfg(test)]
    pub(super) fn known(&self) -> Vec<String> {
        self.known.borrow().clone()
    }

    /// What is wrong: the file from top to bottom, then the variables.
    pub(super) fn into_problems(self) -> Vec<Problem> {
        for (origin, section, key) in self.unknown.take() {
            let message = match self.nearest(&section, &key) {
                Some(nearest) => {
                    let nearest = match origin {
                        Origin::Variable(_) => variable_for(&nearest),
                        Origin::Line(_) | Origin::BuiltIn => nearest,
                    };
                    format!("unknown key, did you mean '{nearest}'?")
                }
                None => "unknown key".to_owned(),
            };
            self.report(LayerProblem {
                origin,
                key: join(&section, &key),
                message,
            });
        }
        let mut problems = self.problems.take();
        problems.sort_by(|a, b| a.origin.cmp(&b.origin));
        let placed = problems.into_iter().map(|problem| self.placed(problem));
        placed.collect()
    }

    /// The files that values named, good or bad.
    pub(super) fn take_files(&self) -> Vec<PathBuf> {
        self.files.take()
    }

    fn expand(&self, text: &str) -> Result<Expanded, ExpandError> {
        self.files.borrow_mut().extend(files_in(text));
        expand(text, self.environment)
    }

    /// The known key that was probably meant: one of the same section that looks alike, or one of the
    /// same name elsewhere.
    fn nearest(&self, section: &str, key: &str) -> Option<String> {
        let known = self.known.borrow();
        let siblings = known.iter().filter_map(|path| {
            let (parent, name) = split(path);
            let likeness = strsim::jaro_winkler(name, key);
            (parent == section && likeness >= ALIKE).then_some((path, likeness))
        });
        let best = siblings.max_by(|(_, a), (_, b)| a.total_cmp(b));
        best.map(|(path, _)| path)
            .or_else(|| known.iter().find(|path| split(path).1 == key))
            .cloned()
    }

    fn placed(&self, problem: LayerProblem) -> Problem {
        let file = self.file.as_deref().map_or_else(
            || "configuration".to_owned(),
            |file| file.display().to_string(),
        );
        Problem {
            place: match problem.origin {
                Origin::Line(line) => format!("{file}:{line}"),
                Origin::Variable(name) => name,
                Origin::BuiltIn => "built-in defaults".to_owned(),
            },
            key: problem.key,
            message: problem.message,
        }
    }
}

impl Section<'_> {
    /// A section inside this one; an absent one is read as empty.
    pub(super) fn section<T>(&mut self, key: &str, read: impl FnOnce(&mut Section<'_>) -> T) -> T {
        let path = join(&self.path, key);
        let table = match self.take(key) {
            None => Table::new(),
            Some(Node {
                raw: Raw::Table(table),
                ..
            }) => table,
            Some(node) => {
                self.report(
                    node.origin,
                    key,
                    "this is a section: its keys are set one by one".to_owned(),
                );
                Table::new()
            }
        };
        let mut section = Section {
            reader: self.reader,
            path,
            table,
        };
        let value = read(&mut section);
        section.finish();
        value
    }

    /// The names in this section that have not been asked for, with their places.
    pub(super) fn names(&self) -> Vec<(String, Origin)> {
        let entries = self.table.iter();
        entries
            .map(|(key, node)| (key.clone(), node.origin.clone()))
            .collect()
    }

    /// Takes a key out without reading it; for what is wrong as a whole.
    pub(super) fn discard(&mut self, key: &str) {
        self.table.remove(key);
    }

    /// The setting `key`, or `default`.
    pub(super) fn value<T: Setting>(&mut self, key: &str, default: T) -> T {
        self.optional(key).unwrap_or(default)
    }

    /// The setting `key`, if it is there and good; a bad one is reported.
    pub(super) fn optional<T: Setting>(&mut self, key: &str) -> Option<T> {
        let Node { raw, origin } = self.take(key)?;
        self.setting(&origin, key, &raw)
    }

    /// The list `key`; an absent one is `None`.
    pub(super) fn list<T: Setting>(&mut self, key: &str) -> Option<Vec<T>> {
        let Node { raw, origin } = self.take(key)?;
        let items = match &raw {
            Raw::List(items) => Some(items.clone()),
            Raw::Text(text) => list_of(text),
            _ => None,
        };
        let Some(items) = items else {
            let message = format!("{} is not a list", shown::<String>(&raw));
            self.report(origin, key, message);
            return None;
        };
        let items = items.iter();
        Some(
            items
                .filter_map(|item| self.setting(&origin, key, item))
                .collect(),
        )
    }

    /// A secret, and when a variable or file that should bring it is unset or empty, the reason for its
    /// absence. A plain `""` is no secret and no reason: none is wanted.
    pub(super) fn secret(
        &mut self,
        key: &str,
        default: Option<&str>,
    ) -> (Option<SecretString>, Option<String>) {
        let default = || {
            default.map(|text| Node {
                raw: Raw::Text(text.to_owned()),
                origin: Origin::BuiltIn,
            })
        };
        let Some(Node { raw, origin }) = self.take(key).or_else(default) else {
            return (None, None);
        };
        let Raw::Text(text) = raw else {
            self.report(origin, key, "the value is not text".to_owned());
            return (None, None);
        };
        match self.reader.expand(&text) {
            Ok(expanded) if expanded.text.is_empty() => {
                let mut sources = expanded.sources;
                if let Origin::Variable(name) = origin {
                    sources.push(name);
                }
                (
                    None,
                    sources.first().map(|source| format!("{source} is empty")),
                )
            }
            Ok(expanded) if expanded.text.chars().any(char::is_control) => {
                let message = "the value contains a line break or another control character";
                self.report(origin, key, message.to_owned());
                (None, None)
            }
            Ok(expanded) => (Some(expanded.text.into()), None),
            Err(error @ ExpandError::Unset(_)) => (None, Some(error.to_string())),
            Err(error) => {
                self.report(origin, key, error.to_string());
                (None, None)
            }
        }
    }

    /// Text from elsewhere, read as the setting `key` would be but without expansion; empty is absent.
    pub(super) fn parse<T: Setting>(&self, origin: &Origin, key: &str, text: &str) -> Option<T> {
        if text.is_empty() {
            return None;
        }
        let value = T::from_text(text);
        if value.is_none() {
            self.report(origin.clone(), key, refusal::<T>(&Raw::Text(text.into())));
        }
        value
    }

    pub(super) fn report(&self, origin: Origin, key: &str, message: String) {
        self.reader.report(LayerProblem {
            origin,
            key: join(&self.path, key),
            message,
        });
    }

    fn setting<T: Setting>(&self, origin: &Origin, key: &str, raw: &Raw) -> Option<T> {
        let value = match raw {
            Raw::Text(text) => match self.reader.expand(text) {
                Ok(expanded) => T::from_text(&expanded.text),
                Err(error) => {
                    self.report(origin.clone(), key, error.to_string());
                    return None;
                }
            },
            Raw::Integer(value) => T::from_integer(*value),
            Raw::Boolean(value) => T::from_boolean(*value),
            Raw::List(_) | Raw::Table(_) | Raw::Other(_) => None,
        };
        if value.is_none() {
            self.report(origin.clone(), key, refusal::<T>(raw));
        }
        value
    }

    fn take(&mut self, key: &str) -> Option<Node> {
        let path = join(&self.path, key);
        self.reader.known.borrow_mut().push(path);
        self.table.remove(key)
    }

    fn finish(self) {
        let mut unknown = self.reader.unknown.borrow_mut();
        for (key, node) in self.table {
            unknown.push((node.origin, self.path.clone(), key));
        }
    }
}

fn refusal<T: Setting>(raw: &Raw) -> String {
    format!("{} is not {}", shown::<T>(raw), T::EXPECTED)
}

/// A value as it may stand in a message: as it was written, before expansion, which may bring secrets.
fn shown<T: Setting>(raw: &Raw) -> String {
    match raw {
        _ if !T::SHOWN => "the value".to_owned(),
        Raw::Text(text) => format!("'{text}'"),
        Raw::Integer(value) => value.to_string(),
        Raw::Boolean(value) => value.to_string(),
        Raw::List(_) => "a list".to_owned(),
        Raw::Table(_) => "a section".to_owned(),
        Raw::Other(what) => (*what).to_owned(),
    }
}

fn variable_for(path: &str) -> String {
    let path = path.replace('.', "__").replace('-', "_");
    format!("EASEL__{}", path.to_uppercase())
}

fn join(section: &str, key: &str) -> String {
    if section.is_empty() {
        key.to_owned()
    } else if key.is_empty() {
        section.to_owned()
    } else {
        format!("{section}.{key}")
    }
}

fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('.').unwrap_or(("", path))
}
