//! `GET /v1/credits` and `GET /v1/usage`: what the key's account has, holds and spent.

use axum::{Json, extract::State};
use serde::Serialize;

use super::{ApiError, App, auth::Authenticated};
use crate::money::NanoUsd;

/// What an account has.
#[derive(Serialize)]
pub(super) struct Credits {
    object: &'static str,
    currency: &'static str,
    balance: NanoUsd,
    held: NanoUsd,
    available: NanoUsd,
}

/// `GET /v1/credits`: the live or the test balance, by the key's mode.
pub(super) async fn credits(
    State(app): State<App>,
    Authenticated(key): Authenticated,
) -> Result<Json<Credits>, ApiError> {
    let have = app.ledger.balance(key.account, key.mode).await?;
    let available = have
        .balance
        .checked_sub(have.held)
        .map_err(|error| ApiError::Internal(Box::new(error)))?;
    Ok(Json(Credits {
        object: "credits",
        currency: "USD",
        balance: have.balance,
        held: have.held,
        available,
    }))
}
