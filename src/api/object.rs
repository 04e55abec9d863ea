//! The generation object (`image.generation`): what became of a request, as its account sees it. What `GET` shows,
//! what an order is answered with whose client comes back, and what webhooks carry.

use std::slice;

use chrono::TimeDelta;
use schemars::JsonSchema;
use serde::Serialize;

use super::{ApiError, App};
use crate::{
    ids::GenerationId,
    images::PictureFormat,
    ledger::{Generation, GenerationError, GenerationStatus, ImageRecord},
    money::NanoUsd,
};

const OBJECT: &str = "image.generation";

/// A generation as its account sees it.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Generation")]
pub(crate) struct GenerationJson {
    id: GenerationId,
    #[schemars(extend("const" = "image.generation"))]
    object: &'static str,
    #[schemars(with = "GenerationStatus")]
    status: &'static str,
    model: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    provider: Option<String>,
    /// Unix seconds.
    created: i64,
    /// What was charged, in USD.
    cost: NanoUsd,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    idempotency_key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<GenerationError>,
    /// The pictures that are still kept.
    #[schemars(with = "Vec<Shown>")]
    pub(super) data: Vec<PictureJson>,
}

/// A picture that is still kept.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "KeptPicture")]
struct Shown {
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    b64_json: Option<String>,
    /// What the provider made of the prompt.
    #[serde(skip_serializing_if = "Option::is_none")]
    revised_prompt: Option<String>,
    /// Unix seconds until which the link opens, or the picture is kept.
    expires_at: i64,
}

#[derive(Serialize)]
pub(super) struct PictureJson {
    url: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    revised_prompt: Option<String>,
    /// Unix seconds until which the link opens.
    expires_at: i64,
}

impl GenerationJson {
    /// The object with fresh links to the pictures that are still kept.
    ///
    /// # Errors
    /// [`ApiError::Internal`] when the store cannot be looked into.
    pub(crate) async fn of(app: &App, generation: &Generation) -> Result<Self, ApiError> {
        let mut one = Self::of_all(app, slice::from_ref(generation)).await?;
        Ok(one.pop().expect("there is one for each"))
    }

    /// The same of each of them. The store is looked into once for all.
    ///
    /// # Errors
    /// [`ApiError::Internal`] when that cannot be done.
    pub(super) async fn of_all(
        app: &App,
        generations: &[Generation],
    ) -> Result<Vec<Self>, ApiError> {
        let kept = kept(app, generations).await?;
        let mut links = links(app, &kept.concat()).await?.into_iter();
        let all = generations
            .iter()
            .zip(&kept)
            .map(|(generation, kept)| Self {
                data: links.by_ref().take(kept.len()).collect(),
                ..Self::from(generation)
            });
        Ok(all.collect())
    }

    /// One that has just begun.
    pub(super) fn begun(
        id: GenerationId,
        model: String,
        user: Option<String>,
        idempotency_key: Option<String>,
    ) -> Self {
        Self {
            id,
            object: OBJECT,
            status: GenerationStatus::InProgress.as_str(),
            model,
            provider: None,
            created: id.created_at().timestamp(),
            cost: NanoUsd::ZERO,
            user,
            idempotency_key,
            error: None,
            data: Vec::new(),
        }
    }
}

/// Without its pictures.
impl From<&Generation> for GenerationJson {
    fn from(generation: &Generation) -> Self {
        Self {
            id: generation.id,
            object: OBJECT,
            status: generation.status.as_str(),
            model: generation.model.clone(),
            provider: generation.provider.clone(),
            created: generation.id.created_at().timestamp(),
            cost: generation.cost,
            user: generation.user.clone(),
            idempotency_key: generation.idempotency_key.clone(),
            error: generation.error.clone(),
            data: Vec::new(),
        }
    }
}

/// A picture and what its bytes are.
pub(super) type Kept<'a> = (&'a ImageRecord, PictureFormat);

/// The pictures of each generation that are still kept. The copy of a relayed picture may go before its time is over.
pub(super) async fn kept<'a>(
    app: &App,
    generations: &'a [Generation],
) -> Result<Vec<Vec<Kept<'a>>>, ApiError> {
    let now = app.clock.now();
    let in_time = |generation: &'a Generation| -> Vec<Kept<'a>> {
        let images = generation.images.iter();
        images
            .filter(|image| image.expires_at > now)
            .filter_map(|image| Some((image, PictureFormat::from_extension(&image.format)?)))
            .collect()
    };
    let mut kept: Vec<_> = generations.iter().map(in_time).collect();
    let names = kept.iter().flatten();
    let names: Vec<_> = names.map(|(image, format)| (image.id, *format)).collect();
    if names.is_empty() {
        return Ok(kept);
    }
    let are_here = app.gateway.rooms().store.find(names).await;
    let are_here = are_here.map_err(|error| ApiError::Internal(Box::new(error)))?;
    let mut are_here = are_here.into_iter();
    for kept in &mut kept {
        kept.retain(|_| are_here.next().unwrap_or(false));
    }
    Ok(kept)
}

pub(super) async fn links(app: &App, kept: &[Kept<'_>]) -> Result<Vec<PictureJson>, ApiError> {
    let gateway = &app.gateway;
    let names = kept.iter().map(|(image, format)| (image.id, *format));
    let shared = gateway.rooms().store.share(names).await;
    shared.map_err(|error| ApiError::Internal(Box::new(error)))?;
    let ttl = TimeDelta::from_std(gateway.settings().url_ttl).unwrap_or(TimeDelta::MAX);
    let now = app.clock.now();
    let newest = now.checked_add_signed(ttl);
    let links = kept.iter().map(|&(image, format)| {
        let expires_at = newest.map_or(image.expires_at, |newest| newest.min(image.expires_at));
        PictureJson {
            url: gateway
                .rooms()
                .links
                .link(image.id, format, expires_at, now),
            revised_prompt: image.revised_prompt.clone(),
            expires_at: expires_at.timestamp(),
        }
    });
    Ok(links.collect())
}
