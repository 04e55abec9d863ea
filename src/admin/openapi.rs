//! The operator's part of the document of the API; see [`openapi`](crate::api::openapi).

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Value as Json, json};

use super::{
    accounts, bookings, generations, images, keys, models, page::List, providers, usage, webhooks,
};
use crate::api::{
    Document,
    openapi::{Operation, Schemas, json_content},
};

/// The document of both surfaces, for clients that reach them at `public_url`.
pub fn document(public_url: &str) -> Document {
    Document::new(public_url, operations)
}

/// Refusals of everything here.
const ANY: &[u16] = &[400, 401, 404, 405, 429, 500, 503];
/// Of what takes a body.
const BODY: &[u16] = &[400, 401, 404, 405, 408, 413, 415, 429, 500, 503];
/// Of what takes a body and can contradict what is.
const CHANGE: &[u16] = &[400, 401, 404, 405, 408, 409, 413, 415, 429, 500, 503];

/// An operation of the operator's.
fn operation(
    method: &'static str,
    path: &'static str,
    id: &'static str,
    summary: &'static str,
    answer: Json,
) -> Operation {
    let content = json_content(answer);
    Operation::new(method, path, id, "Admin", summary).answers(
        200,
        "Done, or found.",
        &["cache-control"],
        content,
    )
}

fn operations(schemas: &mut Schemas) -> Vec<Operation> {
    let mut all = accounts(schemas);
    all.extend(keys(schemas));
    all.extend(books(schemas));
    all.extend(providers(schemas));
    all
}

fn accounts(schemas: &mut Schemas) -> Vec<Operation> {
    const ID: &str = "The account's id, or its exact name.";
    let account = schemas.answer::<accounts::AccountJson>();
    let entry = schemas.answer::<bookings::EntryJson>();
    vec![
        operation(
            "get",
            "/admin/v1/accounts",
            "adminListAccounts",
            "Accounts, newest first",
            schemas.answer::<List<accounts::AccountJson>>(),
        )
        .takes(schemas.query::<accounts::Query>())
        .refuses(ANY),
        operation(
            "post",
            "/admin/v1/accounts",
            "adminOpenAccount",
            "Open an account",
            account.clone(),
        )
        .json_body(schemas.request::<accounts::Create>())
        .refuses(CHANGE),
        operation(
            "get",
            "/admin/v1/accounts/{id}",
            "adminGetAccount",
            "An account with what is held of it",
            schemas.answer::<accounts::OneAccountJson>(),
        )
        .named_by(ID)
        .refuses(CHANGE),
        operation(
            "patch",
            "/admin/v1/accounts/{id}",
            "adminUpdateAccount",
            "Change an account",
            account,
        )
        .named_by(ID)
        .json_body(schemas.request::<accounts::Update>())
        .refuses(CHANGE),
        operation(
            "post",
            "/admin/v1/accounts/{id}/credit",
            "adminCredit",
            "Put money in",
            entry.clone(),
        )
        .says(
            "Booked once for a `reference`, however often it is sent; repeats get the same entry.",
        )
        .named_by(ID)
        .json_body(schemas.request::<bookings::Booking>())
        .refuses(CHANGE),
        operation(
            "post",
            "/admin/v1/accounts/{id}/debit",
            "adminDebit",
            "Take money out",
            entry,
        )
        .says(
            "Booked once for a `reference`, however often it is sent; repeats get the same entry.",
        )
        .named_by(ID)
        .json_body(schemas.request::<bookings::Booking>())
        .refuses(CHANGE),
        operation(
            "get",
            "/admin/v1/accounts/{id}/entries",
            "adminListEntries",
            "What was put in, taken out and charged, newest first",
            schemas.answer::<List<bookings::EntryJson>>(),
        )
        .named_by(ID)
        .takes(schemas.query::<bookings::Query>())
        .refuses(CHANGE),
    ]
}

fn keys(schemas: &mut Schemas) -> Vec<Operation> {
    const ID: &str = "The key's id; not its secret.";
    let key = schemas.answer::<keys::KeyJson>();
    let webhooks = schemas.answer::<webhooks::WebhooksJson>();
    vec![
        operation(
            "get",
            "/admin/v1/keys",
            "adminListKeys",
            "Keys, newest first",
            schemas.answer::<List<keys::KeyJson>>(),
        )
        .takes(schemas.query::<keys::Query>())
        .refuses(CHANGE),
        operation(
            "post",
            "/admin/v1/keys",
            "adminCreateKey",
            "Make a key",
            key.clone(),
        )
        .says("Its secret is in this answer and nowhere else. Without `account` it gets one of its own.")
        .json_body(schemas.request::<keys::Create>())
        .refuses(CHANGE),
        operation("get", "/admin/v1/keys/{id}", "adminGetKey", "A key", key.clone())
            .named_by(ID)
            .refuses(ANY),
        operation(
            "patch",
            "/admin/v1/keys/{id}",
            "adminUpdateKey",
            "Change what a key may do",
            key.clone(),
        )
        .named_by(ID)
        .json_body(schemas.request::<keys::Update>())
        .refuses(CHANGE),
        operation(
            "post",
            "/admin/v1/keys/{id}/rotate",
            "adminRotateKey",
            "Give a key a new secret",
            key.clone(),
        )
        .says("The old one goes on beside it for a day, or for `overlap`.")
        .named_by(ID)
        .body(false, json_content(schemas.request::<keys::Rotate>()))
        .refuses(CHANGE),
        operation(
            "post",
            "/admin/v1/keys/{id}/revoke",
            "adminRevokeKey",
            "End a key",
            key,
        )
        .named_by(ID)
        .refuses(CHANGE),
        operation(
            "get",
            "/admin/v1/keys/{id}/webhooks",
            "adminGetWebhooks",
            "Whether a key may have webhooks, and what they are signed with",
            webhooks.clone(),
        )
        .named_by(ID)
        .refuses(ANY),
        operation(
            "put",
            "/admin/v1/keys/{id}/webhooks",
            "adminAllowWebhooks",
            "Allow a key webhooks, or take that back",
            webhooks.clone(),
        )
        .says("The first time it gets its secret.")
        .named_by(ID)
        .json_body(schemas.request::<webhooks::Update>())
        .refuses(CHANGE),
        operation(
            "post",
            "/admin/v1/keys/{id}/webhooks/rotate",
            "adminRotateWebhookSecret",
            "Sign a key's webhooks with a new secret",
            webhooks,
        )
        .says("They are signed with the old one too for a day, or for `overlap`.")
        .named_by(ID)
        .body(false, json_content(schemas.request::<webhooks::Rotate>()))
        .refuses(CHANGE),
    ]
}

fn books(schemas: &mut Schemas) -> Vec<Operation> {
    vec![
        operation(
            "get",
            "/admin/v1/generations",
            "adminListGenerations",
            "What was asked for and what became of it, newest first",
            schemas.answer::<List<generations::GenerationJson>>(),
        )
        .takes(schemas.query::<generations::Query>())
        .refuses(CHANGE),
        operation(
            "get",
            "/admin/v1/generations/{id}",
            "adminGetGeneration",
            "A generation with its attempts, pictures, hold, entries and webhook",
            schemas.answer::<generations::OneGenerationJson>(),
        )
        .named_by("Its `x-generation-id`.")
        .refuses(ANY),
        operation(
            "get",
            "/admin/v1/images",
            "adminListImages",
            "Delivered pictures: the billing record",
            schemas.answer::<List<images::ImageJson>>(),
        )
        .takes(schemas.query::<images::Query>())
        .refuses(CHANGE),
        Operation::new(
            "get",
            "/admin/v1/usage",
            "adminGetUsage",
            "Admin",
            "What was used, charged, owed and earned",
        )
        .says("By day, model, provider, key and account in any combination. CSV with `format=csv` or `Accept: text/csv`.")
        .takes(schemas.query::<usage::Query>())
        .answers(200, "Sums by group, and their totals.", &["cache-control"], {
            let usage = schemas.answer::<usage::Usage<'_>>();
            json!({
                "application/json": {"schema": usage},
                "text/csv": {"schema": {"type": "string"}},
            })
        })
        .refuses(CHANGE),
    ]
}

fn providers(schemas: &mut Schemas) -> Vec<Operation> {
    const NAME: &str = "Its name in the configuration.";
    let provider = schemas.answer::<providers::ProviderJson>();
    let reloaded = schemas.written(
        "Reload",
        json!({
            "type": "object",
            "required": ["object", "applied_at", "needs_restart", "refused"],
            "properties": {
                "object": {"type": "string", "const": "reload"},
                "applied_at": {"type": "string", "format": "date-time"},
                "needs_restart": {
                    "type": "array",
                    "items": {"type": "string"},
                    "description": "Keys on disk that only a restart can change.",
                },
                "refused": {
                    "type": ["object", "null"],
                    "required": ["at", "why"],
                    "properties": {
                        "at": {"type": "string", "format": "date-time"},
                        "why": {"type": "string"},
                    },
                },
            },
        }),
    );
    let configuration = schemas.written(
        "Configuration",
        json!({
            "type": "object",
            "description": "With the keys that the file has, see `config/easel.toml`; secrets are `****`.",
            "required": ["object"],
            "properties": {"object": {"type": "string", "const": "config"}},
            "additionalProperties": true,
        }),
    );
    vec![
        operation(
            "get",
            "/admin/v1/providers",
            "adminListProviders",
            "Providers, and how each has been doing at this replica",
            schemas.answer::<List<providers::ProviderJson>>(),
        )
        .refuses(ANY),
        operation(
            "get",
            "/admin/v1/providers/{name}",
            "adminGetProvider",
            "A provider",
            provider.clone(),
        )
        .named_by(NAME)
        .refuses(ANY),
        operation(
            "post",
            "/admin/v1/providers/{name}/rest",
            "adminRestProvider",
            "Have a provider tried last for a while",
            provider.clone(),
        )
        .named_by(NAME)
        .json_body(schemas.request::<providers::Rest>())
        .refuses(BODY),
        operation(
            "post",
            "/admin/v1/providers/{name}/resume",
            "adminResumeProvider",
            "End its rest",
            provider,
        )
        .named_by(NAME)
        .refuses(ANY),
        operation(
            "get",
            "/admin/v1/models",
            "adminListModels",
            "Every model with all its routes",
            schemas.answer::<List<models::ModelJson>>(),
        )
        .refuses(ANY),
        operation(
            "get",
            "/admin/v1/models/{id}",
            "adminGetModel",
            "A model with all its routes",
            schemas.answer::<models::ModelJson>(),
        )
        .named_by("Its id, with the slash in it as it is, or another of its names.")
        .refuses(ANY),
        operation(
            "get",
            "/admin/v1/config",
            "adminGetConfig",
            "The configuration in force",
            configuration,
        )
        .refuses(ANY),
        operation(
            "post",
            "/admin/v1/reload",
            "adminReload",
            "Read the configuration again, as SIGHUP does",
            reloaded,
        )
        .refuses(ANY),
    ]
}

/// A row of usage: the groups that were asked for, then the sums.
impl JsonSchema for usage::Row<'_> {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "AdminUsageRow".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let group = |what: &str| json!({"oneOf": [{"type": "string"}, {"type": "null"}], "description": what});
        json_schema!({
            "type": "object",
            "description": "The groups that were asked for, and their sums.",
            "required": ["mode", "requests", "abandoned", "images", "cost", "upstream_cost", "margin"],
            "properties": {
                "day": group("UTC, as 2026-11-20"),
                "model": group("Its id"),
                "provider": group("Who served; null for requests that brought nothing"),
                "key": group("Its id"),
                "key_name": {"type": "string"},
                "account": group("Its id"),
                "account_name": {"type": "string"},
                "mode": generator.subschema_for::<crate::keys::Mode>(),
                "requests": {"type": "integer", "minimum": 0},
                "abandoned": {"type": "integer", "minimum": 0, "description": "Those of them that nobody finished"},
                "images": {"type": "integer", "minimum": 0},
                "cost": {"type": "number", "description": "What was charged, in USD"},
                "upstream_cost": {"type": "number", "description": "What is owed upstream, in USD"},
                "margin": {"type": "number", "description": "The difference, in USD"},
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use http::Method;

    use super::*;
    use crate::{admin::router, api};

    /// Every method of every path is in the document, and nothing else is. Who adds a route and comes to this: an
    /// `Operation` in `api/openapi/operations.rs`, or here if it is the operator's, says what it takes and answers.
    #[test]
    fn every_route_is_documented() {
        let operator = router::endpoints();
        let operator = operator.served().iter();
        let operator =
            operator.map(|(method, path)| (method.clone(), format!("{}{path}", router::PREFIX)));
        let others = api::served();
        let others = others
            .into_iter()
            .map(|(method, path)| (method, path.to_owned()));
        let served: BTreeSet<String> = others
            // With a slash at the end it is the same.
            .filter(|(_, path)| !path.ends_with('/'))
            .chain(operator)
            .map(|(method, path)| format!("{method} {}", path.replace("{*", "{")))
            .collect();
        let document: Json = serde_json::from_slice(document("http://easel").text()).unwrap();
        let mut documented = BTreeSet::new();
        for (path, methods) in document["paths"].as_object().unwrap() {
            for method in methods.as_object().unwrap().keys() {
                let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
                documented.insert(format!("{method} {path}"));
            }
        }
        let missing: Vec<_> = served.difference(&documented).collect();
        assert!(missing.is_empty(), "served and not documented: {missing:?}");
        let gone: Vec<_> = documented.difference(&served).collect();
        assert!(gone.is_empty(), "documented and not served: {gone:?}");
    }

    /// What refers to something refers to something that there is.
    #[test]
    fn every_reference_leads_somewhere() {
        fn check(node: &Json, document: &Json) {
            match node {
                Json::Object(fields) => {
                    if let Some(Json::String(reference)) = fields.get("$ref") {
                        let pointer = reference.strip_prefix('#').expect("within the document");
                        assert!(document.pointer(pointer).is_some(), "{reference}");
                    }
                    fields.values().for_each(|field| check(field, document));
                }
                Json::Array(items) => items.iter().for_each(|item| check(item, document)),
                _ => {}
            }
        }
        let document: Json = serde_json::from_slice(document("http://easel").text()).unwrap();
        check(&document, &document);
    }
}
