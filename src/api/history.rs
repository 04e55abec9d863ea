//! `GET /v1/images/generations` and `GET /v1/images/generations/{id}`: what became of earlier requests of
//! the same account, with their pictures as fresh links or as base64.

use std::slice;

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    ApiError, App,
    auth::Authenticated,
    extract::{PathText, Queried},
    later,
    object::{GenerationJson, Kept, kept, links},
    pictures::{self, Piece},
};
use crate::{
    catalog::{ResponseFormat, Violation},
    ids::GenerationId,
    keys::ApiKey,
    ledger::{Generation, GenerationFilter, GenerationStatus},
};

const DEFAULT_PAGE: u32 = 20;
const LONGEST_PAGE: u32 = 100;

/// Which generations to list.
#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "GenerationFilter")]
pub(super) struct Filter {
    /// How many; 20 unless said otherwise.
    #[schemars(with = "u32", range(min = 1, max = 100))]
    #[serde(default)]
    limit: Option<String>,
    /// Those older than this one: the last id of the page before.
    #[schemars(with = "GenerationId")]
    #[serde(default)]
    after: Option<String>,
    /// The one under this `Idempotency-Key`.
    idempotency_key: Option<String>,
    /// Those for this end user.
    user: Option<String>,
}

/// How to show the pictures.
#[derive(Deserialize, JsonSchema)]
pub(super) struct Shape {
    response_format: Option<String>,
}

/// A page of generations, newest first.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "GenerationPage")]
pub(super) struct Page {
    #[schemars(extend("const" = "list"))]
    object: &'static str,
    data: Vec<GenerationJson>,
    /// Whether there are older ones.
    has_more: bool,
}

/// `GET /v1/images/generations`
pub(super) async fn list(
    State(app): State<App>,
    Authenticated(key): Authenticated,
    Queried(filter): Queried<Filter>,
) -> Result<Json<Page>, ApiError> {
    let limit = page_length(filter.limit.as_deref())?;
    let after = filter
        .after
        .map(|after| after.parse())
        .transpose()
        .map_err(|error| invalid("after", format!("Invalid value for 'after': {error}.")))?;
    let wanted = GenerationFilter {
        mode: Some(key.mode),
        after,
        user: filter.user,
        idempotency_key: filter.idempotency_key,
    };
    // One more than asked tells whether there are more.
    let mut found = app
        .ledger
        .generations(key.account, &wanted, limit.saturating_add(1))
        .await?;
    let page = usize::try_from(limit).unwrap_or(usize::MAX);
    let has_more = found.len() > page;
    found.truncate(page);
    Ok(Json(Page {
        object: "list",
        data: GenerationJson::of_all(&app, &found).await?,
        has_more,
    }))
}

fn page_length(text: Option<&str>) -> Result<u32, ApiError> {
    let Some(text) = text else {
        return Ok(DEFAULT_PAGE);
    };
    let length = text.parse().ok();
    length
        .filter(|length| (1..=LONGEST_PAGE).contains(length))
        .ok_or_else(|| {
            let given = super::error::excerpt(text);
            invalid(
                "limit",
                format!("Invalid value for 'limit': '{given}'. Expected an integer from 1 to {LONGEST_PAGE}."),
            )
        })
}

/// `GET /v1/images/generations/{id}`
pub(super) async fn show(
    State(app): State<App>,
    Authenticated(key): Authenticated,
    PathText(id): PathText,
    Queried(shape): Queried<Shape>,
) -> Result<Response, ApiError> {
    let format = match shape.response_format.as_deref() {
        None => ResponseFormat::Url,
        Some(word) => word.parse().map_err(|_| {
            invalid(
                "response_format",
                format!(
                    "Invalid value for 'response_format': '{}'. Supported values are: 'url', 'b64_json'.",
                    super::error::excerpt(word)
                ),
            )
        })?,
    };
    let generation = find(&app, &key, &id).await?;
    let mut shown = GenerationJson::from(&generation);
    let kept = kept(&app, slice::from_ref(&generation)).await?.concat();
    let mut response = match format {
        ResponseFormat::Url => {
            shown.data = links(&app, &kept).await?;
            Json(shown).into_response()
        }
        ResponseFormat::B64Json => as_base64(&app, &shown, &kept),
    };
    if generation.status == GenerationStatus::InProgress {
        later::say_come_back(&app, response.headers_mut(), generation.created_at);
    }
    Ok(response)
}

/// The generation, if it is of this key's account and mode; another's is as unknown as none.
pub(super) async fn find(app: &App, key: &ApiKey, id: &str) -> Result<Generation, ApiError> {
    let unknown = || ApiError::NoGeneration(super::error::excerpt(id));
    let parsed = id.parse().map_err(|_| unknown())?;
    app.ledger
        .generation(key.account, parsed)
        .await?
        .filter(|generation| generation.mode == key.mode)
        .ok_or_else(unknown)
}

fn as_base64(app: &App, shown: &GenerationJson, kept: &[Kept<'_>]) -> Response {
    let text = serde_json::to_string(shown).expect("plain fields always serialise");
    // `data` is the last field and empty: the pictures go between its brackets.
    let head = text.trim_end_matches("]}").to_owned();
    let mut pieces = vec![Piece::Text(head.into())];
    for (index, &(image, format)) in kept.iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        pieces.push(Piece::Text(format!("{comma}{{\"b64_json\":\"").into()));
        pieces.push(Piece::Picture {
            id: image.id,
            format,
            size_bytes: image.size_bytes,
        });
        let mut rest = json!({"expires_at": image.expires_at.timestamp()});
        if let Some(revised) = &image.revised_prompt {
            rest["revised_prompt"] = Value::from(revised.as_str());
        }
        let rest = rest.to_string();
        let rest = format!("\",{}", rest.trim_start_matches('{'));
        pieces.push(Piece::Text(rest.into()));
    }
    pieces.push(Piece::Text(Bytes::from_static(b"]}")));
    pictures::body(app, pieces)
}

fn invalid(parameter: &str, message: String) -> ApiError {
    ApiError::Parameter(Violation {
        parameter: parameter.to_owned(),
        code: "invalid_value",
        message,
    })
}
