//! What this API is, for programs: an `OpenAPI` 3.1 document, made once and told at `GET /openapi.json` and by
//! `easel openapi`.
//!
//! Every route of the routers has an [`Operation`] here (or, for the operator's, in `admin/openapi.rs`) and a test
//! fails for one that has none. Schemas come from the types that are read and written, by `schemars`; what is
//! written in pieces has a type that describes the whole. Objects are open in the document, because an answer may
//! get another field at any time; the integration tests close them, so that a field that is not described fails
//! whichever test sees it.

mod operation;
mod operations;
mod refusals;
mod requests;
mod schemas;
mod webhooks;

use std::sync::Arc;

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde_json::{Map, Value as Json, json};
use sha2::{Digest as _, Sha256};

use self::operation::Security;
pub(crate) use self::{
    operation::{Operation, json_content},
    schemas::Schemas,
};
use super::App;

/// The document, written out.
#[derive(Debug, Clone)]
pub struct Document(Arc<Written>);

#[derive(Debug)]
struct Written {
    text: Bytes,
    etag: HeaderValue,
}

/// Clients may keep it for this long before they ask whether it is still the same.
const CACHE: HeaderValue = HeaderValue::from_static("public, max-age=300");

impl Document {
    /// The document of this surface and of the operator's, whose `operations` describe themselves; for clients
    /// that reach it at `public_url`.
    pub(crate) fn new(
        public_url: &str,
        operator: impl FnOnce(&mut Schemas) -> Vec<Operation>,
    ) -> Self {
        let mut schemas = Schemas::new();
        let mut operations = operations::operations(&mut schemas);
        operations.extend(operator(&mut schemas));
        let webhooks = webhooks::webhooks(&mut schemas);
        let document = assemble(public_url, operations, &webhooks, schemas);
        let text = document.to_string();
        let etag = etag([text.as_bytes()]);
        Self(Arc::new(Written {
            text: text.into(),
            etag,
        }))
    }

    /// As JSON.
    pub fn text(&self) -> &[u8] {
        &self.0.text
    }
}

/// `GET /openapi.json`
pub(super) async fn get(State(app): State<App>, asked: HeaderMap) -> Response {
    let Written { text, etag } = &*app.document.0;
    let headers = [
        (header::ETAG, etag.clone()),
        (header::CACHE_CONTROL, CACHE),
        (
            header::X_CONTENT_TYPE_OPTIONS,
            HeaderValue::from_static("nosniff"),
        ),
    ];
    if is_known(&asked, etag) {
        return (StatusCode::NOT_MODIFIED, headers).into_response();
    }
    let kind = HeaderValue::from_static("application/json");
    (headers, [(header::CONTENT_TYPE, kind)], text.clone()).into_response()
}

/// The name of this content.
pub(super) fn etag<'a>(content: impl IntoIterator<Item = &'a [u8]>) -> HeaderValue {
    let mut digest = Sha256::new();
    for part in content {
        digest.update(part);
    }
    let digest = digest.finalize();
    let digest: Vec<String> = digest
        .iter()
        .take(16)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    HeaderValue::from_str(&format!("\"{}\"", digest.concat())).expect("hex digits in quotes")
}

/// Whether the client has it already.
pub(super) fn is_known(asked: &HeaderMap, etag: &HeaderValue) -> bool {
    let given = asked.get_all(header::IF_NONE_MATCH).iter();
    given
        .filter_map(|given| given.to_str().ok())
        .flat_map(|given| given.split(','))
        .map(|tag| tag.trim().trim_start_matches("W/"))
        .any(|tag| tag == "*" || tag.as_bytes() == etag.as_bytes())
}

const DESCRIPTION: &str = "Point an OpenAI SDK at `/v1` with a key of this server and ask for pictures as you would ask OpenAI. Each \
    model's rules are checked before money moves (`GET /v1/models` has them), the highest possible price is held, \
    and exactly what was delivered is charged and told in `usage.cost`.\n\n\
    Refusals have OpenAI's envelope: `{\"error\":{\"message\",\"type\",\"param\",\"code\"}}`. Every answer has an \
    `x-request-id`. What is no HTTP request at all gets a 400 `unreadable_request`, 414 `url_too_long` or 431 \
    `headers_too_large` in it too, and the connection ends. Answers may get further fields at any time; clients \
    should pass over what they do not know.";

fn assemble(
    public_url: &str,
    operations: Vec<Operation>,
    webhooks: &Json,
    schemas: Schemas,
) -> Json {
    let mut paths: Map<String, Json> = Map::new();
    for operation in operations {
        let (path, method, described) = operation.into_parts();
        let methods = paths.entry(path).or_insert_with(|| json!({}));
        methods[method] = described;
    }
    let mut components = json!({
        "securitySchemes": Security::schemes(),
        "headers": operation::headers(),
        "parameters": requests::shared_parameters(),
        "responses": refusals::responses(),
    });
    components["schemas"] = Json::Object(schemas.into_definitions());
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Easel",
            "version": env!("CARGO_PKG_VERSION"),
            "summary": "One OpenAI-compatible endpoint for every image model",
            "description": DESCRIPTION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": public_url}],
        "tags": [
            {"name": "Images", "description": "Make pictures, edit them, and find earlier ones again."},
            {"name": "Models", "description": "What can be asked for, by which rules, at which price."},
            {"name": "Account", "description": "What the key's account has, holds and spent."},
            {"name": "Files", "description": "Hosted pictures behind signed links."},
            {"name": "Operation", "description": "For whoever runs this server and its machines; no key."},
            {"name": "Admin", "description": "The operator's API. Off, and 404, where `[admin] token` is not set."},
        ],
        "paths": paths,
        "webhooks": webhooks,
        "components": components,
    })
}
