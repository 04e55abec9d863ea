//! `/admin/v1/keys`: who may come in, and what they may do. A secret is in the answer that makes it and nowhere
//! else.

use std::time::Duration;

use axum::{Json, extract::State};
use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

use super::{
    Admin, Desk,
    error::AdminError,
    extract::{Asked, Named, OrNull, Sent, SentOrNot, Text, Usd, given},
    limits::LimitsJson,
    new_key::{self, KeyOrder},
    page::{Length, List},
    words::{self, DEFAULT_OVERLAP, Expiry, Ips, Models, Name, Span},
};
use crate::{
    addresses::IpRange,
    ids::KeyId,
    keys::{ApiKey, KeyFilter, KeyUpdate, Limits, LimitsUpdate, Mode, UnsupportedParameters},
};

/// Which keys to list.
#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "KeyQuery")]
#[serde(deny_unknown_fields)]
pub(super) struct Query {
    limit: Option<Text<Length>>,
    after: Option<Text<KeyId>>,
    account: Option<String>,
    mode: Option<Text<Mode>>,
    active: Option<Text<bool>>,
}

/// A key to be made; the same as the options of `easel keys create`.
#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "NewKey")]
#[serde(deny_unknown_fields)]
pub(super) struct Create {
    name: Option<Text<Name>>,
    account: Option<String>,
    credit: Option<Usd>,
    mode: Option<Text<Mode>>,
    models: Option<Vec<String>>,
    limits: Option<LimitsJson>,
    allowed_ips: Option<Vec<String>>,
    unsupported_parameters: Option<Text<UnsupportedParameters>>,
    expires_at: Option<Text<Expiry>>,
}

/// What shall be different about one; `null` takes a bound away.
#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "KeyUpdate")]
#[serde(deny_unknown_fields)]
pub(super) struct Update {
    #[serde(default, deserialize_with = "given")]
    name: Option<Text<Name>>,
    #[serde(default, deserialize_with = "given")]
    models: Option<OrNull<Vec<String>>>,
    #[serde(default, deserialize_with = "given")]
    limits: Option<LimitsJson>,
    #[serde(default, deserialize_with = "given")]
    allowed_ips: Option<OrNull<Vec<String>>>,
    #[serde(default, deserialize_with = "given")]
    unsupported_parameters: Option<Text<UnsupportedParameters>>,
    #[serde(default, deserialize_with = "given")]
    expires_at: Option<OrNull<Text<Expiry>>>,
}

/// How to rotate.
#[derive(Deserialize, Default, JsonSchema)]
#[schemars(rename = "KeyRotation")]
#[serde(deny_unknown_fields)]
pub(super) struct Rotate {
    /// How long the old secret goes on; a day unless said otherwise.
    overlap: Option<Text<Span>>,
}

/// A key, with its secret where it has just been made.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Key")]
pub(super) struct KeyJson {
    object: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(flatten)]
    facts: ApiKey,
    state: &'static str,
    /// Until when the secret before the last rotation opens it.
    #[serde(skip_serializing_if = "Option::is_none")]
    previous_secret_ends_at: Option<DateTime<Utc>>,
}

impl KeyJson {
    fn new(facts: ApiKey, now: DateTime<Utc>) -> Self {
        let state = if facts.is_active(now) {
            "active"
        } else if facts.revoked_at.is_some() {
            "revoked"
        } else {
            "expired"
        };
        Self {
            object: "key",
            key: None,
            facts,
            state,
            previous_secret_ends_at: None,
        }
    }

    fn with_secret(self, secret: &SecretString) -> Self {
        Self {
            key: Some(secret.expose_secret().to_owned()),
            ..self
        }
    }
}

/// `GET /admin/v1/keys`
pub(super) async fn list(
    State(desk): State<Desk>,
    Asked(query): Asked<Query>,
) -> Result<Json<List<KeyJson>>, AdminError> {
    let length = Length::of(query.limit);
    let account = match query.account {
        Some(account) => Some(desk.account(&account).await?.id),
        None => None,
    };
    let filter = KeyFilter {
        account,
        mode: query.mode.map(|Text(mode)| mode),
        active: query.active.map(|Text(active)| active),
        after: query.after.map(|Text(id)| id),
    };
    let found = desk.app.keys.page(&filter, length.and_one_more()).await?;
    let now = desk.app.clock.now();
    Ok(List::page(
        found,
        length,
        |last| last.id.to_string(),
        |key| KeyJson::new(key, now),
    ))
}

/// `POST /admin/v1/keys`
pub(super) async fn create(
    State(desk): State<Desk>,
    Sent(create): Sent<Create>,
) -> Result<Json<KeyJson>, AdminError> {
    let now = desk.app.clock.now();
    let limits = LimitsUpdate::from(create.limits.unwrap_or_default());
    let order = KeyOrder {
        name: create
            .name
            .map_or_else(|| "unnamed".to_owned(), |Text(Name(name))| name),
        mode: create.mode.map_or(Mode::Live, |Text(mode)| mode),
        account: create.account,
        credit: create.credit.map(|Usd(amount)| amount),
        models: models(&desk, create.models)?,
        limits: Limits::NONE.changed(&limits),
        allowed_ips: allowed_ips(create.allowed_ips)?,
        unsupported_parameters: create
            .unsupported_parameters
            .map_or(UnsupportedParameters::Reject, |Text(choice)| choice),
        expires_at: expiry(create.expires_at, now)?,
    };
    let (key, secret) = new_key::create(&desk.app.ledger, &desk.app.keys, order).await?;
    Ok(Json(KeyJson::new(key, now).with_secret(&secret)))
}

/// `GET /admin/v1/keys/{id}`
pub(super) async fn show(State(desk): State<Desk>, id: Named) -> Result<Json<KeyJson>, AdminError> {
    let keys = &desk.app.keys;
    let found = keys.find(id.parse("key")?).await?;
    let key = found.ok_or_else(|| AdminError::not_found("key", &id.0))?;
    let previous_secret_ends_at = keys.previous_secret_ends_at(key.id).await?;
    Ok(Json(KeyJson {
        previous_secret_ends_at,
        ..KeyJson::new(key, desk.app.clock.now())
    }))
}

/// `PATCH /admin/v1/keys/{id}`
pub(super) async fn update(
    State(desk): State<Desk>,
    id: Named,
    Sent(update): Sent<Update>,
) -> Result<Json<KeyJson>, AdminError> {
    let now = desk.app.clock.now();
    let changes = KeyUpdate {
        name: update.name.map(|Text(Name(name))| name),
        models: update
            .models
            .map(|OrNull(names)| models(&desk, names))
            .transpose()?,
        limits: update.limits.unwrap_or_default().into(),
        allowed_ips: update
            .allowed_ips
            .map(|OrNull(ranges)| allowed_ips(ranges))
            .transpose()?,
        unsupported_parameters: update.unsupported_parameters.map(|Text(choice)| choice),
        expires_at: update
            .expires_at
            .map(|OrNull(end)| expiry(end, now))
            .transpose()?,
    };
    if changes == KeyUpdate::default() {
        return Err(AdminError::NothingToChange);
    }
    let key = desk.app.keys.update(id.parse("key")?, &changes).await?;
    Ok(Json(KeyJson::new(key, now)))
}

/// `POST /admin/v1/keys/{id}/rotate`
pub(super) async fn rotate(
    State(desk): State<Desk>,
    id: Named,
    SentOrNot(rotate): SentOrNot<Rotate>,
) -> Result<Json<KeyJson>, AdminError> {
    let now = desk.app.clock.now();
    let overlap: Duration = rotate
        .overlap
        .map_or(DEFAULT_OVERLAP, |Text(Span(span))| span);
    let end = words::after(now, overlap).map_err(|error| AdminError::meaning("overlap", &error))?;
    let rotated = desk.app.keys.rotate(id.parse("key")?, end).await?;
    Ok(Json(KeyJson {
        previous_secret_ends_at: Some(rotated.previous_ends_at),
        ..KeyJson::new(rotated.key, now).with_secret(&rotated.secret)
    }))
}

/// `POST /admin/v1/keys/{id}/revoke`
pub(super) async fn revoke(
    State(desk): State<Desk>,
    id: Named,
) -> Result<Json<KeyJson>, AdminError> {
    let key = desk.app.keys.revoke(id.parse("key")?).await?;
    Ok(Json(KeyJson::new(key, desk.app.clock.now())))
}

/// Their ids; `None` is all.
fn models(desk: &Admin, names: Option<Vec<String>>) -> Result<Option<Vec<String>>, AdminError> {
    Models(names)
        .resolve(&desk.app.gateway.rooms().catalog)
        .map_err(|error| AdminError::meaning("models", &error))
}

/// The networks; `None` is all.
fn allowed_ips(texts: Option<Vec<String>>) -> Result<Option<Vec<IpRange>>, AdminError> {
    let Some(texts) = texts else {
        return Ok(None);
    };
    let Ips(ranges) =
        Ips::listed(texts.iter().map(String::as_str)).map_err(|error| AdminError::Parameter {
            name: "allowed_ips".to_owned(),
            why: error.to_string(),
        })?;
    Ok(ranges)
}

fn expiry(
    end: Option<Text<Expiry>>,
    now: DateTime<Utc>,
) -> Result<Option<DateTime<Utc>>, AdminError> {
    let end = end.map_or(Expiry::Never, |Text(end)| end);
    end.at(now)
        .map_err(|error| AdminError::meaning("expires_at", &error))
}
