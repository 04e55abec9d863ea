//! `/admin/v1/keys/{id}/webhooks`: whether a key may have webhooks, and what they are signed with.

use std::time::Duration;

use axum::{Json, extract::State};
use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};

use super::{
    Admin, Desk,
    error::AdminError,
    extract::{Named, Sent, SentOrNot, Text},
    words::{self, DEFAULT_OVERLAP, Span},
};
use crate::{ids::KeyId, keys::WebhookKey, webhooks};

/// What shall be so.
#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "WebhooksUpdate")]
#[serde(deny_unknown_fields)]
pub(super) struct Update {
    /// Whether requests with the key may name a `webhook_url`. What is under way is delivered either way.
    allowed: bool,
}

/// How to rotate.
#[derive(Deserialize, Default, JsonSchema)]
#[schemars(rename = "WebhookRotation")]
#[serde(deny_unknown_fields)]
pub(super) struct Rotate {
    /// How long messages are signed with the old secret too; a day unless said otherwise.
    overlap: Option<Text<Span>>,
}

/// The webhooks of a key.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Webhooks")]
pub(super) struct WebhooksJson {
    #[schemars(extend("const" = "webhooks"))]
    object: &'static str,
    key: KeyId,
    /// Whether requests with it may name a `webhook_url`.
    allowed: bool,
    /// `whsec_…`, what they are signed with; none where the key never had any.
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<String>,
    /// Until when they are signed with the secret before the last rotation too.
    #[serde(skip_serializing_if = "Option::is_none")]
    previous_secret_ends_at: Option<DateTime<Utc>>,
}

impl WebhooksJson {
    fn new(key: KeyId, found: Option<&WebhookKey>) -> Self {
        let secret = found.map(|found| webhooks::shown(&found.secret));
        let previous = found.and_then(|found| found.previous.as_ref());
        Self {
            object: "webhooks",
            key,
            allowed: found.is_some_and(|found| found.is_allowed),
            secret: secret.map(|secret| secret.expose_secret().to_owned()),
            previous_secret_ends_at: previous.map(|(_, end)| *end),
        }
    }
}

/// `GET /admin/v1/keys/{id}/webhooks`
pub(super) async fn show(
    State(desk): State<Desk>,
    id: Named,
) -> Result<Json<WebhooksJson>, AdminError> {
    let key = find(&desk, &id).await?;
    let found = desk.app.keys.webhook_key(key).await?;
    Ok(Json(WebhooksJson::new(key, found.as_ref())))
}

/// `PUT /admin/v1/keys/{id}/webhooks`
pub(super) async fn update(
    State(desk): State<Desk>,
    id: Named,
    Sent(update): Sent<Update>,
) -> Result<Json<WebhooksJson>, AdminError> {
    let key = find(&desk, &id).await?;
    desk.app.keys.allow_webhooks(key, update.allowed).await?;
    let found = desk.app.keys.webhook_key(key).await?;
    Ok(Json(WebhooksJson::new(key, found.as_ref())))
}

/// `POST /admin/v1/keys/{id}/webhooks/rotate`
pub(super) async fn rotate(
    State(desk): State<Desk>,
    id: Named,
    SentOrNot(rotate): SentOrNot<Rotate>,
) -> Result<Json<WebhooksJson>, AdminError> {
    let key = find(&desk, &id).await?;
    let overlap: Duration = rotate
        .overlap
        .map_or(DEFAULT_OVERLAP, |Text(Span(span))| span);
    let end = words::after(desk.app.clock.now(), overlap);
    let end = end.map_err(|error| AdminError::meaning("overlap", &error))?;
    let rotated = desk.app.keys.rotate_webhook_secret(key, end).await?;
    Ok(Json(WebhooksJson::new(key, Some(&rotated))))
}

async fn find(desk: &Admin, id: &Named) -> Result<KeyId, AdminError> {
    let found = desk.app.keys.find(id.parse("key")?).await?;
    let key = found.ok_or_else(|| AdminError::not_found("key", &id.0))?;
    Ok(key.id)
}
