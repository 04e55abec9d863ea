//! `/admin/v1/accounts/{id}/credit`, `…/debit` and `…/entries`: what is put in, taken out, and charged.
//!
//! A booking with a `reference` is booked once, however often it is sent; the repeats get the same entry again.

use axum::{Json, extract::State};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Admin, Desk,
    error::AdminError,
    extract::{Asked, Named, Sent, Text, Usd},
    page::{Length, List},
    words::Name,
};
use crate::{
    keys::Mode,
    ledger::{Entry, NewEntry},
};

/// A credit or debit.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Booking {
    amount: Usd,
    mode: Option<Text<Mode>>,
    reference: Option<Text<Name>>,
    note: Option<String>,
}

/// Which entries to list; those of the live balance unless `mode` says otherwise.
#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "EntryQuery")]
#[serde(deny_unknown_fields)]
pub(super) struct Query {
    limit: Option<Text<Length>>,
    /// The sequence number of the last entry of the page before.
    after: Option<Text<i64>>,
    mode: Option<Text<Mode>>,
}

/// A line of the ledger.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Entry")]
pub(super) struct EntryJson {
    object: &'static str,
    #[serde(flatten)]
    entry: Entry,
}

/// `POST /admin/v1/accounts/{id}/credit`
pub(super) async fn credit(
    State(desk): State<Desk>,
    Named(id): Named,
    Sent(booking): Sent<Booking>,
) -> Result<Json<EntryJson>, AdminError> {
    let entry = entry(&desk, &id, booking).await?;
    Ok(Json(desk.app.ledger.credit(&entry).await?.into()))
}

/// `POST /admin/v1/accounts/{id}/debit`
pub(super) async fn debit(
    State(desk): State<Desk>,
    Named(id): Named,
    Sent(booking): Sent<Booking>,
) -> Result<Json<EntryJson>, AdminError> {
    let entry = entry(&desk, &id, booking).await?;
    Ok(Json(desk.app.ledger.debit(&entry).await?.into()))
}

/// `GET /admin/v1/accounts/{id}/entries`
pub(super) async fn list(
    State(desk): State<Desk>,
    Named(id): Named,
    Asked(query): Asked<Query>,
) -> Result<Json<List<EntryJson>>, AdminError> {
    let length = Length::of(query.limit);
    let id = desk.account(&id).await?.id;
    let mode = query.mode.map_or(Mode::Live, |Text(mode)| mode);
    let after = query.after.map(|Text(sequence)| sequence);
    let ledger = &desk.app.ledger;
    let found = ledger
        .entry_page(id, mode, after, length.and_one_more())
        .await?;
    Ok(List::page(
        found,
        length,
        |last| last.sequence.to_string(),
        EntryJson::from,
    ))
}

async fn entry(desk: &Admin, account: &str, booking: Booking) -> Result<NewEntry, AdminError> {
    Ok(NewEntry {
        account: desk.account(account).await?.id,
        mode: booking.mode.map_or(Mode::Live, |Text(mode)| mode),
        amount: booking.amount.0,
        note: booking.note,
        reference: booking.reference.map(|Text(Name(reference))| reference),
    })
}

impl From<Entry> for EntryJson {
    fn from(entry: Entry) -> Self {
        Self {
            object: "entry",
            entry,
        }
    }
}
