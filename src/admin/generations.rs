//! `/admin/v1/generations`: what was asked for and what became of it; one with its attempts, pictures, hold and
//! entries.

use axum::{Json, extract::State};
use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Admin, Desk,
    bookings::EntryJson,
    error::AdminError,
    extract::{Asked, Named, Text},
    images::ImageJson,
    page::{Length, List},
    words::Moment,
};
use crate::{
    ids::{AccountId, GenerationId, KeyId, RequestId},
    keys::Mode,
    ledger::{
        AttemptRecord, DeliveryRecord, Generation, GenerationError, GenerationSearch,
        GenerationStatus, HoldRecord,
    },
    money::{MoneyError, NanoUsd},
};

/// Which generations to list.
#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "AdminGenerationQuery")]
#[serde(deny_unknown_fields)]
pub(super) struct Query {
    limit: Option<Text<Length>>,
    after: Option<Text<GenerationId>>,
    account: Option<String>,
    key: Option<Text<KeyId>>,
    mode: Option<Text<Mode>>,
    model: Option<String>,
    provider: Option<String>,
    status: Option<Text<GenerationStatus>>,
    user: Option<String>,
    idempotency_key: Option<String>,
    since: Option<Text<Moment>>,
    until: Option<Text<Moment>>,
}

/// A generation as the operator sees it. Never a prompt: none is kept.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "AdminGeneration")]
pub(super) struct GenerationJson {
    object: &'static str,
    id: GenerationId,
    request: RequestId,
    account: AccountId,
    key: KeyId,
    mode: Mode,
    model: String,
    status: GenerationStatus,
    images_asked: u8,
    images_delivered: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    provider: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream_model: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    idempotency_key: Option<String>,
    created_at: DateTime<Utc>,
    #[serde(skip_serializing_if = "Option::is_none")]
    finished_at: Option<DateTime<Utc>>,
    cost: NanoUsd,
    upstream_cost: NanoUsd,
    margin: NanoUsd,
    input_tokens: u64,
    output_tokens: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<GenerationError>,
}

/// One generation with all that hangs on it.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "GenerationWithBooks")]
pub(super) struct OneGenerationJson {
    #[serde(flatten)]
    generation: GenerationJson,
    /// Every call to a provider, in order.
    attempts: Vec<AttemptJson>,
    images: Vec<ImageJson>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hold: Option<HoldRecord>,
    entries: Vec<EntryJson>,
    /// What became of its webhook, if it has ended and has one; for a week.
    #[serde(skip_serializing_if = "Option::is_none")]
    webhook: Option<DeliveryRecord>,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Attempt")]
struct AttemptJson {
    number: u16,
    provider: String,
    upstream_model: String,
    started_at: DateTime<Utc>,
    latency_ms: u64,
    /// The HTTP status, if there was one.
    status: Option<u16>,
    /// The kind of the error; null is success.
    error: Option<String>,
    images: u8,
    /// Whether we may owe the provider for it although it failed.
    maybe_charged: bool,
    upstream_request_id: Option<String>,
}

/// `GET /admin/v1/generations`
pub(super) async fn list(
    State(desk): State<Desk>,
    Asked(query): Asked<Query>,
) -> Result<Json<List<GenerationJson>>, AdminError> {
    let length = Length::of(query.limit);
    let now = desk.app.clock.now();
    let search = GenerationSearch {
        account: match query.account {
            Some(account) => Some(desk.account(&account).await?.id),
            None => None,
        },
        key: query.key.map(|Text(key)| key),
        mode: query.mode.map(|Text(mode)| mode),
        model: query.model.map(|name| desk.model_id(name)),
        provider: query.provider,
        status: query.status.map(|Text(status)| status),
        user: query.user,
        idempotency_key: query.idempotency_key,
        since: query.since.map(|Text(since)| since.at(now)),
        until: query.until.map(|Text(until)| until.at(now)),
    };
    let after = query.after.map(|Text(id)| id);
    let ledger = &desk.app.ledger;
    let found = ledger
        .search_generations(&search, after, length.and_one_more())
        .await?;
    let shown = found.iter().map(GenerationJson::try_from);
    let shown = shown.collect::<Result<Vec<_>, _>>()?;
    Ok(List::page(
        shown,
        length,
        |last| last.id.to_string(),
        |generation| generation,
    ))
}

/// `GET /admin/v1/generations/{id}`
pub(super) async fn show(
    State(desk): State<Desk>,
    id: Named,
) -> Result<Json<OneGenerationJson>, AdminError> {
    let generation = find(&desk, &id).await?;
    let books = desk.app.ledger.generation_books(generation.id).await?;
    Ok(Json(OneGenerationJson {
        generation: (&generation).try_into()?,
        attempts: generation.attempts.iter().map(AttemptJson::from).collect(),
        images: ImageJson::of(&generation),
        hold: books.hold,
        entries: books.entries.into_iter().map(EntryJson::from).collect(),
        webhook: desk.app.ledger.delivery(generation.id).await?,
    }))
}

async fn find(desk: &Admin, id: &Named) -> Result<Generation, AdminError> {
    let found = desk
        .app
        .ledger
        .find_generation(id.parse("generation")?)
        .await?;
    found.ok_or_else(|| AdminError::not_found("generation", &id.0))
}

impl TryFrom<&Generation> for GenerationJson {
    type Error = MoneyError;

    fn try_from(generation: &Generation) -> Result<Self, MoneyError> {
        Ok(Self {
            object: "generation",
            id: generation.id,
            request: generation.request,
            account: generation.account,
            key: generation.key,
            mode: generation.mode,
            model: generation.model.clone(),
            status: generation.status,
            images_asked: generation.images_asked,
            images_delivered: generation.images.len(),
            provider: generation.provider.clone(),
            upstream_model: generation.upstream_model.clone(),
            user: generation.user.clone(),
            idempotency_key: generation.idempotency_key.clone(),
            created_at: generation.created_at,
            finished_at: generation.finished_at,
            cost: generation.cost,
            upstream_cost: generation.upstream_cost,
            margin: generation.cost.checked_sub(generation.upstream_cost)?,
            input_tokens: generation.input_tokens,
            output_tokens: generation.output_tokens,
            error: generation.error.clone(),
        })
    }
}

impl From<&AttemptRecord> for AttemptJson {
    fn from(attempt: &AttemptRecord) -> Self {
        Self {
            number: attempt.number,
            provider: attempt.provider.clone(),
            upstream_model: attempt.upstream_model.clone(),
            started_at: attempt.started_at,
            latency_ms: u64::try_from(attempt.latency.as_millis()).unwrap_or(u64::MAX),
            status: attempt.upstream_status,
            error: attempt.error.clone(),
            images: attempt.images,
            maybe_charged: attempt.maybe_charged,
            upstream_request_id: attempt.upstream_request_id.clone(),
        }
    }
}
