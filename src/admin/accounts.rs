//! `/admin/v1/accounts`: who pays. Accounts are named by id or exact name.

use axum::{Json, extract::State};
use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Admin, Desk,
    error::AdminError,
    extract::{Asked, Named, OrNull, Sent, Text, given},
    limits::LimitsJson,
    page::{Length, List},
    words::Name,
};
use crate::{
    ids::AccountId,
    keys::Limits,
    ledger::{
        AccountSummary, AccountUpdate, Balance, MAX_ACCOUNT_MARKUP_BASIS_POINTS, NewAccount,
        OpenHold,
    },
    money::{MoneyError, NanoUsd},
};

/// Open holds that an account shows, the oldest.
const HOLDS: u32 = 100;

/// Which accounts to list.
#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "AccountQuery")]
#[serde(deny_unknown_fields)]
pub(super) struct Query {
    limit: Option<Text<Length>>,
    after: Option<Text<AccountId>>,
    name: Option<String>,
}

/// An account to be opened.
#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "NewAccount")]
#[serde(deny_unknown_fields)]
pub(super) struct Create {
    name: Text<Name>,
    markup_basis_points: Option<u32>,
    limits: Option<LimitsJson>,
}

/// What shall be different about one; a markup of `null` is that of routes and providers, a limit of `null` is none.
#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "AccountUpdate")]
#[serde(deny_unknown_fields)]
pub(super) struct Update {
    #[serde(default, deserialize_with = "given")]
    name: Option<Text<Name>>,
    #[serde(default, deserialize_with = "given")]
    markup_basis_points: Option<OrNull<u32>>,
    #[serde(default, deserialize_with = "given")]
    limits: Option<LimitsJson>,
}

/// An account with what it has.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Account")]
pub(super) struct AccountJson {
    object: &'static str,
    id: AccountId,
    name: String,
    markup_basis_points: Option<u32>,
    limits: Limits,
    created_at: DateTime<Utc>,
    live: BalanceJson,
    test: BalanceJson,
}

/// The same, and what is held of it for what.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "AccountWithHolds")]
pub(super) struct OneAccountJson {
    #[serde(flatten)]
    account: AccountJson,
    open_holds: Vec<OpenHold>,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Balance")]
struct BalanceJson {
    balance: NanoUsd,
    held: NanoUsd,
    available: NanoUsd,
}

/// `GET /admin/v1/accounts`
pub(super) async fn list(
    State(desk): State<Desk>,
    Asked(query): Asked<Query>,
) -> Result<Json<List<AccountJson>>, AdminError> {
    let length = Length::of(query.limit);
    let after = query.after.map(|Text(id)| id);
    let found = desk
        .app
        .ledger
        .account_page(query.name.as_deref(), after, length.and_one_more())
        .await?;
    let shown = found.into_iter().map(AccountJson::try_from);
    let shown = shown.collect::<Result<Vec<_>, _>>()?;
    Ok(List::page(
        shown,
        length,
        |last| last.id.to_string(),
        |account| account,
    ))
}

/// `POST /admin/v1/accounts`
pub(super) async fn create(
    State(desk): State<Desk>,
    Sent(create): Sent<Create>,
) -> Result<Json<AccountJson>, AdminError> {
    let new = NewAccount {
        name: create.name.0.0,
        markup_basis_points: markup(create.markup_basis_points)?,
        limits: Limits::NONE.changed(&create.limits.unwrap_or_default().into()),
    };
    let account = desk.app.ledger.open_account(new).await?;
    summary(&desk, account.id).await.map(Json)
}

/// `GET /admin/v1/accounts/{id}`
pub(super) async fn show(
    State(desk): State<Desk>,
    Named(id): Named,
) -> Result<Json<OneAccountJson>, AdminError> {
    let id = desk.account(&id).await?.id;
    Ok(Json(OneAccountJson {
        account: summary(&desk, id).await?,
        open_holds: desk.app.ledger.open_holds(id, HOLDS).await?,
    }))
}

/// `PATCH /admin/v1/accounts/{id}`
pub(super) async fn update(
    State(desk): State<Desk>,
    Named(id): Named,
    Sent(update): Sent<Update>,
) -> Result<Json<AccountJson>, AdminError> {
    let changes = AccountUpdate {
        name: update.name.map(|Text(Name(name))| name),
        markup_basis_points: update
            .markup_basis_points
            .map(|OrNull(basis_points)| markup(basis_points))
            .transpose()?,
        limits: update.limits.unwrap_or_default().into(),
    };
    if changes == AccountUpdate::default() {
        return Err(AdminError::NothingToChange);
    }
    let id = desk.account(&id).await?.id;
    desk.app.ledger.update_account(id, &changes).await?;
    summary(&desk, id).await.map(Json)
}

async fn summary(desk: &Admin, id: AccountId) -> Result<AccountJson, AdminError> {
    let summary = desk.app.ledger.account_summary(id).await?;
    Ok(summary.try_into()?)
}

fn markup(basis_points: Option<u32>) -> Result<Option<u32>, AdminError> {
    let too_large = |markup: &u32| *markup > MAX_ACCOUNT_MARKUP_BASIS_POINTS;
    match basis_points.filter(too_large) {
        None => Ok(basis_points),
        Some(markup) => Err(AdminError::Parameter {
            name: "markup_basis_points".to_owned(),
            why: format!(
                "{markup} is more than {MAX_ACCOUNT_MARKUP_BASIS_POINTS}, which is 10,000 %"
            ),
        }),
    }
}

impl TryFrom<AccountSummary> for AccountJson {
    type Error = MoneyError;

    fn try_from(summary: AccountSummary) -> Result<Self, MoneyError> {
        Ok(Self {
            object: "account",
            id: summary.account.id,
            name: summary.account.name,
            markup_basis_points: summary.account.markup_basis_points,
            limits: summary.account.limits,
            created_at: summary.account.created_at,
            live: summary.live.try_into()?,
            test: summary.test.try_into()?,
        })
    }
}

impl TryFrom<Balance> for BalanceJson {
    type Error = MoneyError;

    fn try_from(have: Balance) -> Result<Self, MoneyError> {
        Ok(Self {
            balance: have.balance,
            held: have.held,
            available: have.available()?,
        })
    }
}
