//! Requests, answers and errors as files, and what an adapter makes of them as one snapshot beside them.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;

use crate::catalog::{self, Parameter, ParameterKind, Params, SvgOptions};

/// The files `src/providers/ADAPTER/fixtures/KIND/*.json` (or `.sse`): name and content, in order.
pub(in crate::providers) fn fixtures(adapter: &str, kind: &str) -> Vec<(String, Vec<u8>)> {
    let mut found = fs::read_dir(directory(adapter).join(kind))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "json" || extension == "sse")
        })
        .map(|path| {
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            (name, fs::read(&path).unwrap())
        })
        .collect::<Vec<_>>();
    found.sort();
    assert!(!found.is_empty());
    found
}

/// Compares `src/providers/ADAPTER/fixtures/snapshots/NAME.snap`.
pub(in crate::providers) fn snapshot(adapter: &str, name: &str, value: &Value) {
    insta::with_settings!({
        snapshot_path => directory(adapter).join("snapshots"),
        prepend_module_to_snapshot => false,
        omit_expression => true,
    }, {
        insta::assert_json_snapshot!(name, value);
    });
}

/// What a client writes, as the catalog takes it.
pub(in crate::providers) fn params(written: &Value) -> Params {
    let written = written.as_object().unwrap().iter();
    written
        .filter(|(name, _)| *name != "model")
        .map(|(name, value)| {
            let parameter = Parameter::from_name(name).unwrap();
            let value = match parameter.kind() {
                ParameterKind::Text => catalog::Value::Text(value.as_str().unwrap().to_owned()),
                ParameterKind::Integer => catalog::Value::Integer(value.as_i64().unwrap()),
                ParameterKind::Decimal => {
                    catalog::Value::Decimal(catalog::Decimal::nearest(value.as_f64().unwrap()))
                }
                ParameterKind::Flag => catalog::Value::Flag(value.as_bool().unwrap()),
                ParameterKind::Svg => catalog::Value::Svg(SvgOptions {
                    model: value["model"].as_str().unwrap().to_owned(),
                    effort: value["reasoning"]["effort"].as_str().map(str::to_owned),
                }),
            };
            (parameter, value)
        })
        .collect()
}

fn directory(adapter: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("src/providers")
        .join(adapter)
        .join("fixtures")
}
