//! Path and query, with our envelope when they cannot be read.

use axum::extract::{FromRequestParts, Path, Query};
use http::request::Parts;
use serde::de::DeserializeOwned;

use super::{ApiError, App, error::excerpt};
use crate::catalog::Violation;

/// The one variable part of a path, percent-decoded.
pub(super) struct PathText(pub(super) String);

impl FromRequestParts<App> for PathText {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        match Path::<String>::from_request_parts(parts, app).await {
            Ok(Path(text)) => Ok(Self(text)),
            Err(_) => Err(ApiError::UnknownPath(
                parts.method.clone(),
                excerpt(parts.uri.path()),
            )),
        }
    }
}

/// A typed query string.
pub(super) struct Queried<T>(pub(super) T);

impl<T: DeserializeOwned + Send> FromRequestParts<App> for Queried<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        match Query::<T>::from_request_parts(parts, app).await {
            Ok(Query(query)) => Ok(Self(query)),
            Err(rejection) => {
                // Says which field and what is wrong with it, never its value.
                let text = rejection.body_text();
                let what = text.rsplit("query string: ").next().unwrap_or_default();
                Err(ApiError::Parameter(Violation {
                    parameter: "query".to_owned(),
                    code: "invalid_value",
                    message: format!("Invalid query string: {what}."),
                }))
            }
        }
    }
}
