//! The configuration file of one test: dotted keys and values, written as TOML.

use std::{collections::BTreeMap, fmt::Write as _, path::Path};

use serde_json::Value;

/// Dotted keys with their values. A later value for a key replaces the earlier one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Settings(BTreeMap<String, Value>);

impl Settings {
    /// What every test begins with: a free port, everything below `directory`, no sweeping surprises.
    pub(crate) fn for_tests(directory: &Path) -> Self {
        let mut settings = Self::default();
        settings.set("listen", "127.0.0.1:0");
        settings.set("data_dir", directory.join("data").to_str().unwrap());
        settings.set(
            "images.store",
            format!("file:{}", directory.join("data/images").display()),
        );
        settings
    }

    pub(crate) fn set(&mut self, key: &str, value: impl Into<Value>) -> &mut Self {
        self.0.insert(key.to_owned(), value.into());
        self
    }

    pub(crate) fn remove(&mut self, prefix: &str) -> &mut Self {
        self.0.retain(|key, _| !key.starts_with(prefix));
        self
    }

    /// Writes the file as a careful editor does: it is the old one or the new one, never half of it.
    pub(crate) fn write(&self, file: &Path) {
        let beside = file.with_extension("new");
        std::fs::write(&beside, self.to_toml()).unwrap();
        std::fs::rename(&beside, file).unwrap();
    }

    /// The file. The values used here are strings, numbers, flags and lists of them, whose JSON is TOML.
    pub(crate) fn to_toml(&self) -> String {
        let mut text = String::new();
        for (key, value) in &self.0 {
            writeln!(text, "{key} = {value}").unwrap();
        }
        text
    }
}
