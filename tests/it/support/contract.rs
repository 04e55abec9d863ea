//! Holds real answers to the `OpenAPI` document: every answer that the client of an `App` or a replica reads is one
//! that the document describes, with these fields and no others.
//!
//! The document leaves its objects open, because answers may grow; here they are closed, so that a field, a
//! header, a status or a code that is not described fails whichever test sees it first. What to do then: describe
//! it, beside the type that it comes from or in `src/api/openapi/`.

use std::{
    collections::HashMap,
    path::Path,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::UNIX_EPOCH,
};

use jsonschema::Validator;
use reqwest::{Method, header::HeaderMap};
use serde_json::{Map, Value, json};

use super::process::{easel_binary, run_easel};

/// The document, and what was made of it so far.
pub(crate) struct Contract {
    document: Value,
    /// With objects closed.
    components: Value,
    validators: Mutex<HashMap<String, Arc<Validator>>>,
}

/// An answer as far as it is held to the document.
pub(crate) struct Seen<'a> {
    pub(crate) method: &'a Method,
    pub(crate) path: &'a str,
    pub(crate) status: u16,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) body: &'a [u8],
}

impl Contract {
    /// That of the binary under test.
    pub(crate) fn of_easel() -> &'static Self {
        static CONTRACT: OnceLock<Contract> = OnceLock::new();
        CONTRACT.get_or_init(|| Self::new(printed()))
    }

    pub(crate) fn new(document: Value) -> Self {
        let mut components = document["components"].clone();
        close(&mut components["schemas"]);
        Self {
            document,
            components,
            validators: Mutex::default(),
        }
    }

    pub(crate) fn document(&self) -> &Value {
        &self.document
    }

    /// What the document does not say of this answer.
    pub(crate) fn faults(&self, seen: &Seen<'_>) -> Vec<String> {
        let kind = seen.headers.get("content-type");
        let kind = kind
            .and_then(|kind| kind.to_str().ok())
            .and_then(|kind| kind.split(';').next())
            .unwrap_or_default();
        if seen.method == Method::OPTIONS && seen.status == 200 && seen.body.is_empty() {
            // What a browser asks before the operation, of which no document of an API speaks.
            return Vec::new();
        }
        let Some(operation) = self.operation(seen.method, seen.path) else {
            // Refused by the router, or by the library below it.
            return match (seen.status, kind) {
                (404 | 405, "application/json") => self.check(
                    &json!({"$ref": "#/components/schemas/ErrorAnswer"}),
                    seen.body,
                ),
                (400.., kind) if kind != "application/json" => Vec::new(),
                (status, _) => vec![format!(
                    "the operation is not documented, and answered with {status}"
                )],
            };
        };
        let mut response = &operation["responses"][seen.status.to_string()];
        if let Some(reference) = response["$ref"].as_str() {
            response = self.document.pointer(&reference[1..]).unwrap();
        }
        if response.is_null() {
            return vec![format!("the status {} is not documented", seen.status)];
        }
        let mut faults: Vec<String> = ours(seen.headers)
            .filter(|name| response["headers"][name].is_null())
            .map(|name| format!("the header {name} is not documented"))
            .collect();
        if seen.body.is_empty() || seen.method == Method::HEAD {
            return faults;
        }
        let content = &response["content"];
        let described = [kind, "image/*"].map(|kind| &content[kind]);
        let Some(described) = described.into_iter().find(|kind| !kind.is_null()) else {
            faults.push(format!("the content type {kind} is not documented"));
            return faults;
        };
        match kind {
            "application/json" => {
                faults.extend(self.check(&described["schema"], seen.body));
                faults.extend(undocumented_code(response, seen.body));
            }
            "text/event-stream" => {
                let schema = &described["schema"]["contentSchema"];
                for data in events(seen.body) {
                    faults.extend(self.check(schema, data.as_bytes()));
                }
            }
            _ => {}
        }
        faults
    }

    /// What the schema of this name does not say of what was sent.
    pub(crate) fn body_faults(&self, name: &str, body: &Value) -> Vec<String> {
        let schema = json!({"$ref": format!("#/components/schemas/{name}")});
        self.check(&schema, body.to_string().as_bytes())
    }

    fn check(&self, schema: &Value, body: &[u8]) -> Vec<String> {
        let Ok(body) = serde_json::from_slice(body) else {
            return vec!["the body is no JSON".to_owned()];
        };
        let errors = self.validator(schema);
        let errors = errors.iter_errors(&body).take(3);
        errors
            .map(|error| {
                let message: String = error.to_string().chars().take(2000).collect();
                format!("{}: {message}", error.instance_path())
            })
            .collect()
    }

    fn validator(&self, schema: &Value) -> Arc<Validator> {
        let mut known = self
            .validators
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let validator = known.entry(schema.to_string()).or_insert_with(|| {
            let mut root = schema.clone();
            close(&mut root);
            root["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
            root["components"] = json!({"schemas": self.components["schemas"]});
            Arc::new(jsonschema::validator_for(&root).expect("a schema of the document is one"))
        });
        Arc::clone(validator)
    }

    /// The operation that this is; the path that says most of it, where several fit.
    fn operation(&self, method: &Method, path: &str) -> Option<&Value> {
        let path = path.split('?').next().unwrap_or_default();
        let trimmed = path.trim_end_matches('/');
        let paths = self.document["paths"].as_object().unwrap();
        let mut fitting: Vec<_> = paths
            .iter()
            .filter(|(template, _)| fits(template, trimmed))
            .collect();
        fitting.sort_by_key(|(template, _)| (template.contains('{'), usize::MAX - template.len()));
        let (_, methods) = fitting.first()?;
        // HEAD is GET without a body.
        let method = if method == Method::HEAD {
            Method::GET.as_str()
        } else {
            method.as_str()
        };
        methods.get(method.to_lowercase())
    }
}

/// Whether the path is one of these. Ids of models have slashes in them.
fn fits(template: &str, path: &str) -> bool {
    let Some((before, after)) = template
        .split_once('{')
        .and_then(|(before, rest)| Some((before, rest.split_once('}')?.1)))
    else {
        return template == path;
    };
    let named = path
        .strip_prefix(before)
        .and_then(|rest| rest.strip_suffix(after));
    named.is_some_and(|name| {
        !name.is_empty() && (before.ends_with("/models/") || !name.contains('/'))
    })
}

/// Names of headers that are this program's own.
fn ours(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let names = headers.keys().map(reqwest::header::HeaderName::as_str);
    names.filter(|name| {
        name.starts_with("x-")
            || ["idempotent-replayed", "retry-after", "retry-after-ms"].contains(name)
    })
}

fn undocumented_code(response: &Value, body: &[u8]) -> Option<String> {
    let codes = response["x-error-codes"].as_array()?;
    let body: Value = serde_json::from_slice(body).ok()?;
    let code = &body["error"]["code"];
    (!codes.contains(code)).then(|| format!("the code {code} is not documented"))
}

/// What stands behind `data:` in each complete event.
fn events(body: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(body);
    let whole = text.rsplit_once("\n\n").map_or("", |(whole, _)| whole);
    let events = whole.split("\n\n");
    events
        .filter_map(|event| event.lines().find_map(|line| line.strip_prefix("data: ")))
        .map(str::to_owned)
        .collect()
}

/// Closes every object whose fields are named.
fn close(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            fields.values_mut().for_each(close);
            let is_object = fields.get("properties").is_some_and(is_schema_map);
            if is_object && !fields.contains_key("additionalProperties") {
                fields.insert("additionalProperties".to_owned(), json!(false));
            }
        }
        Value::Array(items) => items.iter_mut().for_each(close),
        _ => {}
    }
}

/// A field may be called `properties` as well.
fn is_schema_map(properties: &Value) -> bool {
    let is_plain = |fields: &Map<String, Value>| fields.values().all(Value::is_object);
    properties.as_object().is_some_and(is_plain)
}

/// What `easel openapi` prints. Written down beside the binary, as most tests are processes of their own.
fn printed() -> Value {
    let binary = std::fs::metadata(easel_binary()).unwrap();
    let built = binary
        .modified()
        .unwrap()
        .duration_since(UNIX_EPOCH)
        .unwrap();
    let name = format!("openapi-{}-{}.json", built.as_nanos(), binary.len());
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let kept = directory.join(name);
    if let Ok(text) = std::fs::read(&kept)
        && let Ok(document) = serde_json::from_slice(&text)
    {
        return document;
    }
    let empty = tempfile::tempdir().unwrap();
    let document = run_easel(empty.path(), &["openapi"], &[])
        .expect_success()
        .json();
    // Others may be writing it too: each writes its own, and the last one stays.
    let mut file = tempfile::NamedTempFile::new_in(directory).unwrap();
    std::io::Write::write_all(&mut file, document.to_string().as_bytes()).unwrap();
    file.persist(kept).unwrap();
    document
}
