//! A new key with all that belongs to it: its account, if it shall have one of its own, and its first money.
//! For `easel keys create`, for the key of the first start, and for `POST /admin/v1/keys`.

use chrono::{DateTime, Utc};
use secrecy::SecretString;

use crate::{
    addresses::IpRange,
    keys::{ApiKey, KeyError, Keys, Limits, Mode, NewKey, UnsupportedParameters},
    ledger::{Ledger, LedgerError, NewEntry},
    money::NanoUsd,
};

/// What a test key with an account of its own starts with: 100 USD of play money.
pub(crate) const PLAY_MONEY: NanoUsd = NanoUsd::from_nano(100_000_000_000);

/// What was not possible.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NewKeyError {
    /// With the account or its money.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// With the key.
    #[error(transparent)]
    Key(#[from] KeyError),
}

/// A key to be made, who pays for it, and with what.
#[derive(Debug, Clone)]
pub(crate) struct KeyOrder {
    /// A name for people.
    pub(crate) name: String,
    /// Live or test.
    pub(crate) mode: Mode,
    /// The account, by id or exact name; `None` opens one that is called like the key.
    pub(crate) account: Option<String>,
    /// What is put on its balance, live or test as the key is. `None` is nothing, but [`PLAY_MONEY`] for a
    /// test key that gets an account of its own.
    pub(crate) credit: Option<NanoUsd>,
    /// Ids of the models it may use; `None` is all.
    pub(crate) models: Option<Vec<String>>,
    /// How much it may do.
    pub(crate) limits: Limits,
    /// Networks that it may be used from; `None` is all.
    pub(crate) allowed_ips: Option<Vec<IpRange>>,
    /// What happens to parameters that a model does not take.
    pub(crate) unsupported_parameters: UnsupportedParameters,
    /// When it ends by itself.
    pub(crate) expires_at: Option<DateTime<Utc>>,
}

/// Makes a key and what it needs. Each step is a commit of its own, so what can be refused beforehand should
/// have been by now.
pub(crate) async fn create(
    ledger: &Ledger,
    keys: &Keys,
    order: KeyOrder,
) -> Result<(ApiKey, SecretString), NewKeyError> {
    let mode = order.mode;
    let (account, gift) = match &order.account {
        Some(account) => (ledger.find_account(account).await?, None),
        None => (
            ledger.create_account(&order.name).await?,
            (mode == Mode::Test).then_some(PLAY_MONEY),
        ),
    };
    let amount = order.credit.or(gift).unwrap_or(NanoUsd::ZERO);
    if amount > NanoUsd::ZERO {
        let entry = NewEntry {
            account: account.id,
            mode,
            amount,
            note: Some("with a new key".to_owned()),
            reference: None,
        };
        ledger.credit(&entry).await?;
    }
    let new = NewKey {
        account: account.id,
        name: order.name,
        mode,
        models: order.models,
        limits: order.limits,
        allowed_ips: order.allowed_ips,
        unsupported_parameters: order.unsupported_parameters,
        expires_at: order.expires_at,
    };
    Ok(keys.create(new).await?)
}
