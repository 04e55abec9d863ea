//! `/admin/v1/images`: delivered pictures, one by one: the billing record. Never the pictures themselves, nor
//! what a provider made of a prompt.

use std::str::FromStr;

use axum::{Json, extract::State};
use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Desk,
    error::AdminError,
    extract::{Asked, Text},
    page::{Length, List},
    words::Moment,
};
use crate::{
    ids::{AccountId, GenerationId, ImageId, KeyId},
    keys::Mode,
    ledger::{Generation, GenerationSearch, ImagePlace, ImageRecord, ListedImage},
    money::NanoUsd,
};

/// Which pictures to list.
#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "ImageQuery")]
#[serde(deny_unknown_fields)]
pub(super) struct Query {
    limit: Option<Text<Length>>,
    after: Option<Text<Cursor>>,
    account: Option<String>,
    key: Option<Text<KeyId>>,
    mode: Option<Text<Mode>>,
    model: Option<String>,
    provider: Option<String>,
    user: Option<String>,
    idempotency_key: Option<String>,
    since: Option<Text<Moment>>,
    until: Option<Text<Moment>>,
}

/// `gen_….2`: pictures are in the order of their generations.
#[derive(JsonSchema)]
#[schemars(inline)]
struct Cursor(
    #[schemars(with = "String", regex(pattern = r"^gen_[0-9a-f]{32}\.[0-9]+$"))] ImagePlace,
);

/// A delivered picture.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Image")]
pub(super) struct ImageJson {
    object: &'static str,
    id: ImageId,
    generation: GenerationId,
    index: u8,
    account: AccountId,
    key: KeyId,
    mode: Mode,
    model: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    provider: Option<String>,
    format: String,
    /// Pixels; 0 where a vector picture has none.
    width: u32,
    height: u32,
    size_bytes: u64,
    cost: NanoUsd,
    upstream_cost: NanoUsd,
    /// When it began to arrive.
    created_at: DateTime<Utc>,
    /// Until when the file is kept.
    expires_at: DateTime<Utc>,
}

/// `GET /admin/v1/images`
pub(super) async fn list(
    State(desk): State<Desk>,
    Asked(query): Asked<Query>,
) -> Result<Json<List<ImageJson>>, AdminError> {
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
        status: None,
        user: query.user,
        idempotency_key: query.idempotency_key,
        since: query.since.map(|Text(since)| since.at(now)),
        until: query.until.map(|Text(until)| until.at(now)),
    };
    let after = query.after.map(|Text(Cursor(place))| place);
    let ledger = &desk.app.ledger;
    let found = ledger
        .search_images(&search, after, length.and_one_more())
        .await?;
    let cursor = |last: &ListedImage| format!("{}.{}", last.generation, last.image.index);
    Ok(List::page(found, length, cursor, ImageJson::from))
}

impl FromStr for Cursor {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        let place = || {
            let (generation, index) = text.split_once('.')?;
            Some(ImagePlace {
                generation: generation.parse().ok()?,
                index: index.parse().ok()?,
            })
        };
        place()
            .map(Self)
            .ok_or("expected the 'next' of the page before")
    }
}

impl ImageJson {
    /// Those of one generation.
    pub(super) fn of(generation: &Generation) -> Vec<Self> {
        let images = generation.images.iter();
        let listed = images.map(|image| ListedImage {
            generation: generation.id,
            account: generation.account,
            key: generation.key,
            mode: generation.mode,
            model: generation.model.clone(),
            provider: generation.provider.clone(),
            image: image.clone(),
        });
        listed.map(Self::from).collect()
    }
}

impl From<ListedImage> for ImageJson {
    fn from(listed: ListedImage) -> Self {
        let ImageRecord {
            id,
            index,
            format,
            width,
            height,
            size_bytes,
            cost,
            upstream_cost,
            revised_prompt: _,
            expires_at,
        } = listed.image;
        Self {
            object: "image",
            id,
            generation: listed.generation,
            index,
            account: listed.account,
            key: listed.key,
            mode: listed.mode,
            model: listed.model,
            provider: listed.provider,
            format,
            width,
            height,
            size_bytes,
            cost,
            upstream_cost,
            created_at: id.created_at(),
            expires_at,
        }
    }
}
